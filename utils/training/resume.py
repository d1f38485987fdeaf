"""`--resume`: what a run may change when it goes on, and putting it where epoch_last.pth was written."""

from dataclasses import replace
from typing import Any

from utils.config import FIELDS, Config, from_dict
from utils.errors import UserError
from utils.log import log
from utils.training.run import Run
from utils.training.task import Task

# What --resume does with every field of Config:
# AGREE: must be as before, or the run would be another one; a different value is refused
# APPLY: may change; the new value holds from the next epoch on, and the log says so
# KEEP: how the weights were initialised; the old value stays, because the weights come from the checkpoint
# NO_PART: says nothing about how a run trains
AGREE, APPLY, KEEP, NO_PART = "agree", "apply", "keep", "no part"
ON_RESUME = {
    **dict.fromkeys(("recipe", "num_classes", "class_names", "folds", "fold", "val_cases"), AGREE),
    **dict.fromkeys(
        (
            "preprocess",
            "fit",
            "intensity",
            "img_size",
            "network",
            "ssd",
            "drop_path",
            "batch_size",
            "drop_last",
            "accumulate",
        ),
        AGREE,
    ),
    **dict.fromkeys(("loss", "optimizer", "schedule", "warmup_epochs", "restart_iterations"), AGREE),
    **dict.fromkeys(("ema", "select", "seed"), AGREE),
    **dict.fromkeys(("dataset", "root_path", "list_dir", "csvfile"), APPLY),  # the cases themselves must agree
    **dict.fromkeys(("epochs", "schedule_epochs", "lr", "min_lr", "weight_decay", "clip_grad"), APPLY),
    **dict.fromkeys(("augment", "eval_every", "device", "precision", "compile", "graphs"), APPLY),
    **dict.fromkeys(("recompute", "cache", "workers", "log_every"), APPLY),
    **dict.fromkeys(("pretrained", "pretrained_vssd", "pretrained_form"), KEEP),
    **dict.fromkeys(("output_dir", "resume", "force"), NO_PART),
    **dict.fromkeys(("checkpoint", "split", "protocol", "tolerance", "tta", "tta_scales"), NO_PART),
    **dict.fromkeys(("is_savenii", "debug", "report", "input"), NO_PART),
}


def changed_settings(before: Config, now: Config, kind: str) -> list[str]:
    """The fields of one kind of `ON_RESUME` that differ, as `name before -> now`."""
    names = [name for name in FIELDS if ON_RESUME[name] == kind]
    pairs = ((name, getattr(before, name), getattr(now, name)) for name in names)
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


def check_same_run(state: dict[str, Any], cfg: Config, split: str, split_sha256: str, source: str) -> Config:
    """The config that the checkpoint `state` of the file `source` was written with, if `cfg` may go on from it.

    split, split_sha256: as in `Task`
    raises: UserError for another kind of file, for settings that must agree and do not, and for other cases
    """
    if state.get("format") != "heteromedseg" or "optimizer" not in state:
        raise UserError(f"{source}: not an epoch_last.pth of a training run; --resume needs one")
    before = from_dict(state["config"], source, {cfg.recipe: cfg})
    if changed := changed_settings(before, cfg, AGREE):
        raise UserError(
            f"--resume: {source} was trained with other settings: {'; '.join(changed)}; "
            "give those, or a new --output_dir"
        )
    if state.get("split_sha256", split_sha256) != split_sha256:
        raise UserError(
            f"--resume: {source} was trained on other cases ({state['split']}) than are found now ({split}); "
            "give the same data and split, or a new --output_dir"
        )
    return before


def restore(run: Run, state: dict[str, Any], cfg: Config, task: Task, source: str) -> Config:
    """Put `run` where the checkpoint `state` was written; the config with which it goes on.

    raises: UserError as `check_same_run`
    """
    before = check_same_run(state, cfg, task.split, task.split_sha256, source)
    run.model.load_state_dict(state["model"])
    restore_optimizer(run, state["optimizer"], source)
    if run.scaler.is_enabled() and state["scaler"]:  # a run in fp16 that went on in fp16
        run.scaler.load_state_dict(state["scaler"])
    if run.ema:
        run.ema.load_state_dict(state["ema"])
    run.epoch, run.iteration, run.best = state["epoch"], state["iteration"], state["best"]
    run.history.extend(state["history"])
    log(f"resumed from {source} after epoch {run.epoch}")
    for change in changed_settings(before, cfg, APPLY):
        log(f"changed on --resume: {change}")
    return replace(cfg, **{name: getattr(before, name) for name, kind in ON_RESUME.items() if kind == KEEP})


def restore_optimizer(run: Run, saved: dict[str, Any], source: str) -> None:
    """Load the moments of every parameter; the settings stay those that `run` was started with.

    raises: UserError where the parameters are grouped differently
    """
    settings = run.optimizer.state_dict()["param_groups"]
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in settings]:
        raise UserError(
            f"{source}: its optimizer has other groups of parameters; resume with the version that wrote it"
        )
    run.optimizer.load_state_dict({"state": saved["state"], "param_groups": settings})
