"""Orientations of volumes: three letters for the patient's directions in which the axes of an array grow.

The axes are (slice, row, column), the directions R or L, A or P, I or S. A standard axial CT is "SPL": slices grow
upwards, rows to the back, columns to the left. "" is an orientation that is not known: then nothing is turned.
"""

import numpy as np

from utils.preprocess import AXES


def turn(array: np.ndarray, stored: str, wanted: str) -> np.ndarray:
    """An array (D, H, W) of orientation `stored` in the orientation `wanted`; itself where either is not known.

    Axes are permuted and flipped; no value is interpolated.
    """
    order, flips = moves(stored, wanted)
    return np.ascontiguousarray(np.flip(array.transpose(order), flips)) if order else array


def turn_back(array: np.ndarray, stored: str, wanted: str) -> np.ndarray:
    """Undo `turn`: the array, or one made from it of shape (..., D, H, W), in the orientation `stored` again."""
    order, flips = moves(stored, wanted)
    if not order:
        return array
    leading = array.ndim - 3
    back = np.flip(array, [leading + axis for axis in flips])
    return np.ascontiguousarray(back.transpose(*range(leading), *(leading + int(k) for k in np.argsort(order))))


def moves(stored: str, wanted: str) -> tuple[list[int], list[int]]:
    """The stored axis that each wanted one comes from, and the axes to flip then; both empty if nothing moves."""
    if not stored or not wanted or stored == wanted:
        return [], []
    kinds = [next(kind for kind in AXES if letter in kind) for letter in stored]
    order = [next(k for k, kind in enumerate(kinds) if letter in kind) for letter in wanted]
    return order, [axis for axis, (letter, source) in enumerate(zip(wanted, order)) if letter != stored[source]]
