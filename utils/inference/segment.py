"""One image to its mask, as predict.py and `models.Predictor` do it: values, orientation, network, clean-up.

H/W an image's own height and width, D slices, K classes. `forward` is as in `utils.inference.forward`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utils.config import Config
from utils.errors import UserError
from utils.inference.components import fill_holes, keep_largest
from utils.inference.forward import Forward
from utils.inference.images import decide, predict_images
from utils.inference.orientation import turn, turn_back
from utils.inference.volumes import predict_volume
from utils.log import log_once
from utils.preprocess.intensities import as_trained, check_finite, choose_intensity, to_unit


@dataclass(frozen=True)
class Segmented:
    """A mask and what it was made of, all on the image's own grid.

    mask: bool for one class, else uint8 with 0 the background, (H, W) or (D, H, W)
    unit: the image as float32 in [0, 1]
    probabilities: of the classes (the background included), float16 (K, H, W) or (K, D, H, W); None if not asked for.
        Clean-up of the mask does not change them.
    """

    mask: np.ndarray
    unit: np.ndarray
    probabilities: np.ndarray | None


def segment(
    cfg: Config,
    forward: Forward,
    device: torch.device,
    array: np.ndarray,
    volume: bool,
    source: str,
    orientation: str = "",
) -> Segmented:
    """Segment one image as cfg.preprocess says and as the flags of predict.py ask.

    in:  raw values, (H, W) or (H, W, 3), or for a volume (D, H, W); source: the file's name, for messages;
        orientation: that of a volume's array, as in `utils.inference.orientation`
    raises: UserError for values that are not finite or whose intensity is not known, and for a single slice that is cut
        in another direction than the training data
    """
    check_finite(array, source)
    trained = cfg.preprocess.orientation
    intensity = choose_intensity(array, cfg.intensity, cfg.preprocess, source)
    if cfg.intensity == "auto":
        log_once(f"intensity {intensity}, chosen by --intensity auto")
    unit = to_unit(turned(array, orientation, trained, source) if volume else array, intensity, source)
    seen = as_trained(unit, cfg.preprocess, colour=array.ndim == 3 and not volume)
    kept: list[np.ndarray] = []
    if volume:
        keep = (lambda maps: kept.append(maps.half().cpu().numpy())) if cfg.probabilities else None
        mask = predict_volume(forward, seen, cfg, device, keep)
        mask = mask > 0 if cfg.num_classes == 1 else mask
    else:
        (found,) = predict_images(forward, [seen], cfg, device)
        mask = decide(found)
        kept = [found.astype(np.float16).reshape(1, -1, *found.shape[-2:])] if cfg.probabilities else []
    if cfg.keep_largest:
        mask = keep_largest(mask)
    if cfg.fill_holes:
        mask = fill_holes(mask)
    probabilities = (np.concatenate(kept).swapaxes(0, 1) if volume else kept[0][0]) if kept else None
    if volume:
        mask, unit = (turn_back(part, orientation, trained) for part in (mask, unit))
        probabilities = None if probabilities is None else turn_back(probabilities, orientation, trained)
    return Segmented(mask, unit, probabilities)


def turned(array: np.ndarray, stored: str, trained: str, source: str) -> np.ndarray:
    """A volume in the orientation of the training data. raises: UserError for one slice of another direction"""
    if bool(stored) != bool(trained):
        what = "the checkpoint does not say how its training data lay" if stored else "it does not say how it lies"
        log_once(f"warning: {source} is taken as stored: {what} ({stored or trained})")
    found = turn(array, stored, trained)
    if 1 in found.shape[1:] and 1 not in array.shape[1:]:
        raise UserError(
            f"{source}: found one slice, whose axes (slice, row, column) grow towards {stored}, "
            f"expected a whole volume, or slices as in training ({trained}); give the folder of its series"
        )
    return found


def is_volume(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is a volume (D, H, W) and no picture (H, W), (H, W, 3) or (H, W, 4)."""
    return len(shape) == 3 and shape[2] not in (1, 3, 4)
