"""Validation while training: on cases scored by hand, and against the metric on whole cases."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.scoring.metrics import dice, overlap
from utils.training.validation import ValidationSet, case_counts, dice_from_counts

CPU = torch.device("cpu")
SIZE = (8, 8)


def halves(left: int, right: int) -> torch.Tensor:
    """A target (8, 8): `left` in the left half, `right` in the right one."""
    return torch.tensor([left] * 4 + [right] * 4, dtype=torch.uint8).repeat(8, 1)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_names_go_with_classes_and_slices_with_cases(batch_size):
    targets = torch.stack([halves(0, 1), halves(2, 1), halves(2, 0)])
    images = torch.arange(3).view(3, 1, 1, 1).expand(3, 1, 8, 8) / 10
    predicted = torch.stack([halves(0, 1), halves(0, 1), halves(2, 2)])

    def forward(batch):
        chosen = (batch[:, 0, 0, 0] * 10).round().long()
        return F.one_hot(predicted[chosen].long(), 3).movedim(3, 1).float()

    held = ValidationSet(images, targets, torch.tensor([0, 0, 1]), ("liver", "spleen"), 3, batch_size, SIZE)
    found = held(forward, CPU)
    # case 0: the liver is right in both slices, the spleen is missed; case 1: no liver, half of the spleen is not one
    assert found.dice == pytest.approx({"liver": 1.0, "spleen": (0 + 2 * 32 / (64 + 32)) / 2})
    assert found.mean_dice == pytest.approx((1 + 1 / 3) / 2)
    assert len(found.previews) == 2
    assert all(picture.ndim == 3 and picture.shape[2] == 3 for picture in found.previews)


def test_binary_masks_and_a_class_that_no_case_has():
    targets = torch.stack([halves(0, 1), halves(0, 0)])
    images = targets[:, None].float()
    held = ValidationSet(images, targets, torch.arange(2), ("polyp",), 1, 2, SIZE)
    assert held(lambda x: x * 2 - 1, CPU).dice == {"polyp": 1.0}  # the empty image is rightly empty: NaN, left out
    assert held(lambda x: x * 0 + 1, CPU).dice["polyp"] == pytest.approx((2 / 3 + 0) / 2)
    nothing = ValidationSet(images * 0, targets * 0, torch.arange(2), ("polyp",), 1, 2, SIZE)
    assert math.isnan(nothing(lambda x: x - 1, CPU).mean_dice)


@pytest.mark.parametrize("num_classes", [1, 5])
@pytest.mark.parametrize("batch", [1, 4, 11])
def test_dice_of_cases_from_shuffled_batches(num_classes, batch):
    generator = torch.Generator().manual_seed(0)
    labels = max(num_classes, 2)
    pred, target = torch.randint(0, labels, (2, 11, 6, 5), generator=generator, dtype=torch.uint8)
    case = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 4, 4, 0])  # case 3 has no image
    target[case == 1] = pred[case == 1] = 0
    if num_classes > 1:
        pred[pred == 4] = 0
    order = torch.randperm(11, generator=generator)
    counts = sum(case_counts(pred[i], target[i], case[i], 5, num_classes) for i in order.split(batch))
    assert (counts.shape, counts.dtype) == ((5, num_classes, 3), torch.int64)
    found = dice_from_counts(counts.numpy())
    for n in range(5):
        for k in range(num_classes):
            label = k if num_classes > 1 else 1
            p, t = (np.asarray(x[case == n] == label) for x in (pred, target))
            assert found[n, k] == pytest.approx(dice(overlap(p, t)), nan_ok=True)


def test_counts_are_intersection_prediction_target():
    pred, target = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 1, 1]]])
    counts = case_counts(pred, target, torch.tensor([1]), 2, 2)
    assert counts.tolist() == [[[0, 0, 0], [0, 0, 0]], [[0, 2, 1], [1, 2, 3]]]


def test_empty_classes_are_nan_and_misses_zero():
    counts = np.array([[[0, 0, 0], [0, 0, 7], [0, 7, 0], [5, 5, 5]]])
    assert dice_from_counts(counts)[0].tolist() == pytest.approx([math.nan, 0, 0, 1], nan_ok=True)
