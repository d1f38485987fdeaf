"""Files of the Synapse layout, each checked as it is read: slices (npz) and volumes (h5).

    train_npz/NAME.npz        `image`, `label` (H, W); `spacing`, `affine`, `orientation` as below, where they are known
    test_vol_h5/NAME.npy.h5   `image`, `label` (D, H, W), also spelt NAME.npz.h5 or NAME.h5;
                              `spacing` (z, y, x) in mm, an attribute or a data set, where it is known, and with it
                              `affine` and `orientation` (datasets/files/place.py); a slice has its own affine

Images are floats in [0, 1], or uint8 / uint16 that stand for fractions of their type's range; where an intensity other
than "auto" is given, any real numbers, which it makes values from 0 to 1 of.
Letters: D slices, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.files.arrays import PLACE, read_arrays
from datasets.files.place import Place, checked_place
from utils.errors import UserError, join_listed
from utils.log import log_once
from utils.preprocess.intensities import to_unit

# A float image may leave [0, 1] by this much, since cubic resampling overshoots. Beyond, it was never scaled.
RANGE_TOLERANCE = 0.05
RAW = "raw"


@dataclass(frozen=True)
class Volume:
    """One case: image (D, H, W) float32 in [0, 1], label (D, H, W) uint8 or None, and its `Place`."""

    name: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, ...] | None
    affine: np.ndarray | None = None
    orientation: str = ""


def read_slice(path: Path, num_classes: int | None = None, intensity: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W) float32 in [0, 1] and label (H, W) uint8 of one npz; the intensity RAW leaves images as stored.

    raises: UserError with all that is wrong
    """
    image, label, _ = _read(path, ("H", "W"), num_classes, intensity)
    return image, label


def read_stack(paths: Sequence[Path], name: str, intensity: str = "auto") -> Volume:
    """The slices of one case, in their order, as a volume; without a place where the list leaves out slices.

    raises: UserError where sizes, spacings or orientations of slices differ, and as `read_slice`
    """
    where, kind = f"{paths[0].parent}: slices of {name}", "auto" if intensity == "auto" else RAW
    images, labels, places = zip(*(_read(path, ("H", "W"), None, kind, PLACE) for path in paths))
    if len(shapes := sorted({image.shape for image in images})) > 1:
        raise UserError(f"{where} have sizes {shapes}; a case must have one size to be a volume")
    image = np.stack(images)
    if kind == RAW:
        image = to_unit(image, intensity, str(paths[0].parent / name))
    return Volume(name, image, np.stack(labels), *_place_of_stack(where, places))


def read_volume(path: Path, name: str, num_classes: int | None = None, intensity: str = "auto") -> Volume:
    """The volume of one h5 file; its label is None where the file has none. raises: UserError with all that is wrong"""
    image, label, place = _read(path, ("D", "H", "W"), num_classes, intensity, ("label", *PLACE))
    return Volume(name, image, label, *place)


def _place_of_stack(where: str, places: Sequence[Place]) -> Place:
    """The place of the first of some slices, which must lie behind each other; of none where they leave gaps.

    raises: UserError where their spacings or orientations differ
    """
    first = places[0]
    rounded = [place.spacing and tuple(round(mm, 3) for mm in place.spacing) for place in places]
    kinds = dict.fromkeys(zip(rounded, (place.orientation for place in places)))
    if len(kinds) > 1:
        found = [f"{spacing or 'no spacing'} {orientation or 'no orientation'}" for spacing, orientation in kinds]
        raise UserError(f"{where} have {join_listed(found, 4, ' and ')}; expected one for all; prepare the case again")
    if first.affine is not None:
        step, starts = first.affine[:3, 0], [place.affine[:3, 3] for place in places]
        if not np.allclose(np.diff(starts, axis=0), step, atol=0.01 * first.spacing[0]):
            log_once(f"warning: {where} do not lie one behind the other (gaps in the list?); distances are in pixels")
            return Place()
    return first


def _read(
    path: Path, axes: tuple[str, ...], num_classes: int | None, intensity: str, more: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None, Place]:
    """Image as float32 fractions, label as uint8, place; a slice must have a label.

    more: the names to read where they are there
    raises: one UserError with every problem of image and label; UserError as `checked_place`
    """
    needed = ("image", "label") if len(axes) == 2 else ("image",)

    def choose(names: list[str]) -> list[str]:
        if not set(needed) <= set(names):
            raise UserError(f"{path}: holds {sorted(names)}; expected `image` and `label`")
        whole = set(PLACE) <= set(names)
        lone = {*PLACE} if len(axes) == 2 else {"affine", "orientation"}  # mean nothing without the others
        return [name for name in (*needed, *more) if name in names and (whole or name not in lone)]

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
    return image, label, checked_place(path, arrays)


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
