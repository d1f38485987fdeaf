"""Which orientation the array of a file has, and volumes turned to another one.

`meta` is that of an Image: SimpleITK's direction matrix says where each axis of the file points, x first, in a
patient's space whose axes grow to the left, to the back and upwards.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from utils.inference.orientation import AXES, moves, turn


def stored_orientation(meta: Mapping[str, Any]) -> str:
    """The orientation of a file's own array; "" where the file has no geometry, or only that of a plane.

    An oblique volume has that of the patient's axes nearest to its own.
    """
    if len(meta.get("direction", ())) != 9 or not meta.get("oriented", True):
        return ""
    along = np.reshape(meta["direction"], (3, 3))[:, ::-1].T  # [axis of the array, axis of the patient]
    nearest = max(permutations(range(3)), key=lambda axes: sum(abs(along[k, axis]) for k, axis in enumerate(axes)))
    return "".join(AXES[axis][int(along[k, axis] > 0)] for k, axis in enumerate(nearest))


def orient(array: np.ndarray, meta: Mapping[str, Any], orientation: str) -> np.ndarray:
    """`array` (D, H, W) of a file in the orientation of the training data; itself where either is not known."""
    return turn(array, stored_orientation(meta), orientation)


def orient_spacing(spacing: Sequence[float], meta: Mapping[str, Any], orientation: str) -> tuple[float, ...]:
    """The spacing (slice, row, column) of what `orient` returns for an array whose own is `spacing`."""
    order, _ = moves(stored_orientation(meta), orientation)
    return tuple(spacing[axis] for axis in order or range(len(spacing)))
