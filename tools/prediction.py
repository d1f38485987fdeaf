"""From image files to mask files of the same size and geometry: everything behind predict.py."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datasets.augment import normalise_imagenet, normalise_synapse
from datasets.files.image import Image, mask_suffix, read_image, suffix_of, window_ct, write_mask
from utils.config import Config
from utils.distributed import is_main, rank, world_size
from utils.errors import UserError
from utils.inference.forward import Forward
from utils.inference.volumes import predict_image, predict_volume
from utils.log import log


def predict_files(cfg: Config, forward: Forward, device: torch.device, paths: Sequence[Path], grey: bool) -> list[Path]:
    """Segment each of `paths` into cfg.output_dir; ranks share the files. Returns the masks written here.

    grey: whether the network was trained on single-channel slices (else on RGB pictures)
    raises: UserError that lists every file that could not be segmented, after all others are done
    """
    targets = mask_paths(cfg, paths)
    written, problems = [], []
    mine = list(zip(paths, targets))[rank() :: world_size()]
    for path, target in tqdm(mine, desc="files", disable=None if is_main() else True, leave=False):
        try:
            image = read_image(path)
            target = target.with_name(target.name + mask_suffix(image))
            write_mask(target, predict_mask(cfg, forward, device, image, grey), image)
        except UserError as error:
            problems.append(str(error))
            continue
        written.append(target)
        log(f"{path} -> {target}")
    if problems:
        raise UserError(f"{len(problems)} of {len(mine)} inputs were not segmented:\n  " + "\n  ".join(problems))
    return written


def predict_mask(cfg: Config, forward: Forward, device: torch.device, image: Image, grey: bool) -> np.ndarray:
    """Labels of `image` at its own size: bool for one class, else uint8 with 0 the background."""
    array = to_unit(image, cfg.intensity)
    normalise = normalise_synapse if grey else normalise_imagenet
    if image.kind == "volume":
        labels = predict_volume(forward, array, cfg.img_size, normalise, device, cfg.batch_size)
        return labels > 0 if cfg.num_classes == 1 else labels
    if grey and array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2GRAY)
    if not grey and array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    found = predict_image(forward, array, cfg.img_size, normalise, device)
    return found >= 0.5 if found.ndim == 2 else found.argmax(0).astype(np.uint8)


def to_unit(image: Image, intensity: str) -> np.ndarray:
    """The values as float32 in [0, 1].

    auto: unsigned integers as fractions of their type's range, values in [0, 1] as they are, anything else as HU
    raises: UserError where `intensity` does not fit the values
    """
    array = image.array
    low, high = float(array.min()), float(array.max())
    if intensity == "auto":
        unsigned = array.dtype.kind in "ub"
        intensity = "range" if unsigned else "unit" if low >= 0 and high <= 1 else "ct"
    if intensity == "ct":
        return window_ct(array)
    if intensity == "percentile":
        low, high = np.percentile(array, (0.5, 99.5))
        return np.clip((array.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    if intensity == "range":
        if array.dtype.kind not in "uib":
            raise UserError(
                f"{image.path}: --intensity range needs integers, found {array.dtype}; use percentile or ct"
            )
        return array.astype(np.float32) / (np.iinfo(array.dtype).max if array.dtype.kind != "b" else 1)
    if low < 0 or high > 1:
        raise UserError(
            f"{image.path}: --intensity unit: found values {low:g} to {high:g}, expected 0 to 1; use ct or percentile"
        )
    return array.astype(np.float32)


def find_inputs(names: Sequence[str]) -> list[Path]:
    """The files meant by `names`: a folder stands for its images, or for itself where it holds a DICOM series.

    raises: UserError for what is not there, and for a folder without images
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise UserError(f"--input {name}: no such file or folder")
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        images = [p for p in files if suffix_of(p)]
        if any(suffix_of(p) == ".dcm" for p in images):
            found.append(path)
        elif images:
            found += images
        else:
            raise UserError(f"--input {name}: {len(files)} files, none of a known kind of image")
    if not found:
        raise UserError("--input: nothing given; name files or folders to segment")
    return found


def mask_paths(cfg: Config, paths: Sequence[Path]) -> list[Path]:
    """Where each mask goes, without the ending that its kind decides.

    raises: UserError before anything is predicted, where two inputs have one name or masks exist already
    """
    out = Path(cfg.output_dir)
    stems = [path.resolve().name.removesuffix(suffix_of(path)) for path in paths]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise UserError(
            f"--input: several files are called {', '.join(twice[:5])}; segment them into different folders"
        )
    held = sorted(p.name for stem in stems for p in out.glob(f"{stem}_mask.*")) if out.is_dir() else []
    if held and not cfg.force:
        raise UserError(
            f"--output_dir {out}: already holds {', '.join(held[:5])}; give --force to replace, or another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    return [out / f"{stem}_mask" for stem in stems]
