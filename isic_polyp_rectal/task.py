"""ISIC-2018, CVC-ClinicDB, rectal CT and any images/ + masks/ folder with a CSV split: recipes and training task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from datasets.augment import augment_binary
from datasets.augment_intensity import augment
from datasets.crops import RandomCrops
from datasets.images.check import check_pairs
from datasets.images.classes import CLASSES_FILE, ClassTable, find_classes
from datasets.images.pairs import ImageMaskSet, Pair, data_root, pair_files
from datasets.images.split import DEFAULT_NAME, Split, load_split
from datasets.memory import InMemory
from datasets.prepared import as_prepared, find_prepared
from datasets.summary import DataSummary, try_each
from utils.config import Config
from utils.errors import UserError, counted
from utils.preprocess import PICTURES
from utils.training.losses import loss_for
from utils.training.task import Task, hash_cases, hash_names
from utils.training.validation import ValidationSet

# As published; the cosine runs over 200 epochs even where the training stops at 180.
ISIC2018 = Config(
    dataset="isic2018",
    recipe="isic2018",
    num_classes=1,
    preprocess=PICTURES,
    img_size=(256, 256),
    epochs=200,
    batch_size=42,
    loss="dice",
    optimizer="adam",
    lr=5e-4,
    weight_decay=0.0,
    schedule="cosine_epochs",
    schedule_epochs=200,
    min_lr=0.0,
    drop_last=True,
    folds=5,
    seed=1234,
)
CVC_CLINICDB = replace(
    ISIC2018,
    dataset="cvc_clinicdb",
    recipe="cvc_clinicdb",
    optimizer="adamw",
    lr=6e-4,
    weight_decay=1e-2,
    batch_size=44,
    folds=9,
)
# Not published. It won on validation data with inputs of 64 and 96 pixels (docs/results.md, better_arm_cpu_val); the
# input grows by the same factor here.
CVC_CLINICDB_PLUS = replace(
    CVC_CLINICDB, recipe="cvc_clinicdb_plus", loss="dice_bce", strong_augment=True, img_size=(384, 384)
)
RECTAL = replace(
    CVC_CLINICDB,
    dataset="rectal",
    recipe="rectal",
    preprocess=replace(PICTURES, orientation="SPL"),  # that of its DICOM files
    img_size=(224, 224),
    epochs=180,
)
RECIPES = {
    "isic2018": ISIC2018,
    "cvc_clinicdb": CVC_CLINICDB,
    "rectal": RECTAL,
    "cvc_clinicdb_plus": CVC_CLINICDB_PLUS,
}
FEW = 3  # images for validation below which there is a warning
FOREGROUND = {"isic2018": "lesion", "cvc_clinicdb": "polyp", "cvc_clinicdb_plus": "polyp", "rectal": "tumour"}


def build_task(cfg: Config) -> Task:
    """Read and check every file, then make the training task. raises: UserError with all problems of the data"""
    root, split = open_split(cfg)
    if not split.train:
        raise UserError(f"{root}: the CSV has no image of the category train, expected some to train on")
    train, held_out = fold_parts(cfg, split)
    summary = check_pairs([*split.train, *split.val, *split.test], split.table, intensity=cfg.intensity)
    classes = class_names(cfg)
    if cfg.select == "test" and not split.test:
        raise UserError("--select test: the CSV has no image of the category test")
    judged, part = (split.test, "test") if cfg.select == "test" else (held_out, "validation")
    data = ImageMaskSet(train, cfg.img_size, split.table, cfg.preprocess, cfg.intensity)
    if cfg.preprocess.fit == "slide":
        data = RandomCrops(data, cfg.img_size, cfg.seed)
    counts = f"  {counted(len(train), 'image')} to train on, {len(judged)} for {part}"
    return Task(
        name=cfg.recipe,
        class_names=classes,
        train_set=data,
        augment=partial(augment, recipe=augment_binary, strong=cfg.strong_augment),
        preprocess=cfg.preprocess,
        loss=loss_for(cfg.loss, cfg.num_classes, cfg.class_weights),
        validate=validation_set(judged, cfg, classes, split.table) if judged else None,
        validated_on=part,
        found=(f"data: {root}: {summary}", *warnings_of(summary, split, classes, held_out), counts),
        split=split_in_words(cfg, split),
        split_sha256=hash_pairs(train, held_out),
        cases=hash_cases(*([pair.image_id for pair in part] for part in (train, held_out))),
    )


def open_split(cfg: Config) -> tuple[Path, Split]:
    """(data folder, its split). raises: UserError for flags that do not fit, a missing folder or CSV"""
    for field in ("list_dir", "val_cases"):
        if getattr(cfg, field):
            raise UserError(f"--{field}: recipe {cfg.recipe} splits by a CSV and folds; expected --csvfile and --fold")
    if cfg.root_path is None:
        needed = "the folder with images/ and masks/ (or --dataset FOLDER)"
        raise UserError(f"--root_path: recipe {cfg.recipe} needs {needed}")
    root = data_root(cfg.root_path)
    table = find_classes(root)
    check_classes(cfg, table, root)
    csvfile = Path(cfg.csvfile) if cfg.csvfile else root / DEFAULT_NAME
    if not csvfile.is_file():
        field = "--csvfile" if cfg.csvfile else "--csvfile (its default)"
        remedy = f"make one with: python data_split_csv.py --dataset {root} --size 0.9"
        raise UserError(f"{field} {csvfile}: no such file; {remedy}")
    return root, replace(load_split(csvfile, pair_files(root), cfg.folds or None, cfg.seed), table=table)


def settle(cfg: Config, given: Mapping[str, Any]) -> Config:
    """`cfg` with the classes that the data folder describes, and how prepare_data.py made its images.

    raises: UserError where a flag of `given` says otherwise
    """
    if not cfg.root_path:
        return cfg
    root, made = find_prepared(data_root(cfg.root_path))
    if made:
        cfg = replace(cfg, preprocess=as_prepared(cfg.preprocess, given, root, made))
    table = find_classes(data_root(cfg.root_path))
    if table is None:
        return cfg
    settled = replace(cfg, num_classes=table.num_classes, class_names=table.names[1:])
    for field in ("num_classes", "class_names"):
        if field in given and given[field] != getattr(settled, field):
            path = data_root(cfg.root_path) / CLASSES_FILE
            raise UserError(f"--{field}: {path} has the classes {table}; leave the flag out, or change the file")
    return settled


def check_classes(cfg: Config, table: ClassTable | None, root: Path) -> None:
    """Raise UserError unless the masks in `root` have the classes of the network, in its order."""
    names = ", ".join(cfg.class_names or ())
    wanted = f"{cfg.num_classes} classes{f' (background, {names})' if names else ''}"
    if table is None and cfg.num_classes != 1:
        raise UserError(f"{root}: its masks are binary without a {CLASSES_FILE}; the network has {wanted}; write one")
    if table is None:
        return
    alike = cfg.num_classes == 1 or cfg.class_names in (None, table.names[1:])
    if table.num_classes != cfg.num_classes or not alike:
        wanted = "one class" if cfg.num_classes == 1 else wanted
        raise UserError(f"{root / CLASSES_FILE}: found the classes {table}; the network has {wanted}")


def num_folds(cfg: Config) -> int:
    """How many folds the training part has. raises: UserError where it has none"""
    _, split = open_split(cfg)
    if split.folds is None:
        remedy = "leave --fold out, or the category val" if split.val else "give --folds 5, or a fold column"
        raise UserError(f"--fold all: the training part is not cut into folds; {remedy}")
    return max(split.folds) + 1


def fold_parts(cfg: Config, split: Split) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, validation pairs): the part val of the split, else fold cfg.fold of its training part, or none.

    raises: UserError for a fold that there is not
    """
    if split.val and cfg.fold != "0":
        raise UserError(f"--fold {cfg.fold}: the CSV has images of the category val for validation; leave --fold out")
    if split.folds is None:
        if cfg.fold != "0":
            raise UserError(f"--fold {cfg.fold}: the training part is not cut into folds; give --folds 5, too")
        return split.train, split.val
    if not cfg.fold.isdigit():
        raise UserError(f"--fold {cfg.fold}: expected a number from 0, or all (train.py)")
    return split.fold(int(cfg.fold))


def split_in_words(cfg: Config, split: Split) -> str:
    words = "its part val for validation" if split.val else "no folds, nothing held out for validation"
    if split.folds:
        words = f"fold {cfg.fold} of {max(split.folds) + 1} of the training part for validation (seed {cfg.seed})"
    return f"{split.description}; {words}"


def hash_pairs(*parts: Sequence[Pair]) -> str:
    return hash_names(*([pair.image_id for pair in part] for part in parts))


def class_names(cfg: Config) -> tuple[str, ...]:
    """Names of the foreground classes: --class_names or classes.json, else the recipe's word for the one."""
    wanted = max(cfg.num_classes - 1, 1)
    names = cfg.class_names or ((FOREGROUND[cfg.recipe],) if wanted == 1 else ())
    if len(names) != wanted:
        number = "one name" if wanted == 1 else f"{wanted} names, one for each class but the background"
        raise UserError(f"--class_names {','.join(names)}: expected {number}")
    return names


def warnings_of(summary: DataSummary, split: Split, classes: Sequence[str], held_out: Sequence[Pair]) -> Iterator[str]:
    """What a run should know of its data: classes that no mask shows, and a validation part that says little."""
    unseen = [name for k, name in enumerate(classes, 1) if not summary.classes.get(k)]
    if split.table and unseen:
        yield f"warning: no mask shows {', '.join(unseen)}"
    if 0 < len(held_out) < FEW:
        number = "one image" if len(held_out) == 1 else f"{len(held_out)} images"
        yield f"warning: {number} for validation: the Dice of so few says little; use fewer --folds"


def validation_set(
    pairs: Sequence[Pair], cfg: Config, classes: tuple[str, ...], table: ClassTable | None
) -> ValidationSet:
    """All images of `pairs` at the network's size, in memory, each a case of its own."""
    data = ImageMaskSet(pairs, cfg.img_size, table, cfg.preprocess, cfg.intensity)
    if cfg.preprocess.fit == "slide":  # of different sizes
        images, targets = zip(*try_each(data.__getitem__, range(len(data)), 8, "decode", "items cannot be decoded"))
    else:
        stored = InMemory(data)
        images, targets = stored.images, stored.targets
    cases = torch.arange(len(pairs))
    return ValidationSet(images, targets, cases, classes, cfg.num_classes, cfg.batch_size, cfg.img_size)
