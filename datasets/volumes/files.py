"""Files of the Synapse layout, each checked as it is read: slices (npz) and volumes (h5).

    train_npz/NAME.npz        `image`, `label` (H, W)
    test_vol_h5/NAME.npy.h5   `image`, `label` (D, H, W), also spelt NAME.npz.h5 or NAME.h5;
                              `spacing` (z, y, x) in mm, an attribute or a data set, where it is known

Images are floats in [0, 1], or uint8 / uint16 that stand for fractions of their type's range; where an intensity other
than "auto" is given, any real numbers, which it makes values from 0 to 1 of.
Letters: D slices, H height, W width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.files.arrays import checked_spacing, read_arrays
from utils.errors import UserError
from utils.preprocess.intensities import to_unit

# A float image may leave [0, 1] by this much, since cubic resampling overshoots. Beyond, it was never scaled.
RANGE_TOLERANCE = 0.05
RAW = "raw"


@dataclass(frozen=True)
class Volume:
    """One case: image (D, H, W) float32 in [0, 1], label (D, H, W) uint8 or None, spacing (z, y, x) in mm or None."""

    name: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, float, float] | None


def read_slice(path: Path, num_classes: int | None = None, intensity: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W) float32 in [0, 1] and label (H, W) uint8 of one npz; the intensity RAW leaves images as stored.

    raises: UserError with all that is wrong
    """
    image, label, _ = _read(path, ("H", "W"), num_classes, intensity)
    return image, label


def read_volume(path: Path, name: str, num_classes: int | None = None, intensity: str = "auto") -> Volume:
    """The volume of one h5 file; its label is None where the file has none. raises: UserError with all that is wrong"""
    image, label, spacing = _read(path, ("D", "H", "W"), num_classes, intensity)
    return Volume(name, image, label, None if spacing is None else checked_spacing(path, spacing, 3))


def _read(
    path: Path, axes: tuple[str, ...], num_classes: int | None, intensity: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Image as float32 fractions, label as uint8, spacing as stored; a slice must have a label, and has no spacing.

    raises: one UserError with every problem of image and label
    """
    needed, more = (("image", "label"), ()) if len(axes) == 2 else (("image",), ("label", "spacing"))

    def choose(names: list[str]) -> list[str]:
        if not set(needed) <= set(names):
            raise UserError(f"{path}: holds {sorted(names)}; expected `image` and `label`")
        return [name for name in (*needed, *more) if name in names]

    arrays, problems = read_arrays(path, choose), []
    image, label = arrays["image"], arrays.get("label")
    if image.ndim != len(axes) or image.size == 0:
        problems.append(f"`image` has shape {image.shape}; expected ({', '.join(axes)})")
    elif label is not None and label.shape != image.shape:
        problems.append(f"`label` has shape {label.shape} and `image` {image.shape}; expected the same")
    problems += _image_problems(image, intensity) if image.size else []
    problems += _label_problems(label, num_classes) if label is not None and label.size else []
    if problems:
        raise UserError(f"{path}: " + "; ".join(problems))
    if intensity not in ("auto", RAW):
        image = to_unit(image, intensity, str(path))
    elif image.dtype.kind == "u" and intensity == "auto":
        image = image.astype(np.float32) / np.iinfo(image.dtype).max
    label = None if label is None else label.astype(np.uint8, copy=False)
    image = image if intensity == RAW else image.astype(np.float32, copy=False)
    return image, label, arrays.get("spacing")


def _image_problems(image: np.ndarray, intensity: str) -> list[str]:
    if image.dtype in (np.uint8, np.uint16) or (intensity != "auto" and image.dtype.kind in "bui"):
        return []
    if image.dtype.kind != "f":
        remedy = "expected floats in [0, 1], uint8 or uint16, or --intensity to say what the values are"
        return [f"`image` is of type {image.dtype}; {remedy}"]
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(low + high):
        return [f"`image` holds {np.count_nonzero(~np.isfinite(image))} values that are not finite"]
    if intensity == "auto" and (low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE):
        remedy = "clip CT to -125..275 HU, then scale, or give --intensity"
        return [f"`image` ranges over {low:g} to {high:g}; expected [0, 1]: {remedy}"]
    return []


def _label_problems(label: np.ndarray, num_classes: int | None) -> list[str]:
    if label.dtype.kind not in "uifb":
        return [f"`label` is of type {label.dtype}; expected whole numbers"]
    low, high, last = float(label.min()), float(label.max()), 255 if num_classes is None else num_classes - 1
    if not np.isfinite(low + high):
        return [f"`label` holds {np.count_nonzero(~np.isfinite(label))} values that are not finite"]
    if low < 0 or high > last:
        classes = "" if num_classes is None else f" ({num_classes} classes; set num_classes, or map the labels)"
        return [f"`label` holds {low if low < 0 else high:g}; expected 0 to {last}{classes}"]
    if label.dtype.kind == "f" and not np.array_equal(label, label.astype(np.uint8)):
        return ["`label` holds fractions; expected whole numbers (was it resized with interpolation?)"]
    return []
