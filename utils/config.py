"""Config: everything that decides a run, as one frozen value.

Recipes are instances of it (`synapse_train_test/task.py`, `isic_polyp_rectal/task.py`); the
command line replaces fields (`utils/command_line.py`); every run prints it, saves it as
config.json and inside each of its checkpoints. A field's metadata is its flag: the help text,
other spellings, the scripts that offer it, the values it takes.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.device import num_cores
from utils.errors import UserError
from utils.fields import check_saved, option
from utils.files import MAX_IMAGE_BYTES
from utils.preprocess import FITS, INTENSITIES, SLICES, UNKNOWN, Preprocess

TRAIN, TEST, PREDICT = "train", "test", "predict"
ALL = (TRAIN, TEST, PREDICT)
RUNS = (TRAIN, TEST)
TESTED = (TEST, PREDICT)
SCHEDULES = ("warm_restarts", "cosine_epochs", "cosine")
SELECTIONS = ("auto", "last", "cycle_end", "validation", "test")
AUTO_BATCH = 0  # --batch_size auto, until train.py has found what fits
LOSSES = ("ce_dice", "ce", "dice", "dice_bce", "bce", "focal", "tversky", "focal_tversky", "lovasz")


@dataclass(frozen=True)
class Config:
    """One run. Sizes in pixels (height, width); epochs and folds count from 0; rates are per update."""

    # What is segmented
    dataset: str = option("phantom", "name of a recipe, or a data folder", verbs=RUNS)
    recipe: str = option("phantom", "recipe to train a data folder with, or that of released weights", verbs=ALL)
    root_path: str | None = option(
        None, "data folder, or its train_npz, test_vol_h5 or images folder", "--volume_path", verbs=RUNS
    )
    list_dir: str | None = option(None, "folder of train.txt, test_vol.txt and, if any, val_vol.txt", verbs=RUNS)
    csvfile: str | None = option(
        None, "split: a CSV with image_id,category[,fold][,group], of train, val and test", verbs=RUNS
    )
    num_classes: int = option(9, "classes with background, or 1 for a binary mask", verbs=RUNS, least=1, below=256)
    class_names: tuple[str, ...] | None = option(None, "names of the foreground classes, with commas", verbs=RUNS)
    folds: int = option(0, "cut the training part of a CSV split in this many folds", verbs=RUNS, least=0)
    fold: str = option("0", "fold kept for validation, from 0; in train.py also 'all': each in turn", verbs=RUNS)
    val_cases: int = option(0, "training cases of a Synapse-like set kept for validation", least=0)

    # What the network sees
    preprocess: Preprocess = option(SLICES, "set by the recipe, not by a flag", verbs=())  # noqa: RUF009 - it is frozen
    fit: str = option(
        "squash",
        "other aspects and sizes: squash resizes to the input size, pad keeps the aspect and fills up with 0, slide "
        "looks at the image's own resolution through overlapping windows",
        choices=FITS,
    )
    img_size: tuple[int, int] = option(
        (224, 224), "input size: 224 or 160x224 (height x width)", verbs=RUNS, least=1, below=2**15
    )

    # The network
    network: str = option("heteromedseg", "network to train, e.g. unet_resnet34, nnunet_plain, smp:Unet:resnet50")
    ssd: str = option("causal", "state-space form", choices=("causal", "noncausal", "bidirectional"))
    drop_path: float = option(0.2, "stochastic depth of the deepest block", least=0, below=1)
    skips: str = option("scsa", "attention on the skip connections", choices=("scsa", "plain"))
    decoder: str = option("bra", "blocks of the decoder", choices=("bra", "conv"))
    width: int = option(96, "channels at stride 4, a multiple of 32", least=32)
    encoder_depths: tuple[int, ...] = option((2, 2, 2), "VSSD blocks at strides 4, 8 and 16", least=1)
    decoder_depths: tuple[int, ...] = option((8, 2, 2), "blocks of the decoder at strides 16, 8 and 4", least=1)
    variant: str = option(
        "published",
        "one formula of the blocks changed: residual_decoder does not normalise the input of a decoder block, "
        "single_norm normalises it once, head_scale scales attention by a head's width, gated_z has SiLU in the mixer",
        choices=("published", "residual_decoder", "single_norm", "head_scale", "gated_z"),
    )
    init: str | None = option(None, "start from the weights of a checkpoint of train.py, or of released weights")
    pretrained: str = option(
        "auto", "BiFormer-Base weights: auto (if the file is found), none, or a file; imagenet for smp networks"
    )
    pretrained_vssd: str = option("none", "VSSD-Base weights for the encoder: auto, none, or a file")
    pretrained_form: str = option(
        "extended", "what to take from BiFormer-Base: all that fits, or as published", choices=("extended", "published")
    )

    # Training
    epochs: int = option(
        300, "passes over the training set", "--max_epochs", "--max_epoch", "--epoch", verbs=RUNS, least=1
    )
    batch_size: int = option(
        24,
        "images at a time: in training of all GPUs together (auto: what fits), else of each",
        "--batch",
        verbs=ALL,
        least=0,
    )
    loss: str = option("ce_dice", "training loss", choices=LOSSES)
    deep_supervision: bool = option(
        False, "in training, the decoder's coarser stages have heads, too; their loss counts 1/2 and 1/4"
    )
    class_weights: tuple[float, ...] | None = option(
        None, "weights of the pixels of each class, background first, in the losses with ce, bce and focal", least=0
    )
    optimizer: str = option("adamw", "optimizer", choices=("adamw", "adam"))
    lr: float = option(1e-3, "learning rate", "--base_lr", verbs=RUNS, least=0)
    min_lr: float = option(1e-6, "learning rate at the end of a cosine", least=0)
    weight_decay: float = option(1e-2, "weight decay; norms, biases, A_log, D, dt_bias get none", least=0)
    schedule: str = option("warm_restarts", "learning-rate schedule", choices=SCHEDULES)
    schedule_epochs: int = option(0, "length of the cosine in epochs; 0: as many as are trained", least=0)
    warmup_epochs: float = option(0.0, "linear warm-up of the cosine schedule, in epochs", least=0)
    restart_iterations: int = option(50, "first cycle of warm_restarts in updates; each next is twice as long", least=1)
    accumulate: int = option(1, "batches whose gradients are added for one update", least=1)
    clip_grad: float = option(0.0, "largest norm of the gradient; 0: unlimited", least=0)
    ema: float = option(0.0, "decay of a moving average of the weights, e.g. 0.999; 0: none", least=0, below=1)
    augment: bool = option(True, "augment the training images")
    strong_augment: bool = option(
        False, "augment intensities, too: brightness, contrast, low resolution and gamma as in nnU-Net"
    )
    drop_last: bool = option(False, "leave out the last training batch of an epoch where it is smaller")
    select: str = option("auto", "which checkpoint becomes best_model.pth", choices=SELECTIONS)
    eval_every: int = option(1, "epochs between two validations", least=1)
    seed: int = option(1234, "seed of python, NumPy and PyTorch", least=0, below=2**32)

    # The machine
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", verbs=ALL)
    precision: str = option("auto", "arithmetic of the network", verbs=ALL, choices=("auto", "fp32", "bf16", "fp16"))
    compile: bool = option(False, "run the network through torch.compile", verbs=ALL)
    graphs: bool = option(False, "with --compile on a GPU: replay the network as CUDA graphs", verbs=ALL)
    deterministic: bool = option(
        False, "the same weights every time, for any number of workers and any cache; slower, above all on a GPU"
    )
    recompute: str = option(
        "auto", "keep fewer activations, for a third more time; auto: if short of memory", choices=("auto", "yes", "no")
    )
    cache: str = option(
        "auto",
        "decoded images are kept: yes, in memory; disk, in files; auto, if they fit",
        choices=("auto", "yes", "disk", "no"),
    )
    max_image_bytes: int = option(
        MAX_IMAGE_BYTES,
        "largest image or volume to read, in bytes of the decoded array",
        verbs=ALL,
        least=1,
        below=2**63,
    )
    workers: int = option(min(4, num_cores()), "loader processes where the set is not kept in memory", least=0)
    log_every: int = option(20, "updates between two lines of the log", least=1)

    # Where things are
    output_dir: str = option("save_models", "folder to write to: a run with its results, or masks", verbs=ALL)
    resume: bool = option(False, "go on from output_dir/epoch_last.pth")
    force: bool = option(False, "replace the run, the results or the masks that output_dir already holds", verbs=ALL)

    # Testing
    checkpoint: tuple[str, ...] = option(
        (), "checkpoint to use; the probabilities of several are averaged", "--model", verbs=TESTED
    )
    split: str = option("test", "part to evaluate", verbs=(TEST,), choices=("test", "val", "train"))
    protocol: str = option("standard", "evaluation rules", verbs=(TEST,), choices=("standard", "legacy"))
    tolerance: float = option(
        2.0, "tolerance of the normalised surface Dice, in mm (pixels without a spacing)", verbs=(TEST,), least=0
    )
    tta: bool = option(False, "average over the four flips of an image", verbs=TESTED)
    tta_scales: tuple[float, ...] = option(
        (), "average over these multiples of the image's size, too, e.g. 0.75,1.25", verbs=TESTED, least=0.1, below=10
    )
    is_savenii: bool = option(False, "write image, label and prediction of each volume as NIfTI", verbs=(TEST,))
    debug: bool = option(False, "write overlays of prediction and ground truth", verbs=(TEST,))
    report: bool = option(True, "write report.html, a page with the figures and every case to look at", verbs=(TEST,))

    # Predicting
    input: tuple[str, ...] = option((), "files, folders or patterns such as 'scans/*.nii.gz'", verbs=(PREDICT,))
    recursive: bool = option(False, "search folders within folders, too", verbs=(PREDICT,))
    keep_largest: bool = option(False, "keep only the largest connected part of each class", verbs=(PREDICT,))
    fill_holes: bool = option(False, "fill what a class encloses, slice by slice in volumes", verbs=(PREDICT,))
    overlay: bool = option(False, "write a picture of each mask on its image", verbs=(PREDICT,))
    probabilities: bool = option(False, "write the probability of each class as npz", verbs=(PREDICT,))
    intensity: str = option(
        "auto",
        "how values become [0, 1]: auto as in training, ct clips HU to -125..275, range divides by the type's largest, "
        "percentile stretches 0.5..99.5 %, unit takes them as they are",
        verbs=(TRAIN, PREDICT),
        choices=("auto", *INTENSITIES),
    )


FIELDS: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Config)}


def check_together(cfg: Config) -> Config:
    """`cfg` itself. raises: UserError for flags that exclude each other, and for a class that is named twice"""
    if cfg.class_names and (twice := [name for name in cfg.class_names if cfg.class_names.count(name) > 1]):
        raise UserError(f"--class_names {','.join(cfg.class_names)}: {twice[0]} stands there twice; names must differ")
    if cfg.init and {cfg.pretrained, cfg.pretrained_vssd} - {"auto", "none"}:
        raise UserError("--init and --pretrained: both say what to start from; give one")
    if cfg.strong_augment and not cfg.augment:
        raise UserError("--no-augment and --strong_augment: the one asks for less, the other for more; give one")
    if cfg.graphs and not cfg.compile:
        raise UserError("--graphs: CUDA graphs are recorded of the compiled network; give --compile, too")
    if cfg.graphs and cfg.accumulate > 1:
        raise UserError(
            f"--graphs: gradients cannot be added up over --accumulate {cfg.accumulate} batches; leave one out"
        )
    return cfg


def to_dict(cfg: Config) -> dict[str, Any]:
    """Plain values for JSON and for checkpoints (tuples as lists)."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(cfg).items()}


def from_dict(values: Mapping[str, Any], source: str) -> Config:
    """The Config that `to_dict` wrote; fields added since then take their defaults.

    raises: UserError for a field that this version does not know, or a value that the command line would refuse
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{source}: its config is a {type(values).__name__}; expected a dict of settings")
    unknown = sorted(str(name) for name in values if name not in FIELDS)
    if unknown:
        raise UserError(
            f"{source}: its config has unknown fields {', '.join(unknown)[:200]}; was it written by a newer version?"
        )
    plain = {name: _saved(name, value, source) for name, value in values.items()}
    if plain.get("batch_size") == AUTO_BATCH:
        raise UserError(f"{source}: batch_size 0 in its config; expected a whole number from 1")
    if "preprocess" not in plain:
        raise UserError(f"{source}: its config lacks preprocess, how its images were made; expected that of a training")
    return check_together(Config(**plain))


def _saved(name: str, value: Any, source: str) -> Any:
    """One value of a saved config. raises: UserError with the file and the field"""
    try:
        return Preprocess.from_dict(value) if name == "preprocess" else check_saved(FIELDS[name], value)
    except ValueError as error:
        raise UserError(f"{source}: {name} {str(value)[:80]!r} in its config; expected {error}") from None


def own_data(cfg: Config) -> Config:
    """Mark intensities and orientation as unknown where --list_dir names other data than the recipe's."""
    if cfg.list_dir is None:
        return cfg
    return dataclasses.replace(cfg, preprocess=dataclasses.replace(cfg.preprocess, intensity=UNKNOWN, orientation=""))


def settle_preprocess(cfg: Config) -> Config:
    """Put --fit and --intensity of a training run into its Preprocess. raises: UserError for --cache with slide"""
    if cfg.fit == "slide" and cfg.cache in ("yes", "disk"):
        raise UserError(f"--cache {cfg.cache}: --fit slide cuts other windows in every epoch; leave the flag out")
    intensity = cfg.preprocess.intensity if cfg.intensity == "auto" else cfg.intensity
    pre = dataclasses.replace(cfg.preprocess, fit=cfg.fit, intensity=intensity)
    return dataclasses.replace(cfg, preprocess=pre, cache="no" if cfg.fit == "slide" else cfg.cache)


def describe(cfg: Config, verb: str) -> str:
    """The fields that matter to `verb`, one `name value` a line, for the first lines of a run."""
    names = [name for name, f in FIELDS.items() if verb in f.metadata["verbs"]]
    shown = {n: getattr(cfg, n) for n in names}
    return "\n".join(f"  {n:<18} {'x'.join(map(str, v)) if n == 'img_size' else v}" for n, v in shown.items())
