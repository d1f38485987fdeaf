"""Raw values to [0, 1], to the type and channels of training images, and to what the network takes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.log import log_once
from utils.preprocess import HU_OF_AIR, INTENSITIES, UNKNOWN, WINDOW, Preprocess


def check_finite(array: np.ndarray, source: str) -> None:
    """Refuse NaN and infinite values, which would give an empty mask. raises: UserError"""
    # the extremes are NaN or infinite where any value is, and take no memory
    if array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
        found = f"{np.count_nonzero(~np.isfinite(array)):,} of {array.size:,} values that are not finite"
        raise UserError(f"{source}: found {found} (NaN or infinite), expected numbers; replace them first")


def is_volume(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is a volume (D, H, W) and no picture (H, W), (H, W, 3) or (H, W, 4)."""
    return len(shape) == 3 and shape[2] not in (1, 3, 4)


def choose_intensity(array: np.ndarray, asked: str, pre: Preprocess, source: str) -> str:
    """How to bring the values of one file to [0, 1]: one of INTENSITIES.

    asked: one of INTENSITIES, or "auto": percentiles where training stretched its data by them (they leave values alone
        that are stretched already); else values in [0, 1] as they are, 8-bit integers as fractions of 255 (but no
        volume for a network trained on HU), anything else as the training data were made
    raises: UserError where that is unknown or does not fit the values, because a wrong guess would go unnoticed
    """
    if asked != "auto":
        return asked
    if pre.intensity == "percentile":
        if pre.channels == 1 and not (is_volume(array.shape) and len(array) > 1):
            remedy = "give the whole volume, or --intensity unit where its values are prepared already"
            log_once(f"warning: {source}: one slice is stretched by its own percentiles, not its volume's; {remedy}")
        return "percentile"
    low, high = float(array.min()), float(array.max())
    found = f"{source}: found {array.dtype} values from {low:g} to {high:g}"
    unit = array.dtype.kind in "fb" and low >= 0 and high <= 1
    if unit or (array.dtype == np.uint8 and not (pre.intensity == "ct" and is_volume(array.shape))):
        if pre.intensity == "ct":
            window = f"clipped to {WINDOW[0]:g}..{WINDOW[1]:g} and scaled as in training"
            log_once(f"warning: {found}, which are taken as HU {window}; --intensity says otherwise")
        return "unit" if unit else "range"
    remedy = f"say with --intensity what they are: {', '.join(INTENSITIES)}"
    if pre.intensity == "range" and array.dtype.kind == "u":
        if high < np.iinfo(array.dtype).max / 8:  # such as 12 bits in 16
            log_once(f"warning: {found}, which are dark as fractions of the type's largest; {remedy}")
        return "range"
    if pre.intensity in (UNKNOWN, "range", "unit"):
        raise UserError(f"{found}; the checkpoint does not tell how such values become [0, 1]; {remedy}")
    if pre.intensity == "ct" and low > HU_OF_AIR:
        raise UserError(f"{found}; the network was trained on CT, which shows air below {HU_OF_AIR:g} HU; {remedy}")
    return pre.intensity


def to_unit(array: np.ndarray, intensity: str, source: str) -> np.ndarray:
    """`array` as float32 in [0, 1].

    intensity: ct clips Hounsfield units to -125..275; range divides integers by their type's largest; percentile
        stretches the 0.5th to the 99.5th; unit takes values as they are
    raises: UserError where `intensity` does not fit the values
    """
    if intensity == "ct":
        return window_ct(array)
    if intensity == "percentile":
        return stretch(array, *percentiles(array))
    if intensity == "range":
        if array.dtype.kind not in "uib" or array.dtype.itemsize > 2:
            found = f"needs integers of 8 or 16 bits, found {array.dtype}"
            raise UserError(f"{source}: --intensity range {found}; use percentile or ct")
        return array.astype(np.float32) / np.float32(1 if array.dtype.kind == "b" else np.iinfo(array.dtype).max)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise UserError(
            f"{source}: --intensity unit: found values {low:g} to {high:g}, expected 0 to 1; use ct or percentile"
        )
    return array.astype(np.float32)


def percentiles(array: np.ndarray) -> tuple[float, float]:
    """The 0.5th and the 99.5th percentile."""
    low, high = np.percentile(array.astype(np.uint8) if array.dtype == bool else array, (0.5, 99.5))
    return float(low), float(high)


def stretch(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` to `high` to [0, 1], others clipped; float32."""
    return np.clip((array.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def window_ct(hu: np.ndarray, low: float = WINDOW[0], high: float = WINDOW[1]) -> np.ndarray:
    """Clip Hounsfield units to [low, high] and scale them to [0, 1]; float32."""
    return (np.clip(hu.astype(np.float32), low, high) - np.float32(low)) / np.float32(high - low)


def as_trained(unit: np.ndarray, pre: Preprocess, colour: bool) -> np.ndarray:
    """Values in [0, 1] in the type and with the channels that training images have.

    in:  (..., H, W), or with `colour` (..., H, W, 3) RGB
    out: float32 (..., H, W) for one channel, uint8 (..., H, W, 3) for three
    """
    if pre.channels == 1:
        return unit @ np.array((0.299, 0.587, 0.114), np.float32) if colour else unit
    levels = np.rint(unit * 255).astype(np.uint8)
    return levels if colour else np.repeat(levels[..., None], 3, axis=-1)


def as_fraction(images: Tensor) -> Tensor:
    """float32 images; integers as fractions of their type's range."""
    if images.dtype.is_floating_point:
        return images.float()
    return images.float() / torch.iinfo(images.dtype).max


def normalise(images: Tensor, pre: Preprocess) -> Tensor:
    """(value - mean) / std, channel by channel. in and out: (B, C, H, W), values in [0, 1] in"""
    return torch.stack([(x - m) / s for x, m, s in zip(images.unbind(1), pre.mean, pre.std, strict=True)], dim=1)
