"""Losses against sums written out pixel by pixel, and their values on known inputs."""

import math

import pytest
import torch

from utils.errors import UserError
from utils.training.losses import BINARY, MULTI_CLASS, binary_dice_loss, cross_entropy_loss, dice_loss, loss_for

pytestmark = pytest.mark.usefixtures("on_device")


def slow_dice(prob, target):
    """The Dice term of every class over the whole batch, in plain Python."""
    terms = []
    for k in range(prob.shape[1]):
        overlap = squares = hits = 0.0
        for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in target.shape)).tolist():
            p, t = float(prob[b, k, y, x]), float(target[b, y, x] == k)
            overlap, squares, hits = overlap + p * t, squares + p * p, hits + t
        terms.append(1 - (2 * overlap + 1e-5) / (squares + hits + 1e-5))
    return sum(terms) / len(terms)


def test_dice_and_cross_entropy_equal_slow_sums():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 3, 5), dtype=torch.uint8)
    prob = logits.softmax(1)
    picked = prob.gather(1, target.long()[:, None])
    assert dice_loss(logits, target).item() == pytest.approx(slow_dice(prob, target), rel=1e-5)
    assert cross_entropy_loss(logits, target).item() == pytest.approx(-picked.log().mean().item(), rel=1e-5)
    combined = 0.4 * cross_entropy_loss(logits, target) + 0.6 * dice_loss(logits, target)
    assert MULTI_CLASS["ce_dice"](logits, target).item() == pytest.approx(combined.item())


def test_dice_is_over_the_batch_not_the_image():
    """One image holds the class, the other does not: per-image means would differ."""
    logits = torch.zeros(2, 2, 2, 2)
    target = torch.tensor([[[1, 1], [1, 1]], [[0, 0], [0, 0]]])
    # per class over 8 pixels: p = 0.5 everywhere, 4 hits: overlap 2, p*p 2, t*t 4
    assert dice_loss(logits, target).item() == pytest.approx(1 - 4 / 6, abs=1e-5)


@pytest.mark.parametrize(
    ("logit", "target", "expected"),
    [
        (50.0, [[1, 1], [1, 1]], 0.0),
        (-50.0, [[0, 0], [0, 0]], 0.0),  # smooth 1 makes two empty masks perfect
        (-50.0, [[1, 1], [1, 0]], 1 - 1 / 4),
        (0.0, [[1, 1], [0, 0]], 1 - 3 / 5),
    ],
)
def test_binary_dice_known_values(logit, target, expected):
    logits = torch.full((1, 1, 2, 2), logit)
    assert binary_dice_loss(logits, torch.tensor([target])).item() == pytest.approx(expected, abs=1e-6)


def test_binary_cross_entropy_known_value():
    logits, target = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[1, 0]]])
    expected = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert BINARY["bce"](logits, target).item() == pytest.approx(expected, rel=1e-6)
    both = BINARY["bce"](logits, target) + BINARY["dice"](logits, target)
    assert BINARY["dice_bce"](logits, target).item() == pytest.approx(both.item())


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 1, 512, 512, dtype=torch.bfloat16)
    target = torch.ones(1, 512, 512, dtype=torch.uint8)
    pixels = 512 * 512
    assert binary_dice_loss(logits, target).item() == pytest.approx(1 - (pixels + 1) / (1.5 * pixels + 1), rel=1e-5)


@pytest.mark.parametrize(("name", "num_classes"), [("dice_bce", 9), ("bce", 4), ("ce_dice", 1), ("nonsense", 9)])
def test_a_loss_that_does_not_fit_is_refused(name, num_classes):
    with pytest.raises(UserError, match=f"--loss {name}.*expected one of"):
        loss_for(name, num_classes)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_every_loss_has_a_finite_gradient(num_classes):
    losses = BINARY if num_classes == 1 else MULTI_CLASS
    for loss in losses.values():
        logits = torch.randn(2, num_classes, 4, 4, requires_grad=True)
        loss(logits, torch.randint(0, max(num_classes, 2), (2, 4, 4))).backward()
        assert logits.grad.isfinite().all()
        assert logits.grad.abs().sum() > 0
