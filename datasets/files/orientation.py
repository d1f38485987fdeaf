"""Volumes turned to the orientation of the training data, and their masks turned back.

An orientation is three letters: the patient's direction (R or L, A or P, I or S) in which the axes (slice, row, column)
of an array grow. A standard axial CT is "SPL": slices grow upwards, rows to the back, columns to the left. `meta` is
that of an Image: SimpleITK's direction matrix says where each axis of the file points, x first, in a patient's space
whose axes grow to the left, to the back and upwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from datasets.files.image import Image
from utils.errors import UserError

AXES = ("RL", "AP", "IS")  # the two ends of each axis of the patient's space


def stored_orientation(meta: Mapping[str, Any]) -> str:
    """The orientation of a file's own array; "" where the file has no geometry, or only that of a plane.

    An oblique volume has that of the patient's axes nearest to its own.
    """
    if len(meta.get("direction", ())) != 9 or not meta.get("oriented", True):
        return ""
    along = np.reshape(meta["direction"], (3, 3))[:, ::-1].T  # [axis of the array, axis of the patient]
    nearest = max(permutations(range(3)), key=lambda axes: sum(abs(along[k, axis]) for k, axis in enumerate(axes)))
    return "".join(AXES[axis][int(along[k, axis] > 0)] for k, axis in enumerate(nearest))


def oriented(image: Image, orientation: str) -> Image:
    """`image` with its array as `orient` turns it; spacing and meta stay those of the file.

    raises: UserError for a single slice that is cut in another direction than the training data
    """
    stored = stored_orientation(image.meta)
    if image.kind == "picture" or not stored or not orientation:
        return image
    array = orient(image.array, image.meta, orientation)
    if 1 in array.shape[1:] and 1 not in image.array.shape[1:]:
        raise UserError(
            f"{image.path}: found one slice, whose axes (slice, row, column) grow towards {stored}, "
            f"expected a whole volume, or slices as in training ({orientation}); give the folder of its series"
        )
    return replace(image, array=array)


def orient(array: np.ndarray, meta: Mapping[str, Any], orientation: str) -> np.ndarray:
    """`array` (D, H, W) of a file in the orientation of the training data; itself where either is not known.

    Axes are permuted and flipped; no value is interpolated.
    """
    order, flips = _moves(stored_orientation(meta), orientation)
    return np.ascontiguousarray(np.flip(array.transpose(order), flips)) if order else array


def orient_spacing(spacing: Sequence[float], meta: Mapping[str, Any], orientation: str) -> tuple[float, ...]:
    """The spacing (slice, row, column) of what `orient` returns for an array whose own is `spacing`."""
    order, _ = _moves(stored_orientation(meta), orientation)
    return tuple(spacing[axis] for axis in order or range(len(spacing)))


def restore(array: np.ndarray, meta: Mapping[str, Any], orientation: str) -> np.ndarray:
    """Turn a mask of what `orient` returned back to the file's own storage. in: (..., D, H, W), as `orient` made it"""
    order, flips = _moves(stored_orientation(meta), orientation)
    if not order:
        return array
    leading = array.ndim - 3
    back = np.flip(array, [leading + axis for axis in flips])
    return np.ascontiguousarray(back.transpose(*range(leading), *(leading + int(k) for k in np.argsort(order))))


def _moves(stored: str, wanted: str) -> tuple[list[int], list[int]]:
    """The stored axis that each wanted one comes from, and the axes to flip then; both empty if nothing moves."""
    if not stored or not wanted or stored == wanted:
        return [], []
    kinds = [next(kind for kind in AXES if letter in kind) for letter in stored]
    order = [next(k for k, kind in enumerate(kinds) if letter in kind) for letter in wanted]
    return order, [axis for axis, (letter, source) in enumerate(zip(wanted, order)) if letter != stored[source]]
