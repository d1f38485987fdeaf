"""Inference on volumes and images: the slow published pipeline as oracle, geometry, averaging."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from torch import Tensor, nn

from utils.inference import volumes as inference
from utils.inference.forward import forward_fn
from utils.inference.volumes import (
    nearest_index,
    predict_image,
    predict_images,
    predict_volume,
    resize_image,
    spline_matrix,
    zoom_labels,
)

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def _device(device, monkeypatch):
    monkeypatch.setattr(f"{__name__}.DEVICE", device)


def normalise(image: Tensor) -> Tensor:
    return (image - 0.5) / 0.5


class Shapes(nn.Module):
    """A small network with an opinion at every pixel; not symmetric under any flip."""

    def __init__(self, num_classes: int = 5, channels: int = 1, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(num_classes, channels, 5, 5, generator=generator, device="cpu")
        self.weight = nn.Parameter(weight.to(torch.get_default_device()))
        self.drop = nn.Dropout(0.5)  # a network left in training mode would give itself away

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return self.drop(F.conv2d(x, self.weight, padding=2))


def volume(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((shape[0], 6, 7))
    return np.stack([zoom(s, (shape[1] / 6, shape[2] / 7), order=1) for s in coarse]).astype(np.float32)


def published_volume(forward, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One slice at a time, as the released script does it."""
    labels = np.zeros(image.shape, np.uint8)
    for i, one in enumerate(image):
        h, w = one.shape
        small = zoom(one, (size[0] / h, size[1] / w), order=3) if (h, w) != size else one
        x = (torch.from_numpy(small)[None, None].to(DEVICE) - 0.5) / 0.5
        out = forward(x).softmax(1).argmax(1)[0].to(torch.uint8).cpu().numpy()
        labels[i] = zoom(out, (h / size[0], w / size[1]), order=0) if (h, w) != size else out
    return labels


@pytest.mark.parametrize("native", [(70, 61), (40, 48), (40, 30), (33, 90)])
@pytest.mark.parametrize("batch_size", [1, 3, 24])
def test_legacy_volume_is_the_published_pipeline(native, batch_size):
    image, forward = volume((7, *native)), forward_fn([Shapes()], DEVICE)
    found = predict_volume(forward, image, (40, 48), normalise, DEVICE, batch_size, "legacy")
    assert (found.dtype, found.shape) == (np.uint8, image.shape)
    np.testing.assert_array_equal(found, published_volume(forward, image, (40, 48)))


@pytest.mark.parametrize("native", [(70, 61), (40, 48), (33, 90)])
def test_standard_volume_resizes_logits_on_the_grid_of_the_spline(native):
    image, forward = volume((5, *native)), forward_fn([Shapes()], DEVICE)
    expected = np.zeros(image.shape, np.uint8)
    for i, one in enumerate(image):
        small = zoom(one.astype(np.float64), (40 / native[0], 48 / native[1]), order=3)
        logits = forward(normalise(torch.from_numpy(small.astype(np.float32))[None, None].to(DEVICE)))[0].cpu().numpy()
        back = [zoom(c.astype(np.float64), (native[0] / 40, native[1] / 48), order=1) for c in logits]
        expected[i] = np.argmax(back, axis=0)
    found = predict_volume(forward, image, (40, 48), normalise, DEVICE, batch_size=2)
    assert found.dtype == np.uint8
    assert (found != expected).mean() < 1e-3  # rounding at exact ties


def test_standard_volume_in_parts_of_the_memory_limit(monkeypatch):
    image, forward = volume((7, 50, 60)), forward_fn([Shapes()], DEVICE)
    whole = predict_volume(forward, image, (32, 40), normalise, DEVICE, batch_size=7)
    for limit in (1, 2 * 5 * 50 * 60, 3 * 5 * 50 * 60 + 1):
        monkeypatch.setattr(inference, "MAX_LOGITS", limit)
        np.testing.assert_array_equal(predict_volume(forward, image, (32, 40), normalise, DEVICE, batch_size=5), whole)


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_a_volume_keeps_its_place(protocol):
    """A bright block comes back where it was, in slice, row and column; one class means a threshold."""
    image = np.zeros((4, 90, 120), np.float32)
    image[2, 20:50, 60:100] = 1
    found = predict_volume(lambda x: x * 8, image, (45, 60), normalise, DEVICE, protocol=protocol)
    assert found.max() == 1
    wrong = found != (image > 0.5)
    assert not wrong[[0, 1, 3]].any()
    assert not wrong[2, 22:48, 62:98].any()
    assert wrong.sum() < 200  # the edge


@pytest.mark.parametrize("sizes", [(224, 512), (512, 224), (7, 5), (5, 7), (224, 260), (49, 50), (1, 3)])
def test_zoom_tables_are_scipys(sizes):
    source, target = sizes
    labels = np.random.default_rng(0).integers(0, 9, (2, source, 11), dtype=np.uint8)
    factor = target / source
    np.testing.assert_array_equal(
        zoom_labels(labels, (target, 23)), np.stack([zoom(s, (factor, 23 / 11), order=0) for s in labels])
    )
    image = np.random.default_rng(0).random(source)
    if source > 1:
        np.testing.assert_allclose(spline_matrix(*sizes) @ image, zoom(image, factor, order=3), atol=1e-5)
    assert nearest_index(*sizes).shape == (target,)


def test_images_are_resized_as_in_training():
    from datasets.files.pictures import resize_image as for_training

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for size in ((50, 70), (25, 35), (64, 96), (64, 30), (17, 70)):
        np.testing.assert_array_equal(resize_image(image, size), for_training(image, size))


def test_image_at_its_own_size_and_at_the_networks():
    image = np.zeros((90, 120, 3), np.uint8)
    image[20:50, 60:100] = 255
    forward = partial(torch.mul, torch.tensor(8.0, device=DEVICE))
    predict = partial(predict_image, lambda x: forward(x[:, :1]), image, (45, 64), normalise, DEVICE)
    native, small = predict(), predict("legacy")
    assert (native.shape, small.shape, native.dtype) == ((90, 120), (45, 64), np.float32)
    wrong = (native >= 0.5) != (image[..., 0] > 0)
    assert not wrong[22:48, 62:98].any()
    assert wrong.sum() < 200
    assert small[10:25, 32:53].min() > 0.99
    assert small[:9].max() < 0.01


def test_image_logits_come_back_where_the_pixels_were():
    """A ramp, averaged over areas and stretched again, is the same ramp but for its ends."""
    ramp = np.tile(np.linspace(-1, 1, 120, dtype=np.float32), (90, 1))
    for image, size, axis in ((ramp, (90, 8), 1), (np.ascontiguousarray(ramp.T), (8, 90), 0)):
        found = predict_image(lambda x: x, image, size, lambda x: x, DEVICE)
        inner = (slice(None), slice(10, 110)) if axis else (slice(10, 110), slice(None))
        np.testing.assert_allclose(np.log(found / (1 - found))[inner], image[inner], atol=1e-4)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_image_values_reach_the_network_as_fractions(dtype, top):
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    image = (np.linspace(0, 1, 12).reshape(3, 4) * top).astype(dtype)
    predict_image(forward, image, (3, 4), lambda x: x, DEVICE)
    assert seen[0].shape == (1, 1, 3, 4)
    np.testing.assert_allclose(seen[0][0, 0].cpu(), image / top, atol=1e-6)


def test_batch_of_images_of_several_sizes():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((30, 40), (64, 20), (32, 48))]
    for classes, protocol in ((1, "standard"), (4, "standard"), (4, "legacy")):
        forward = forward_fn([Shapes(classes, channels=3)], DEVICE)
        together = predict_images(forward, images, (32, 48), normalise, DEVICE, protocol)
        for image, found in zip(images, together, strict=True):
            np.testing.assert_allclose(
                found, predict_image(forward, image, (32, 48), normalise, DEVICE, protocol), atol=1e-6
            )
            plane = (32, 48) if protocol == "legacy" else image.shape[:2]
            assert found.shape == (plane if classes == 1 else (classes, *plane))
            assert classes == 1 or found.sum(0) == pytest.approx(1, abs=1e-5)
