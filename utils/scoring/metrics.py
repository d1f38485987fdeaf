"""Overlap of two boolean masks of any dimension: the pixels are counted once; every score is made from the counts.

Definitions follow Metrics Reloaded (Maier-Hein et al. 2024, arXiv 2206.01653). A ratio whose
denominator is zero is undefined: NaN. Such a figure is left out of every mean and counted.
Distances between surfaces live in `surface.py`, the rules of the protocols in `protocols.py`.
"""

import math
from typing import NamedTuple

import numpy as np


class Overlap(NamedTuple):
    """Numbers of pixels (voxels) of a prediction P against a target T.

    tp: in both; fp: in P only; fn: in T only; tn: in neither
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def predicted(self) -> int:
        """|P|"""
        return self.tp + self.fp

    @property
    def labelled(self) -> int:
        """|T|"""
        return self.tp + self.fn


def overlap(pred: np.ndarray, target: np.ndarray) -> Overlap:
    """Count the pixels of two boolean masks of one shape."""
    tp = int(np.count_nonzero(pred & target))
    fp = int(np.count_nonzero(pred)) - tp
    fn = int(np.count_nonzero(target)) - tp
    return Overlap(tp, fp, fn, pred.size - tp - fp - fn)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def dice(n: Overlap) -> float:
    """2|P ∩ T| / (|P| + |T|); NaN when both are empty."""
    return _ratio(2.0 * n.tp, n.predicted + n.labelled)


def iou(n: Overlap) -> float:
    """|P ∩ T| / |P ∪ T|; NaN when both are empty."""
    return _ratio(n.tp, n.tp + n.fp + n.fn)


def precision(n: Overlap) -> float:
    """Part of the prediction that is right; NaN for an empty prediction."""
    return _ratio(n.tp, n.predicted)


def recall(n: Overlap) -> float:
    """Part of the target that was found (sensitivity); NaN for an empty target."""
    return _ratio(n.tp, n.labelled)


def specificity(n: Overlap) -> float:
    """Part of the background left alone; NaN where the target fills the image."""
    return _ratio(n.tn, n.tn + n.fp)


def accuracy(n: Overlap) -> float:
    """Part of all pixels that is right; NaN for an image without pixels."""
    return _ratio(n.tp + n.tn, sum(n))


def volume_error(n: Overlap) -> float:
    """Signed relative error of the size, (|P| - |T|) / |T|: above 0 too much, -1 a miss; NaN for an empty target."""
    return _ratio(n.predicted - n.labelled, n.labelled)
