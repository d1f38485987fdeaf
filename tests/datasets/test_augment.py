"""Augmentation recipes: what is drawn and how often, independence of samples, types, normalisation."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets import augment
from datasets.augment import (
    Draws,
    SynapseChoice,
    augment_binary,
    augment_synapse,
    binary_warp,
    draw_synapse,
    holes,
    noise_std,
    synapse_warp,
)
from datasets.augment_intensity import augment_intensities
from datasets.warp import warp
from tests.datasets.test_warp import batch, choice_of, generator

pytestmark = pytest.mark.usefixtures("on_device")


def synapse(images, targets, draws):
    """Of slices whose own size is the network's."""
    return augment_synapse(images, targets, draws, tuple(images.shape[-2:]))


def strong(images, targets, draws):
    return augment_intensities(images, draws), targets


RECIPES = [synapse, augment_binary, strong]


@pytest.mark.parametrize("recipe", [synapse, augment_binary])
def test_mask_and_image_move_together_and_labels_are_never_invented(recipe, monkeypatch):
    """Blobs given as image and as mask stay on top of each other; without noise, blur and holes."""
    monkeypatch.setattr(augment, "NOISE_STD", 0)
    monkeypatch.setattr(augment, "_blur", lambda images, sigmas: images)
    monkeypatch.setattr(augment, "holes", lambda draws, h, w: torch.zeros(64, h, w, dtype=torch.bool))
    rng = np.random.default_rng(0)
    blobs = torch.from_numpy(ndimage.gaussian_filter(rng.normal(size=(64, 48, 80)), (0, 6, 6)) > 0)
    blobs = blobs.to(torch.get_default_device())
    images, targets = recipe(blobs[:, None].float(), blobs.to(torch.uint8) * 5, Draws(generator(), 64))
    assert set(targets.unique().tolist()) == {0, 5}
    agreement = ((images[:, 0] > 0.5) == (targets == 5)).float().mean(dim=(1, 2))
    assert agreement.min() > 0.98
    changed = (targets != blobs * 5).flatten(1).any(1)
    assert 20 < int(changed.sum()) < 64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("recipe", RECIPES)
def test_types_and_sizes_are_kept_and_the_input_is_untouched(recipe, dtype):
    images, targets = batch(6, 3, 40, 56)
    targets = targets.to(dtype)
    kept = images.clone(), targets.clone()
    got, labels = recipe(images, targets, Draws(generator(), 6))
    assert (got.shape, got.dtype, labels.shape, labels.dtype) == (images.shape, torch.float32, targets.shape, dtype)
    assert torch.equal(images, kept[0])
    assert torch.equal(targets, kept[1])
    assert set(labels.unique().tolist()) <= set(range(9))


@pytest.mark.parametrize("recipe", RECIPES)
def test_autocast_changes_nothing(recipe, device):
    images, targets = batch(8, 3, 40, 56)
    expected = recipe(images, targets, Draws(generator(), 8))
    with torch.autocast(device.type, torch.bfloat16):
        got = recipe(images, targets, Draws(generator(), 8))
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])
    half = recipe(images.bfloat16(), targets, Draws(generator(), 8))
    assert half[0].dtype == torch.bfloat16
    torch.testing.assert_close(half[0].float(), expected[0], atol=0.02, rtol=0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_parts_of_a_global_batch_equal_the_whole(recipe):
    """Two processes, and so any sample beside any other: the result is the same bit for bit."""
    images, targets = batch(12, 3, 40, 56)
    whole = recipe(images, targets, Draws(generator(3), 12))
    for start, stop in ((0, 5), (5, 12), (7, 8)):
        part = recipe(images[start:stop], targets[start:stop], Draws(generator(3), stop - start, 12, start))
        assert torch.equal(part[0], whole[0][start:stop])
        assert torch.equal(part[1], whole[1][start:stop])
    others = images.clone()
    others[:6] = 0.5
    assert torch.equal(recipe(others, targets, Draws(generator(3), 12))[0][6:], whole[0][6:])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_seed_repeats_and_the_next_batch_differs(recipe):
    images, targets = batch(16, 1, 32, 32)
    rng = generator(3)
    first, second = (recipe(images, targets, Draws(rng, 16))[0] for _ in range(2))
    assert torch.equal(first, recipe(images, targets, Draws(generator(3), 16))[0])
    assert not torch.equal(first, second)


def test_draws_stay_in_their_ranges_and_reach_them():
    draws = Draws(generator(), 20_000)
    numbers = draws.integers(0, 5)
    assert numbers.bincount().tolist() == pytest.approx([4000] * 5, rel=0.08)
    uniform = draws.uniform(-3, 7, 2)
    assert uniform.shape == (20_000, 2)
    assert (float(uniform.min()), float(uniform.max())) == pytest.approx((-3, 7), abs=0.01)
    assert float(draws.coin(0.25).float().mean()) == pytest.approx(0.25, abs=0.015)
    order = draws.permutation(9)
    assert torch.equal(order.sort(1).values, torch.arange(9).expand(20_000, 9))
    assert order[:, 0].bincount().tolist() == pytest.approx([20_000 / 9] * 9, rel=0.1)
    noise = draws.normal(2)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_synapse_draws_follow_the_recipe():
    choice = draw_synapse(Draws(generator(), 20_000))
    plan = synapse_warp(choice, 10, 30)
    assert choice.count.unique().tolist() == [0, 1, 2, 3, 4]
    chosen = choice.order.argsort(1) < choice.count[:, None]
    assert torch.equal(chosen.sum(1), choice.count)
    assert chosen.float().mean(0).tolist() == pytest.approx([2 / 9] * 9, rel=0.06)  # 2 of 9 on average
    for flip in (plan.flip_x, plan.flip_y):
        assert float(flip.float().mean()) == pytest.approx(1 / 9, rel=0.08)  # and then with probability 0.5
    for values, low, high in (
        (choice.scale, 0.5, 2),
        (choice.angle.rad2deg(), -40, 40),
        (choice.shear.rad2deg(), -16, 16),
        (choice.shift, -0.2, 0.2),
    ):
        assert (float(values.min()), float(values.max())) == pytest.approx((low, high), abs=0.01 * (high - low))
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert float(choice.control.std()) == pytest.approx(math.sqrt((0.008**2 + 0.008 * 0.03 + 0.03**2) / 3), rel=0.02)
    spread = choice.control.flatten(1).std(dim=1)
    assert float(spread.quantile(0.9)) > 2 * float(spread.quantile(0.1))  # drawn per sample


def test_noise_and_blur_touch_the_image_only_and_as_much_as_they_should(monkeypatch):
    images = torch.full((400, 1, 16, 16), 0.5)
    images[..., 8, 8] = 1
    targets = batch(400, 1, 16, 16)[1]
    for name in ("noise", "blur"):
        only = choice_of([name])
        monkeypatch.setattr(
            augment,
            "draw_synapse",
            lambda draws, only=only: SynapseChoice(*(t.expand(400, *t.shape[1:]) for t in only)),
        )
        got, labels = synapse(images, targets, Draws(generator(), 400))
        assert torch.equal(labels, targets)
        if name == "noise":
            assert float((got - images).std()) == pytest.approx(0.005, rel=0.02)
            assert float((got - images).mean()) == pytest.approx(0, abs=1e-4)
        else:
            expected = ndimage.gaussian_filter(images[0, 0].cpu().numpy(), 1, mode="nearest", radius=2)
            np.testing.assert_allclose(got[7, 0].cpu(), expected, atol=1e-6)


def test_noise_and_blur_are_those_of_slices_at_their_own_size(monkeypatch, device64):
    """Published at 512 pixels, before the cubic zoom to 224; here the slices are resized first."""
    rng = np.random.default_rng(0)
    zoomed = ndimage.zoom(0.005 * rng.normal(size=(512, 512)), 224 / 512, order=3)
    assert noise_std((512, 512), (224, 224)) == pytest.approx(zoomed.std(), rel=0.01)
    assert noise_std((96, 130), (96, 130)) == 0.005
    smooth = ndimage.gaussian_filter(rng.normal(size=(256, 384)), 6)
    blurred, plain = (
        ndimage.zoom(x, (112 / 256, 168 / 384), order=3) for x in (ndimage.gaussian_filter(smooth, 1, radius=2), smooth)
    )
    only = choice_of(["blur"])
    monkeypatch.setattr(augment, "draw_synapse", lambda draws: only)
    images = torch.from_numpy(plain)[None, None].to(device64)
    found = augment_synapse(images, torch.zeros(1, 112, 168), Draws(generator(), 1), (256, 384))[0]
    change = np.abs(found[0, 0].cpu().numpy() - plain).mean()
    assert change == pytest.approx(np.abs(blurred - plain).mean(), rel=0.2)
    wide = augment_synapse(images, torch.zeros(1, 112, 168), Draws(generator(), 1), (112, 168))[0]
    assert np.abs(wide[0, 0].cpu().numpy() - plain).mean() > 3 * change


def test_binary_draws_follow_the_recipe():
    plan = binary_warp(Draws(generator(), 20_000))
    for coin in (plan.flip_x, plan.flip_y, plan.moved):
        assert float(coin.float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float((plan.flip_x & plan.flip_y & plan.moved).float().mean()) == pytest.approx(0.25**3, abs=0.005)
    assert plan.displacement is None
    linear = plan.before[:, :, :2]
    scale = linear.det().rsqrt()  # of the content, so the inverse of what is read
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).rad2deg()
    assert (float(scale.min()), float(scale.max())) == pytest.approx((0.9, 1.1), abs=0.001)
    assert (float(angle.min()), float(angle.max())) == pytest.approx((-45, 45), abs=0.1)
    torch.testing.assert_close(linear[:, 0, 0], linear[:, 1, 1])
    torch.testing.assert_close(linear[:, 0, 1], -linear[:, 1, 0])
    assert not plan.before[:, :, 2].any()


def test_binary_images_are_warped_and_then_holed():
    images, targets = batch(400, 3, 24, 40)
    images = images + 0.1  # so that 0 is a hole or the outside
    plan, covered = binary_warp(draws := Draws(generator(), 400)), holes(draws, 24, 40)
    expected, labels = warp(images, targets, plan, mirror=True)
    got = augment_binary(images, targets, Draws(generator(), 400))
    assert torch.equal(got[0], expected.masked_fill(covered[:, None], 0))
    assert torch.equal(got[1], labels)


@pytest.mark.parametrize("shape", [(40, 24), (8, 8), (5, 30), (160, 200)])
def test_holes_are_whole_squares_in_half_of_the_samples(shape):
    found = holes(Draws(generator(), 2000), *shape)
    area = found.flatten(1).sum(1)
    assert float((area > 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    side = min(8, shape[0]) * min(8, shape[1])
    assert int(area[area > 0].min()) >= side
    assert int(area.max()) <= 8 * side
    if shape == (160, 200):
        apart = area == 8 * side  # squares that do not overlap: always all eight of them
        assert float(apart[area > 0].float().mean()) > 0.2
        pieces = {ndimage.label(one)[1] for one in found[apart][:20].cpu().numpy()}
        assert max(pieces) == 8
    if shape == (40, 24):
        assert int(area.max()) > 5 * side
        assert (found.any(0)).all()  # every pixel can be covered, the corners included


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_host_never_waits_for_the_gpu(recipe):
    images, targets = (tensor.cuda() for tensor in batch(8, 3, 64, 64))
    draws = Draws(torch.Generator("cuda").manual_seed(0), 8)
    recipe(images, targets, draws)
    torch.cuda.set_sync_debug_mode("error")
    try:
        recipe(images, targets, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
