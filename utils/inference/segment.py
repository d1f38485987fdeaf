"""One image to its mask, as predict.py and `models.Predictor` do it: values, orientation, network, clean-up.

H/W an image's own height and width, D slices, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.inference.components import fill_holes, keep_largest
from utils.inference.orientation import turn, turn_spacing
from utils.inference.predict import decide, predict_images, predict_volume
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
    network: Any,
    array: np.ndarray,
    volume: bool,
    source: str,
    orientation: str = "",
    spacing: Sequence[float] | None = None,
) -> Segmented:
    """Segment one image as its training prepared images and as the flags of predict.py ask.

    network: what has a `cfg`, a `forward` and a `device`, such as a `models.Predictor`
    in:  raw values, (H, W) or (H, W, 3), or for a volume (D, H, W); source: the file's name, for messages;
        orientation: that of a volume's array, as in `utils.inference.orientation`; spacing: mm along its axes, which
        the network does not see, but a warning tells of volumes that are cut across thick slices
    raises: UserError for values that are not finite or whose intensity is not known, and for a single slice that is cut
        in another direction than the training data
    """
    cfg = network.cfg
    check_finite(array, source)
    trained = cfg.preprocess.orientation
    intensity = choose_intensity(array, cfg.intensity, cfg.preprocess, source)
    if cfg.intensity == "auto":
        log_once(f"intensity {intensity}, chosen by --intensity auto")
    unit = to_unit(turned(array, orientation, trained, source, spacing) if volume else array, intensity, source)
    seen = as_trained(unit, cfg.preprocess, colour=array.ndim == 3 and not volume)
    kept: list[np.ndarray] = []
    if volume:
        keep = (lambda maps: kept.append(maps.half().cpu().numpy())) if cfg.probabilities else None
        mask = predict_volume(network.forward, seen, cfg, network.device, keep)
        mask = mask > 0 if cfg.num_classes == 1 else mask
    else:
        (found,) = predict_images(network.forward, [seen], cfg, network.device)
        mask = decide(found)
        kept = [found.astype(np.float16).reshape(1, -1, *found.shape[-2:])] if cfg.probabilities else []
    if cfg.keep_largest:
        mask = keep_largest(mask)
    if cfg.fill_holes:
        mask = fill_holes(mask)
    probabilities = (np.concatenate(kept).swapaxes(0, 1) if volume else kept[0][0]) if kept else None
    if volume:
        mask, unit = (turn(part, trained, orientation) for part in (mask, unit))
        probabilities = None if probabilities is None else turn(probabilities, trained, orientation)
    return Segmented(mask, unit, probabilities)


def turned(
    array: np.ndarray, stored: str, trained: str, source: str, spacing: Sequence[float] | None = None
) -> np.ndarray:
    """A volume in the orientation of the training data; warns where that cuts it across thick slices.

    raises: UserError for one slice of another direction
    """
    if bool(stored) != bool(trained):
        what = "the checkpoint does not say how its training data lay" if stored else "it does not say how it lies"
        log_once(f"warning: {source} is taken as stored: {what} ({stored or trained})")
    found = turn(array, stored, trained)
    if 1 in found.shape[1:]:
        lies = f"{'x'.join(map(str, array.shape))} voxels whose axes (slice, row, column) grow towards {stored or '?'}"
        raise UserError(
            f"{source}: found one slice, {lies}, expected a whole volume, or slices as in training ({trained or '?'}); "
            "give the folder of its series"
        )
    apart, *pixels = (1.0, 1.0) if spacing is None else turn_spacing(spacing, stored, trained)
    if 2 * apart < max(pixels) and len(found) > 1:
        way = f"turned to {trained} as in training" if stored and trained else "taken as stored"
        cut = f"{way}, its slices lie {apart:g} mm apart"
        remedy = "use a network that was trained on slices of its direction"
        log_once(f"warning: {source} is cut across thick slices: {cut}, pixels up to {max(pixels):g} mm; {remedy}")
    return found
