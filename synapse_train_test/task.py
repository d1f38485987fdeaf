"""Synapse multi-organ CT, the phantom, and any set in the Synapse layout: recipes and training task.

Slices are resized to the network's size once, as the released script does it (cubic spline, labels nearest). They are
kept in memory where they fit, and augmented in batches on the training device.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.augment import augment_synapse
from datasets.augment_intensity import augment
from datasets.crops import RandomCrops
from datasets.phantom.generate import write_phantom
from datasets.phantom.organs import CLASS_NAMES
from datasets.prepared import PREPARED, as_prepared, find_prepared
from datasets.volumes.files import Volume
from datasets.volumes.lists import find_root, group_by_case, hold_out_cases, read_list
from datasets.volumes.sets import SliceVolumes, SynapseSlices, SynapseVolumes, check_slices
from utils.config import Config
from utils.distributed import barrier, is_main
from utils.errors import UserError, counted
from utils.preprocess import SLICES
from utils.preprocess.sizes import fit_image, fit_labels, placed
from utils.training.losses import loss_for
from utils.training.task import Task, hash_cases, hash_names
from utils.training.validation import ValidationSet

LISTS = Path(__file__).resolve().parent / "lists" / "lists_Synapse"
# HU clipped to -125..275. Slices lie on their side: they grow upwards, rows to the left, columns to the back.
CT = replace(SLICES, intensity="ct", orientation="SLP")
TRAIN_LIST, VAL_LIST, TEST_LIST = "train.txt", "val_vol.txt", "test_vol.txt"

# As published: 93 updates an epoch close the last complete cycle at update 25,550, in epoch 275 of 300.
SYNAPSE = Config(
    dataset="synapse",
    recipe="synapse",
    num_classes=9,
    preprocess=CT,
    img_size=(224, 224),
    epochs=300,
    batch_size=24,
    loss="ce_dice",
    optimizer="adamw",
    lr=1e-3,
    weight_decay=1e-2,
    schedule="warm_restarts",
    restart_iterations=50,
    min_lr=1e-6,
    seed=1234,
)
# Small enough for a few minutes on two CPU cores.
PHANTOM = Config(
    dataset="phantom",
    recipe="phantom",
    num_classes=9,
    preprocess=replace(CT, orientation="SPL"),
    img_size=(96, 96),
    epochs=11,
    batch_size=8,
    loss="ce_dice",
    lr=1e-3,
    weight_decay=1e-2,
    schedule="cosine",
    warmup_epochs=1.0,
    clip_grad=1.0,
    drop_path=0.1,
    val_cases=1,
    eval_every=4,
)
RECIPES = {"synapse": SYNAPSE, "phantom": PHANTOM}
DEFAULT_ROOTS = {"synapse": "data/Synapse", "phantom": "data/phantom"}


def build_task(cfg: Config) -> Task:
    """Read and check every file, then make the training task. raises: UserError with all problems of the data"""
    if cfg.csvfile:
        raise UserError(f"--csvfile {cfg.csvfile}: recipe {cfg.recipe} splits by lists; expected --list_dir")
    if cfg.num_classes < 2:
        found = f"--num_classes {cfg.num_classes}"
        raise UserError(f"{found}: recipe {cfg.recipe} needs at least 2 (background and one class)")
    if cfg.recipe == "phantom" and not cfg.resume:  # only a new training writes it: no checkpoint chooses the folder
        if is_main():
            write_phantom(data_folder(cfg))
        barrier()
    root, lists = locate(cfg)
    folder, names = find_root(root, "train_npz"), read_list(lists / TRAIN_LIST)
    split, held_out = f"{lists.name}/{TRAIN_LIST}", []
    if cfg.val_cases:
        names, held_out = hold_out_cases(names, cfg.val_cases, cfg.seed)
        split += f", {cfg.val_cases} of its patients for validation (seed {cfg.seed})"
    summary = check_slices(folder, [*names, *held_out], cfg.num_classes, cfg.intensity)
    cases, part = validation_cases(cfg, root, lists, folder, held_out)
    classes = class_names(cfg)
    found = [
        f"training data: {folder}: {summary}",
        f"  {counted(len(names), 'slice')} to train on; {part}: {counted(len(cases), 'case')}",
    ]
    if unseen := ", ".join(str(k) for k in range(1, cfg.num_classes) if not summary.classes.get(k)):
        found.append(f"warning: no training label shows class {unseen} of {cfg.num_classes}")
    data = SynapseSlices(folder, names, cfg.img_size, cfg.preprocess, cfg.intensity)
    if cfg.preprocess.fit == "slide":
        data = RandomCrops(data, cfg.img_size, cfg.seed)
    native = size_for_augmentation(summary.most_common_size, cfg)
    return Task(
        name=cfg.recipe,
        class_names=classes,
        train_set=data,
        augment=partial(augment, recipe=partial(augment_synapse, native=native), strong=cfg.strong_augment),
        preprocess=cfg.preprocess,
        loss=loss_for(cfg.loss, cfg.num_classes, cfg.class_weights),
        validate=validation_set(cases, cfg, classes) if cases else None,
        validated_on=part,
        found=tuple(found),
        split=split,
        split_sha256=hash_names(names, held_out),
        cases=hash_cases(group_by_case(names), [volume.name for volume in cases] if part == "validation" else ()),
    )


def settle(cfg: Config, given: Mapping[str, Any]) -> Config:
    """`cfg` with classes, intensities and orientation as prepared.json of the data folder says.

    raises: UserError where a flag of `given` says otherwise
    """
    root, made = find_prepared(data_folder(cfg))
    if made is None:
        return cfg
    preprocess = as_prepared(cfg.preprocess, given, root, made)
    settled = replace(cfg, num_classes=len(made.class_names) + 1, class_names=made.class_names, preprocess=preprocess)
    for field in ("num_classes", "class_names"):
        if field in given and given[field] != getattr(settled, field):
            names = ", ".join(made.class_names)
            raise UserError(f"--{field}: {root / PREPARED} has the classes {names}; leave the flag out")
    return settled


def data_folder(cfg: Config) -> Path:
    return Path(cfg.root_path or DEFAULT_ROOTS.get(cfg.dataset, cfg.dataset))


def locate(cfg: Config) -> tuple[Path, Path]:
    """(data folder, folder of lists). raises: UserError for a folder that is not there"""
    root = data_folder(cfg)
    if not root.exists():
        field = "--root_path" if cfg.root_path else "--root_path (its default)"
        remedy = "expected the data folder with train_npz/ and test_vol_h5/"
        if cfg.recipe == "phantom":
            remedy = f"write it with: python train.py --dataset phantom --root_path {root}"
        raise UserError(f"{field} {root}: no such folder; {remedy}")
    if cfg.list_dir:
        return root, Path(cfg.list_dir)
    folder, made = find_prepared(root)
    return root, folder / "lists" if made else root / "lists" if cfg.recipe == "phantom" else LISTS


def class_names(cfg: Config) -> tuple[str, ...]:
    """Names of the foreground classes: --class_names, the organs of Synapse where there are 8, else class 1, 2 ..."""
    names, wanted = cfg.class_names, cfg.num_classes - 1
    if names is None:
        return CLASS_NAMES if wanted == len(CLASS_NAMES) else tuple(f"class {k}" for k in range(1, cfg.num_classes))
    if len(names) != wanted:
        expected = f"{wanted}, one for each of the {cfg.num_classes} classes but the background"
        raise UserError(f"--class_names {','.join(names)}: {len(names)} names; expected {expected}")
    return names


def size_for_augmentation(native: tuple[int, int], cfg: Config) -> tuple[int, int]:
    """The size whose resizing to the network's input would shrink a slice of the size `native` as cfg's fit does."""
    inner, _ = placed(native, cfg.img_size, cfg.preprocess)
    return tuple(round(n * size / part) for n, size, part in zip(native, cfg.img_size, inner, strict=True))


def validation_cases(
    cfg: Config, root: Path, lists: Path, folder: Path, held_out: Sequence[str]
) -> tuple[Sequence[Volume], str]:
    """The volumes that choose the checkpoint, and which part they are.

    Held-out training cases, else val_vol.txt where the lists have one; the test volumes only under --select test.
    """
    part = "test" if cfg.select == "test" else "validation"
    if part == "validation" and held_out:
        return SliceVolumes(folder, held_out, cfg.intensity), part
    path = lists / (TEST_LIST if part == "test" else VAL_LIST)
    if part == "validation" and not path.is_file():
        return (), part
    return SynapseVolumes(find_root(root, "test_vol_h5"), read_list(path), cfg.intensity), part


def validation_set(volumes: Sequence[Volume], cfg: Config, classes: tuple[str, ...]) -> ValidationSet:
    """All slices of `volumes` at the network's size, in memory."""

    def shrink(index: int) -> tuple[np.ndarray, np.ndarray]:
        volume = volumes[index]
        if volume.label is None:
            raise UserError(f"{volume.name}: holds no label; a validation case needs one")
        images = [fit_image(s, cfg.img_size, cfg.preprocess).astype(np.float16) for s in volume.image]
        return np.stack(images)[:, None], fit_labels(volume.label, cfg.img_size, cfg.preprocess)

    with ThreadPoolExecutor() as pool:
        images, targets = zip(*pool.map(shrink, range(len(volumes))))
    cases = np.repeat(np.arange(len(volumes)), [len(t) for t in targets])
    if cfg.preprocess.fit == "slide":  # volumes of different sizes
        images, targets = ([torch.from_numpy(s) for case in stacks for s in case] for stacks in (images, targets))
    else:
        images, targets = (torch.from_numpy(np.concatenate(stacks)) for stacks in (images, targets))
    cases = torch.from_numpy(cases)
    return ValidationSet(images, targets, cases, classes, cfg.num_classes, cfg.batch_size, cfg.img_size)
