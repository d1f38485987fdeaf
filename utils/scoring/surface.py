"""Distances between the surfaces of two boolean masks, and the scores read from them.

The surface of a mask is its pixels with a face neighbour in the background, the outside of the
image counting as background: the surface of MedPy, of MONAI and of most published tables. The
bounding box of both masks has the same distances, and less work: beyond it both are background.

A spacing is the distance between neighbouring pixels along each axis, in mm; None measures in pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

Spacing = Sequence[float] | None
PIXELS_PER_TREE_QUERY = 32  # a query of a k-d tree takes about as long as the transform of this many pixels


class SurfaceDistances(NamedTuple):
    """Distance of every surface pixel to the other mask's surface, in the order of the pixels.

    pred_to_target: (number of surface pixels of the prediction,), infinite where the target is empty
    target_to_pred: (number of surface pixels of the target,), infinite where the prediction is empty
    """

    pred_to_target: np.ndarray
    target_to_pred: np.ndarray

    @property
    def pooled(self) -> np.ndarray:
        """Both directions in one array."""
        return np.hstack(self)

    @property
    def defined(self) -> bool:
        """Whether both masks have a surface."""
        return bool(len(self.pred_to_target) and len(self.target_to_pred))


def surface_distances(pred: np.ndarray, target: np.ndarray, spacing: Spacing = None) -> SurfaceDistances:
    """Measure two boolean masks of one shape against each other, both directions."""
    pred_surface, target_surface = surface(pred), surface(target)
    return SurfaceDistances(
        _distances(pred_surface, target_surface, spacing), _distances(target_surface, pred_surface, spacing)
    )


def surface(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that its erosion by one pixel (faces, connectivity 1) removes."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, eroded = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        eroded[1:] &= along[:-1]
        eroded[:-1] &= along[1:]
        eroded[:1] = False
        eroded[-1:] = False
    return mask & ~inner


def _distances(source: np.ndarray, target: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Distance of each True of `source` to the nearest True of `target`, equal to SciPy's to the last digit.

    A k-d tree finds the nearest pixel where the surface is small in its box, else a feature transform
    of the box does; both are exact.
    """
    points = _points(source)
    if not target.any():
        return np.full(points.shape[1], np.inf)
    far = ~target[tuple(points)]  # the others lie on both surfaces: distance 0
    scale = np.ones(source.ndim) if spacing is None else np.asarray(spacing, np.float64)
    points, distances = points[:, far], np.zeros(points.shape[1])
    if points.shape[1] * PIXELS_PER_TREE_QUERY < source.size:
        candidates = _points(target)
        tree = cKDTree(candidates.T * scale, compact_nodes=False, balanced_tree=False)
        nearest = candidates[:, tree.query(points.T * scale)[1]]
    else:
        indices = distance_transform_edt(~target, sampling=scale, return_distances=False, return_indices=True)
        nearest = indices[(slice(None), *points)]
    offsets = (nearest - points) * scale[:, None]
    distances[far] = np.sqrt(np.add.reduce(offsets * offsets, axis=0))
    return distances


def _points(mask: np.ndarray) -> np.ndarray:
    """Indices of every True: (dimensions, points). Far faster than np.nonzero where few are True."""
    return np.array(np.unravel_index(np.flatnonzero(mask), mask.shape))


def hd95(d: SurfaceDistances) -> float:
    """Larger of the two directed 95th percentiles (Metrics Reloaded, MONAI); NaN when a mask is empty."""
    return float(max(np.percentile(distances, 95) for distances in d)) if d.defined else math.nan


def hd95_pooled(d: SurfaceDistances) -> float:
    """95th percentile of both directions together (MedPy's `hd95`); NaN when a mask is empty."""
    return float(np.percentile(d.pooled, 95)) if d.defined else math.nan


def assd(d: SurfaceDistances) -> float:
    """Average symmetric surface distance: the mean of both directions together (MedPy, MONAI, Metrics Reloaded).

    NaN when a mask is empty.
    """
    return float(d.pooled.mean()) if d.defined else math.nan


def nsd(d: SurfaceDistances, tolerance: float) -> float:
    """Normalised surface Dice: the part of both surfaces within `tolerance` of the other (MONAI's).

    Every surface pixel counts the same; DeepMind's weighs each by the area of the surface it stands
    for. 0 when one mask is empty, NaN when both are.
    """
    return float((d.pooled <= tolerance).mean()) if d.pooled.size else math.nan


def boundary_f1(d: SurfaceDistances, tolerance: float) -> float:
    """Harmonic mean of the parts of the two boundaries within `tolerance` of the other (Csurka et al. 2013).

    0 when one mask is empty, NaN when both are.
    """
    if not d.defined:
        return 0.0 if d.pooled.size else math.nan
    precision = float((d.pred_to_target <= tolerance).mean())
    recall = float((d.target_to_pred <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
