"""Losses against sums written out pixel by pixel, and their values on known inputs."""

import importlib.util
import math
import sys

import pytest
import torch

from utils.errors import UserError
from utils.training import losses
from utils.training.losses import (
    BINARY,
    MULTI_CLASS,
    WEIGHTED,
    binary_dice_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    loss_for,
)

# the package that computes the Lovász loss imports what PyTorch calls old
pytestmark = [pytest.mark.usefixtures("on_device"), pytest.mark.filterwarnings("ignore:.*torch.jit.interface")]


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
    for name, loss in losses.items():
        if name == "lovasz" and importlib.util.find_spec("segmentation_models_pytorch") is None:
            continue
        logits = torch.randn(2, num_classes, 4, 4, requires_grad=True)
        loss(logits, torch.randint(0, max(num_classes, 2), (2, 4, 4))).backward()
        assert logits.grad.isfinite().all()
        assert logits.grad.abs().sum() > 0


# --- losses that researchers ask for ------------------------------------------------------------------


def example(classes):
    torch.manual_seed(1)
    logits = torch.randn(2, classes, 6, 5)
    return logits, torch.randint(0, max(classes, 2), (2, 6, 5), dtype=torch.uint8)


def probabilities(logits):
    """(B, K, H, W), the background first."""
    if logits.shape[1] > 1:
        return logits.softmax(1)
    return torch.cat([1 - logits.sigmoid(), logits.sigmoid()], 1)


@pytest.mark.parametrize("classes", [1, 4])
def test_focal_is_its_formula(classes):
    logits, target = example(classes)
    true = probabilities(logits).gather(1, target.long()[:, None])
    assert focal_loss(logits, target).item() == pytest.approx((-((1 - true) ** 2) * true.log()).mean().item(), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize(("name", "exponent"), [("tversky", 1.0), ("focal_tversky", 0.75)])
def test_tversky_is_its_formula(classes, name, exponent):
    logits, target = example(classes)
    prob = probabilities(logits)
    terms = []
    for k in range(1 if classes == 1 else 0, prob.shape[1]):
        true = (target == k).float()
        tp, fp, fn = (prob[:, k] * true).sum(), (prob[:, k] * (1 - true)).sum(), ((1 - prob[:, k]) * true).sum()
        terms.append((1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)) ** exponent)
    assert loss_for(name, classes)(logits, target).item() == pytest.approx(sum(terms).item() / len(terms), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("name", ["focal", "tversky", "focal_tversky", "lovasz"])
def test_more_losses_fall_to_almost_nothing_when_all_is_right(classes, name):
    if name == "lovasz":
        pytest.importorskip("segmentation_models_pytorch")
    logits, target = example(classes)
    right = torch.nn.functional.one_hot(target.long(), max(classes, 2)).movedim(-1, 1)[:, -classes:] * 60.0 - 30
    right.requires_grad_()
    loss = loss_for(name, classes)
    found = loss(right, target)
    found.backward()
    assert found.item() < 1e-3 < loss(logits, target).item()
    assert right.grad.isfinite().all()


@pytest.mark.parametrize("name", WEIGHTED)
def test_class_weights_weigh_pixels(name):
    """With a weight of 1 everywhere nothing changes; weights in proportion are the same; 0 leaves a class out."""
    classes = 1 if name not in MULTI_CLASS or name == "focal" else 3
    logits, target = example(classes)
    count = max(classes, 2)
    plain = loss_for(name, classes)(logits, target).item()
    assert loss_for(name, classes, (1.0,) * count)(logits, target).item() == pytest.approx(plain, rel=1e-6)
    some = tuple(float(k + 1) for k in range(count))
    weighed = loss_for(name, classes, some)(logits, target).item()
    doubled = loss_for(name, classes, tuple(2 * w for w in some))(logits, target).item()
    assert weighed == pytest.approx(doubled, rel=1e-6)
    assert weighed != pytest.approx(plain, rel=1e-4)


def test_weighted_cross_entropy_is_pytorchs():
    logits, target = example(4)
    weights = (0.1, 1.0, 2.0, 0.0)
    expected = torch.nn.functional.cross_entropy(logits, target.long(), weight=torch.tensor(weights))
    assert loss_for("ce", 4, weights)(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "classes", "weights", "words"),
    [
        ("ce", 4, (1.0, 2.0), "expected 4 numbers"),
        ("bce", 1, (1.0,), "expected 2 numbers"),
        ("ce", 2, (0.0, 0.0), "not all of them 0"),
        ("dice", 4, (1.0,) * 4, "--loss dice has none"),
    ],
)
def test_class_weights_that_do_not_fit(name, classes, weights, words):
    with pytest.raises(UserError, match=words):
        loss_for(name, classes, weights)


def test_a_loss_of_a_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch.losses", None)
    losses._lovasz.cache_clear()
    with pytest.raises(UserError, match="--loss lovasz: needs the package"):
        loss_for("lovasz", 1)
