"""Case-wise Dice from batches: against the metric on whole cases, in any batching and order."""

import math

import numpy as np
import pytest
import torch

from utils.inference.forward import labels_from_logits
from utils.scoring.metrics import dice, overlap
from utils.training.validation import case_counts, dice_from_counts


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
    found = dice_from_counts(counts)
    for n in range(5):
        for k in range(num_classes):
            label = k if num_classes > 1 else 1
            p, t = (np.asarray(x[case == n] == label) for x in (pred, target))
            assert found[n, k].item() == pytest.approx(dice(overlap(p, t)), nan_ok=True)


def test_counts_are_intersection_prediction_target():
    pred, target = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 1, 1]]])
    counts = case_counts(pred, target, torch.tensor([1]), 2, 2)
    assert counts.tolist() == [[[0, 0, 0], [0, 0, 0]], [[0, 2, 1], [1, 2, 3]]]


def test_empty_classes_are_nan_and_misses_zero():
    counts = torch.tensor([[[0, 0, 0], [0, 0, 7], [0, 7, 0], [5, 5, 5]]])
    assert dice_from_counts(counts)[0].tolist() == pytest.approx([math.nan, 0, 0, 1], nan_ok=True)


def test_labels():
    logits = torch.tensor([[[[-1.0, 0.0, 2.0]]]])
    assert labels_from_logits(logits).tolist() == [[[0, 1, 1]]]
    several = torch.tensor([0.0, 3.0, 1.0]).reshape(1, 3, 1, 1)
    assert labels_from_logits(several).tolist() == [[[1]]]
    assert labels_from_logits(several).dtype == torch.uint8
