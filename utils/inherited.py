"""Which settings of a training --resume, test.py and predict.py take over."""

from utils.config import Config

# What --resume does with every field of Config:
# AGREE: must be as before, or the run would be another one; a different value is refused
# APPLY: may change; the new value holds from the next epoch on, and the log says so
# KEEP: how the weights were initialised; the old value stays, a different one but `auto` is refused
# NO_PART: says nothing about how a run trains
AGREE, APPLY, KEEP, NO_PART = "agree", "apply", "keep", "no part"
ON_RESUME = {
    **dict.fromkeys(("recipe", "num_classes", "class_names", "folds", "fold", "val_cases"), AGREE),
    **dict.fromkeys(("preprocess", "fit", "intensity", "img_size", "network", "ssd", "drop_path"), AGREE),
    **dict.fromkeys(("batch_size", "drop_last", "accumulate"), AGREE),
    **dict.fromkeys(("skips", "decoder", "width", "encoder_depths", "decoder_depths", "variant"), AGREE),
    **dict.fromkeys(("loss", "class_weights", "optimizer", "schedule", "warmup_epochs", "restart_iterations"), AGREE),
    **dict.fromkeys(("deep_supervision", "ema", "select", "seed"), AGREE),
    **dict.fromkeys(("dataset", "root_path", "list_dir", "csvfile"), APPLY),  # the cases themselves must agree
    **dict.fromkeys(("epochs", "schedule_epochs", "lr", "min_lr", "weight_decay", "clip_grad"), APPLY),
    **dict.fromkeys(("augment", "strong_augment", "eval_every", "device", "precision", "compile", "graphs"), APPLY),
    **dict.fromkeys(("deterministic", "recompute", "cache", "workers", "log_every"), APPLY),
    **dict.fromkeys(("init", "pretrained", "pretrained_vssd", "pretrained_form"), KEEP),
    **dict.fromkeys(("output_dir", "resume", "force"), NO_PART),
    **dict.fromkeys(("checkpoint", "split", "protocol", "tolerance", "tta", "tta_scales"), NO_PART),
    **dict.fromkeys(("recursive", "keep_largest", "fill_holes", "overlay", "probabilities"), NO_PART),
    **dict.fromkeys(("max_image_bytes", "is_savenii", "debug", "report", "input"), NO_PART),
}


# What a checkpoint decides of a test or a prediction: the network, its input, where its data was; and what
# test.py compares the flags of the published command with.
PASSED_ON = (
    *(name for name, kind in ON_RESUME.items() if kind == AGREE and name != "accumulate"),
    *("dataset", "root_path", "list_dir", "csvfile", "epochs", "lr"),
)


def passed_on(trained: Config) -> Config:
    """The settings of a training that hold for a test or a prediction, too; all others have their defaults."""
    return Config(**{name: getattr(trained, name) for name in PASSED_ON})
