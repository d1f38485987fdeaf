"""Orientations of volumes: three letters for the patient's directions in which the axes of an array grow.

The axes are (slice, row, column), the directions R or L, A or P, I or S. A standard axial CT is "SPL": slices grow
upwards, rows to the back, columns to the left. "" is an orientation that is not known: then nothing is turned.
"""

from collections.abc import Sequence

import numpy as np

from utils.preprocess import AXES


def turn(array: np.ndarray, stored: str, wanted: str) -> np.ndarray:
    """An array (..., D, H, W) of orientation `stored` in the orientation `wanted`; itself where either is not known.

    Axes are permuted and flipped; no value is interpolated. turn(array, wanted, stored) undoes it.
    """
    order, flips = moves(stored, wanted)
    if not order:
        return array
    moved = array.transpose(*range(array.ndim - 3), *(axis - 3 for axis in order))
    return np.ascontiguousarray(np.flip(moved, [axis - 3 for axis in flips]))


def turn_spacing(spacing: Sequence[float], stored: str, wanted: str) -> tuple[float, ...]:
    """The spacing (slice, row, column) of what `turn` gives of a volume whose own is `spacing`."""
    return tuple(spacing[axis] for axis in moves(stored, wanted)[0] or range(3))


def moves(stored: str, wanted: str) -> tuple[list[int], list[int]]:
    """The stored axis that each wanted one comes from, and the axes to flip then; both empty if nothing moves."""
    if not stored or not wanted or stored == wanted:
        return [], []
    kinds = [next(kind for kind in AXES if letter in kind) for letter in stored]
    order = [next(k for k, kind in enumerate(kinds) if letter in kind) for letter in wanted]
    return order, [axis for axis, (letter, source) in enumerate(zip(wanted, order)) if letter != stored[source]]
