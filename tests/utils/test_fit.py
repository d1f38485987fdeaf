"""squash, pad and slide: an image and its labels on the network's grid and back, in testing as in training."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from utils.config import Config
from utils.inference.predict import predict_images, predict_volume
from utils.preprocess import PICTURES, SLICES
from utils.preprocess.sizes import crop_margins, fit_image, fit_labels, network_input, resize_image, resize_labels
from utils.training.validation import ValidationSet

CPU = torch.device("cpu")
SIZE = (32, 48)
SHAPES = [(32, 48), (64, 96), (40, 200), (100, 50), (20, 30), (33, 47), (90, 20)]
RNG = np.random.default_rng(0)


def fitted(pre, fit):
    return replace(pre, fit=fit)


@pytest.mark.parametrize("pre", [PICTURES, SLICES], ids=["pictures", "slices"])
@pytest.mark.parametrize("shape", SHAPES)
def test_pad_keeps_the_aspect_and_fills_with_zero(pre, shape):
    image = np.full((*shape, 3) if pre.channels == 3 else shape, 200, np.uint8 if pre.channels == 3 else np.float32)
    found = fit_image(image, SIZE, fitted(pre, "pad"))
    assert found.shape[:2] == SIZE
    filled = (found if found.ndim == 2 else found[..., 0]) > 100
    height, width = filled.any(1).sum(), filled.any(0).sum()
    assert (height == SIZE[0]) or (width == SIZE[1])
    assert abs(height / width - shape[0] / shape[1]) <= 1 / min(height, width) * max(1, shape[0] / shape[1])
    assert filled.sum() == height * width
    assert found[~filled].max(initial=0) == 0
    rows = np.flatnonzero(filled.any(1))
    assert abs(rows[0] - (SIZE[0] - 1 - rows[-1])) <= 1
    labels = fit_labels(np.full(shape, 7, np.uint8), SIZE, fitted(pre, "pad"))
    assert np.array_equal(labels == 7, filled)
    assert set(np.unique(labels)) <= {0, 7}


@pytest.mark.parametrize("pre", [PICTURES, SLICES], ids=["pictures", "slices"])
def test_squash_is_the_resizing_as_published_and_slide_resizes_nothing(pre):
    for shape in SHAPES:
        image = RNG.random(shape).astype(np.float32)
        labels = RNG.integers(0, 9, shape).astype(np.uint8)
        assert np.array_equal(fit_image(image, SIZE, pre), resize_image(image, SIZE, pre))
        assert np.array_equal(fit_labels(labels, SIZE, pre), resize_labels(labels, SIZE, pre))
        slide = fitted(pre, "slide")
        found = fit_image(image, SIZE, slide)
        assert found.shape == tuple(max(n, s) for n, s in zip(shape, SIZE))
        assert np.array_equal(crop_margins(found, shape, slide), image)
        assert found.sum(dtype=float) == pytest.approx(image.sum(dtype=float))
        assert np.array_equal(crop_margins(fit_labels(labels, SIZE, slide), shape, slide), labels)


@pytest.mark.parametrize("pre", [PICTURES, SLICES], ids=["pictures", "slices"])
@pytest.mark.parametrize("fit", ["squash", "pad", "slide"])
def test_the_input_of_the_network_is_what_training_sees(pre, fit):
    pre = fitted(pre, fit)
    for shape in SHAPES:
        image = RNG.random(shape).astype(np.float32)
        if pre.channels == 3:
            image = (image[..., None].repeat(3, 2) * 255).astype(np.uint8)
        seen = fit_image(image, SIZE, pre).astype(np.float32) / (255 if pre.channels == 3 else 1)
        expected = (seen - np.array(pre.mean if pre.channels == 3 else pre.mean[0])) / np.array(pre.std)
        found = network_input([image, image], SIZE, pre, CPU)[1]
        found = found.permute(1, 2, 0).numpy() if pre.channels == 3 else found[0].numpy()
        np.testing.assert_allclose(found, expected, atol=2e-5)


def disc(shape):
    image = np.zeros((*shape, 3), np.uint8)
    cv2.circle(image, (shape[1] // 3, shape[0] // 2), min(shape) // 3, (255, 255, 255), -1)
    return image


def bright(batch):
    """Positive logits where the normalised image is bright."""
    return 20 * (batch[:, :1] > 0).float() - 10


@pytest.mark.parametrize("fit", ["squash", "pad", "slide"])
@pytest.mark.parametrize("protocol", ["standard", "legacy"])
@pytest.mark.parametrize("shape", SHAPES)
def test_masks_come_back_where_the_object_is(fit, protocol, shape):
    pre, image = fitted(PICTURES, fit), disc(shape)
    cfg = Config(num_classes=1, preprocess=pre, img_size=SIZE, batch_size=3, protocol=protocol)
    (found,) = predict_images(bright, [image], cfg, CPU)
    truth = image[..., 0] > 0
    if protocol == "legacy" and fit != "slide":
        assert found.shape == SIZE
        truth = fit_labels(truth, SIZE, pre)
    assert found.shape == truth.shape
    both = ((found >= 0.5) & truth).sum()
    assert 2 * both / ((found >= 0.5).sum() + truth.sum()) > (0.999 if fit == "slide" else 0.8)


@pytest.mark.parametrize("fit", ["squash", "pad", "slide"])
@pytest.mark.parametrize("protocol", ["standard", "legacy"])
@pytest.mark.parametrize("pre", [PICTURES, SLICES], ids=["pictures", "slices"])
def test_volumes_come_back_on_their_own_grid(fit, protocol, pre):
    for shape in SHAPES:
        volume = np.stack([disc(shape)[..., 0]] * 3)
        truth = volume > 0
        volume = volume[..., None].repeat(3, 3) if pre.channels == 3 else volume.astype(np.float32) / 255
        cfg = Config(num_classes=1, preprocess=fitted(pre, fit), img_size=SIZE, batch_size=2, protocol=protocol)
        found = predict_volume(bright, volume, cfg, CPU) > 0
        assert found.shape == truth.shape
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > (0.999 if fit == "slide" else 0.75)


def test_validation_looks_through_windows_at_images_of_different_sizes():
    shapes = [(32, 48), (50, 60), (100, 49)]
    images = [torch.from_numpy(disc(shape).transpose(2, 0, 1).copy()) for shape in shapes]
    targets = [(image[0] > 0).to(torch.uint8) for image in images]
    sizes = set()

    def forward(batch):
        sizes.add(tuple(batch.shape[-2:]))
        return bright(batch.float() - 100)

    found = ValidationSet(images, targets, torch.arange(3), ("disc",), 1, 2, SIZE)(forward, CPU)
    assert found.mean_dice == 1
    assert sizes == {SIZE}
    assert [picture.shape[2] for picture in found.previews] == [3, 3, 3]
