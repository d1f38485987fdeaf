"""Validation while training, on cases scored by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from utils.training.validation_set import ValidationSet


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

    held = ValidationSet(images, targets, torch.tensor([0, 0, 1]), ("liver", "spleen"), 3, batch_size)
    found = held(forward)
    # case 0: the liver is right in both slices, the spleen is missed; case 1: no liver, half of the spleen is not one
    assert found.dice == pytest.approx({"liver": 1.0, "spleen": (0 + 2 * 32 / (64 + 32)) / 2})
    assert found.mean_dice == pytest.approx((1 + 1 / 3) / 2)
    assert len(found.previews) == 2
    assert all(picture.ndim == 3 and picture.shape[2] == 3 for picture in found.previews)


def test_binary_masks_and_a_class_that_no_case_has():
    targets = torch.stack([halves(0, 1), halves(0, 0)])
    images = targets[:, None].float()
    held = ValidationSet(images, targets, torch.arange(2), ("polyp",), 1, 2)
    assert held(lambda x: x * 2 - 1).dice == {"polyp": 1.0}  # the empty image is rightly empty: undefined, left out
    assert held(lambda x: x * 0 + 1).dice["polyp"] == pytest.approx((2 / 3 + 0) / 2)
    nothing = ValidationSet(images * 0, targets * 0, torch.arange(2), ("polyp",), 1, 2)
    assert math.isnan(nothing(lambda x: x - 1).mean_dice)
