"""Stronger augmentation: each operation against an obvious one, how often and how much, values in [0, 1]."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import isic_polyp_rectal.task as pictures
import synapse_train_test.task as slices
from datasets import augment_intensity
from datasets.augment import Draws
from datasets.augment_intensity import augment_intensities, contrast, gamma, low_resolution
from datasets.images.make_split import split_dataset
from tests.datasets.test_warp import batch, generator
from tests.support.trees import write_picture_tree, write_synapse_tree

pytestmark = pytest.mark.usefixtures("on_device")

CHANCES = {"BRIGHTEN": 0.15, "SHARPEN": 0.15, "COARSEN": 0.25, "GAMMA_INVERTED": 0.1, "GAMMA_PLAIN": 0.3}


def amounts(batch, channels, low, high):
    return torch.from_numpy(np.random.default_rng(1).uniform(low, high, (batch, channels)).astype(np.float32))


def of_each_channel(function, images, values):
    """`function` of every channel of every sample, one after another."""
    done = [[function(channel, value) for channel, value in zip(*pair)] for pair in zip(images, values)]
    return torch.stack([torch.stack(channels) for channels in done])


def obvious_contrast(x, factor):
    return ((x - x.mean()) * factor + x.mean()).clamp(float(x.min()), float(x.max()))


def obvious_gamma(x, exponent):
    y = ((x - x.min()) / (x.max() - x.min())) ** exponent
    return (y - y.mean()) / y.std() * x.std() + x.mean()


def obvious_low_resolution(x, scale):
    small = [round(length * float(scale)) for length in x.shape]
    shrunk = F.interpolate(x[None, None], small, mode="nearest-exact")
    return F.interpolate(shrunk, x.shape, mode="bilinear")[0, 0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("fast", "obvious", "low", "high"),
    [
        (contrast, obvious_contrast, 0.5, 2.0),
        (gamma, obvious_gamma, 0.5, 2.0),
        (low_resolution, obvious_low_resolution, 0.3, 1.0),
    ],
)
def test_an_operation_on_a_batch_is_the_obvious_one_on_each_channel(fast, obvious, low, high, channels):
    images = batch(5, channels, 37, 50)[0]
    values = amounts(5, channels, low, high).to(images.device)
    expected = of_each_channel(obvious, images, values)
    torch.testing.assert_close(fast(images, values), expected, atol=1e-5, rtol=0)
    assert float((expected - images).abs().mean()) > 0.01


@pytest.mark.parametrize("length", [1, 2, 5, 64])
def test_low_resolution_at_full_scale_and_on_small_images_changes_nothing(length):
    images = batch(2, 3, length, 7)[0]
    torch.testing.assert_close(low_resolution(images, torch.ones(2, 3)), images, atol=1e-6, rtol=0)


def only(monkeypatch, name):
    """Do the operation `name` alone, in every sample."""
    for chance in CHANCES:
        monkeypatch.setattr(augment_intensity, chance, float(chance == name))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CHANCES)
def test_what_each_operation_does_to_a_batch(monkeypatch, name, channels):
    only(monkeypatch, name)
    images = 0.3 + 0.3 * batch(400, channels, 24, 27)[0]  # so that nothing is cut at 0 or 1
    found = augment_intensities(images, Draws(generator(), 400))
    changed = (found - images).abs().amax((2, 3)) > 1e-5
    kinds = {  # what an operation keeps, and what it does not
        "BRIGHTEN": (found / images).std((2, 3)),
        "SHARPEN": found.mean((2, 3)) - images.mean((2, 3)),
        "GAMMA_INVERTED": found.std((2, 3)) - images.std((2, 3)),
        "GAMMA_PLAIN": found.std((2, 3)) - images.std((2, 3)),
    }
    if name == "COARSEN":
        assert float(changed.float().mean()) == pytest.approx(0.5, abs=0.06)
        assert float(found.amax() - images.amax()) <= 0
    else:
        assert float(changed.float().mean()) > 0.97
        assert float(kinds[name].abs().mean()) < 0.01
    if channels == 3:
        assert not torch.allclose((found - images)[:, 0], (found - images)[:, 1], atol=0.01)


def test_brightness_spans_its_range(monkeypatch):
    only(monkeypatch, "BRIGHTEN")
    images = torch.full((4000, 1, 1, 1), 0.5)
    factor = augment_intensities(images, Draws(generator(), 4000)).flatten() * 2
    assert (float(factor.min()), float(factor.max())) == pytest.approx((0.75, 1.25), abs=0.002)


def test_gamma_spans_its_range_with_as_many_below_one_as_above(monkeypatch):
    only(monkeypatch, "GAMMA_PLAIN")
    seen = []
    monkeypatch.setattr(augment_intensity, "gamma", lambda x, exponent: seen.append(exponent) or x)
    augment_intensities(torch.rand(20_000, 2, 2, 2), Draws(generator(), 20_000))
    inverted, plain = seen
    for exponent in (inverted, plain):
        assert (float(exponent.min()), float(exponent.max())) == pytest.approx((0.7, 1.5), abs=0.01)
        assert float((exponent < 1).float().mean()) == pytest.approx(0.5, abs=0.02)
        assert float((exponent[:, 0] == exponent[:, 1]).float().mean()) < 0.01, "each channel draws its own"
    assert not torch.equal(inverted, plain)


def test_gamma_of_the_inverted_image_works_on_the_bright_end(monkeypatch):
    """A power above 1 flattens the dark end, and the bright end of an inverted image."""
    ramp = torch.linspace(0, 1, 101).expand(1, 1, 2, 101).contiguous()
    monkeypatch.setattr(augment_intensity, "_amount", lambda draws, bounds, channels: torch.full((1, 1), 1.5))
    steps = {}
    for name in ("GAMMA_PLAIN", "GAMMA_INVERTED"):
        only(monkeypatch, name)
        found = augment_intensities(0.25 + ramp / 2, Draws(generator(), 1))[0, 0, 0]
        steps[name] = found.diff()
    assert float(steps["GAMMA_PLAIN"][0]) < float(steps["GAMMA_PLAIN"][-1])
    torch.testing.assert_close(steps["GAMMA_INVERTED"], steps["GAMMA_PLAIN"].flip(0), atol=1e-5, rtol=0)


def test_each_operation_is_as_frequent_as_in_nnunet():
    images = batch(1, 1, 6, 6)[0].expand(20_000, 1, 6, 6)
    same = (augment_intensities(images, Draws(generator(), 20_000)) == images.clamp(0, 1)).flatten(1).all(1)
    alone = [1 - chance for chance in CHANCES.values()]
    alone[2] = 1 - 0.25 * 0.5  # of the channels of the samples
    assert float(same.float().mean()) == pytest.approx(np.prod(alone), abs=0.02)
    assert {name: getattr(augment_intensity, name) for name in CHANCES} == CHANCES


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_constant_image_stays_finite_and_within_its_range(value):
    found = augment_intensities(torch.full((500, 3, 4, 5), value), Draws(generator(), 500))
    assert found.isfinite().all()
    assert (float(found.min()) >= 0, float(found.max()) <= 1) == (True, True)
    assert float((found - value).abs().max()) <= 0.25 * value + 1e-6


def test_values_stay_in_the_unit_interval():
    images = (3 * batch(300, 3, 8, 8)[0] - 1).clamp(0, 1)  # many at the ends
    found = augment_intensities(images, Draws(generator(), 300))
    assert (float(found.min()), float(found.max())) == (0.0, 1.0)


def config_of(kind, folder):
    if kind is slices:
        root = write_synapse_tree(folder / "data")
        return replace(slices.SYNAPSE, root_path=str(root), list_dir=str(root / "lists"), img_size=(40, 48))
    split_dataset(write_picture_tree(folder / "data"), 0.8)
    return replace(pictures.CVC_CLINICDB, root_path=str(folder / "data"), img_size=(40, 48), folds=2)


@pytest.mark.parametrize("kind", [slices, pictures])
def test_a_flag_adds_it_to_what_the_recipe_does(kind, tmp_path):
    cfg = config_of(kind, tmp_path)
    channels = cfg.preprocess.channels
    images, targets = batch(12, channels, 40, 48)
    (plain, labels), (strong, same) = (
        kind.build_task(replace(cfg, strong_augment=flag)).augment(images, targets, generator(), 20, 4)
        for flag in (False, True)
    )
    draws = Draws(generator(), 12, 20, 4)
    recipe = partial(kind.augment_synapse, native=(40, 40)) if kind is slices else kind.augment_binary
    expected, _ = recipe(images, targets, draws)
    assert torch.equal(plain, expected)
    assert torch.equal(strong, augment_intensities(expected, draws))
    assert not torch.equal(strong, plain)
    assert torch.equal(labels, same)
