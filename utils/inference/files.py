"""Segment a user's files one after the other; the ranks share them. The caller passes what reads and writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from utils.config import Config
from utils.distributed import is_main, rank, world_size
from utils.errors import UserError
from utils.inference.forward import Forward
from utils.inference.images import decide, predict_images
from utils.inference.volumes import predict_volume
from utils.log import log, log_once
from utils.preprocess import as_trained, choose_intensity, to_unit


def predict_files(
    cfg: Config,
    forward: Forward,
    device: torch.device,
    files: Sequence[tuple[Path, Path]],
    read: Callable[[Path], Any],
    write: Callable[[Path, np.ndarray, Any], Path],
) -> list[Path]:
    """Segment each file of `files` (image, mask without its ending); ranks share them. Returns the masks written here.

    read: path -> image with `array`, `kind` and `path`; write: path, mask, image -> the file written
    raises: UserError that lists every file that could not be segmented, after all others are done
    """
    written, problems = [], []
    mine = files[rank() :: world_size()]
    for source, target in tqdm(mine, desc="files", disable=None if is_main() else True, leave=False):
        try:
            image = read(source)
            mask = predict_mask(cfg, forward, device, image.array, image.kind == "volume", str(source))
            written.append(write(target, mask, image))
        except UserError as error:
            problems.append(str(error))
            continue
        log(f"{source} -> {written[-1]}")
    if problems:
        raise UserError(f"{len(problems)} of {len(mine)} inputs were not segmented:\n  " + "\n  ".join(problems))
    return written


def predict_mask(
    cfg: Config, forward: Forward, device: torch.device, array: np.ndarray, volume: bool, source: str
) -> np.ndarray:
    """Labels at the image's own size: bool for one class, else uint8 with 0 the background.

    in:  raw values, (H, W) or (H, W, 3), or for a volume (D, H, W); source: the file's name, for messages
    """
    pre, intensity = cfg.preprocess, choose_intensity(array, cfg.intensity, cfg.preprocess, source)
    if cfg.intensity == "auto":
        log_once(f"intensity {intensity}, chosen by --intensity auto")
    unit = as_trained(to_unit(array, intensity, source), pre, colour=array.ndim == 3 and not volume)
    if volume:
        labels = predict_volume(forward, unit, cfg, device)
        return labels > 0 if cfg.num_classes == 1 else labels
    (found,) = predict_images(forward, [unit], cfg, device)
    return decide(found)
