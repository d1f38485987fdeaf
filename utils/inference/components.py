"""Connected parts of a mask: what is kept, what is filled, what is measured.

Masks are (H, W) or (D, H, W), bool for one class, else uint8 with 0 the background. Two pixels are connected where
they share an edge, two voxels where they share a face.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """Keep of each class its largest connected part; of two of one size the first."""
    kept = np.zeros_like(mask)
    for label, part in _classes(mask):
        parts, count = ndimage.label(part)
        if count:
            kept[parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])] = label
    return kept


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Give background that a class encloses to this class, in a volume slice by slice; no class covers another."""
    filled = mask.copy()
    for index in np.ndindex(mask.shape[:-2]):
        for label, part in _classes(mask[index]):
            filled[index][ndimage.binary_fill_holes(part) & (filled[index] == 0)] = label
    return filled


def measure(mask: np.ndarray, spacing: Sequence[float] | None, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """How large each class is, one row a class.

    spacing: mm in the order of the array, or None
    out: label, class, pixels (or voxels), area_mm2 of a picture or volume_ml of a volume (empty without a spacing),
        components (how many connected parts), largest_component (its pixels or voxels)
    """
    rows = []
    size = float(np.prod(spacing)) if spacing else None
    for label, name in enumerate(class_names, 1):
        parts, count = ndimage.label(mask == label)
        sizes = np.bincount(parts.ravel())[1:] if count else np.zeros(1, int)
        total = int(sizes.sum())
        row: dict[str, Any] = {"label": label, "class": name, "pixels": total, "area_mm2": "", "volume_ml": ""}
        if size is not None:
            row |= {"area_mm2": f"{total * size:g}"} if mask.ndim == 2 else {"volume_ml": f"{total * size / 1000:g}"}
        rows.append(row | {"components": count, "largest_component": int(sizes.max())})
    return rows


def _classes(mask: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each label that the mask holds, and where."""
    return [(int(label), mask == label) for label in np.unique(mask) if label]
