"""Overlap scores: known answers, every empty combination included."""

import math

import numpy as np
import pytest

from utils.scoring import metrics
from utils.scoring.metrics import Overlap, overlap

NAN = math.nan


def block(*corners: tuple[int, int], shape: tuple[int, ...] = (6, 8)) -> np.ndarray:
    """A mask that is True from start to stop along each axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in corners)] = True
    return mask


EMPTY, FULL = block((0, 0), (0, 0)), block((0, 6), (0, 8))
SQUARE, SHIFTED, PIXEL = block((1, 5), (1, 5)), block((1, 5), (3, 7)), block((2, 3), (2, 3))
VOLUME, HALF = block((0, 2), (0, 2), (0, 2), shape=(2, 3, 4)), block((0, 1), (0, 2), (0, 2), shape=(2, 3, 4))


@pytest.mark.parametrize(
    ("pred", "target", "counts"),
    [
        (SQUARE, SHIFTED, (8, 8, 8, 24)),
        (SQUARE, PIXEL, (1, 15, 0, 32)),
        (PIXEL, SQUARE, (1, 0, 15, 32)),
        (EMPTY, EMPTY, (0, 0, 0, 48)),
        (FULL, EMPTY, (0, 48, 0, 0)),
        (EMPTY, FULL, (0, 0, 48, 0)),
        (FULL, FULL, (48, 0, 0, 0)),
        (HALF, VOLUME, (4, 0, 4, 16)),
    ],
)
def test_counts(pred, target, counts):
    assert overlap(pred, target) == counts


@pytest.mark.parametrize(
    ("pred", "target", "dice", "iou", "precision", "recall", "specificity", "accuracy", "volume_error"),
    [
        (SQUARE, SQUARE, 1, 1, 1, 1, 1, 1, 0),
        (SQUARE, SHIFTED, 1 / 2, 1 / 3, 1 / 2, 1 / 2, 3 / 4, 2 / 3, 0),
        (SQUARE, PIXEL, 2 / 17, 1 / 16, 1 / 16, 1, 32 / 47, 33 / 48, 15),
        (PIXEL, SQUARE, 2 / 17, 1 / 16, 1, 1 / 16, 1, 33 / 48, -15 / 16),
        (FULL, FULL, 1, 1, 1, 1, NAN, 1, 0),
        (FULL, SQUARE, 1 / 2, 1 / 3, 1 / 3, 1, 0, 1 / 3, 2),
        (EMPTY, SQUARE, 0, 0, NAN, 0, 1, 2 / 3, -1),
        (SQUARE, EMPTY, 0, 0, 0, NAN, 2 / 3, 2 / 3, NAN),
        (EMPTY, EMPTY, NAN, NAN, NAN, NAN, 1, 1, NAN),
        (HALF, VOLUME, 2 / 3, 1 / 2, 1, 1 / 2, 1, 20 / 24, -1 / 2),
    ],
)
def test_known_scores(pred, target, dice, iou, precision, recall, specificity, accuracy, volume_error):
    n = overlap(pred, target)
    expected = {
        "dice": dice,
        "iou": iou,
        "precision": precision,
        "recall": recall,
        "specificity": specificity,
        "accuracy": accuracy,
        "volume_error": volume_error,
    }
    found = {name: getattr(metrics, name)(n) for name in expected}
    assert found == pytest.approx(expected, nan_ok=True, abs=1e-15)


def test_accuracy_of_no_pixels_is_undefined():
    assert math.isnan(metrics.accuracy(Overlap(0, 0, 0, 0)))
