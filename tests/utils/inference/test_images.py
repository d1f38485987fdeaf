"""Inference on pictures: geometry, values, batches of several sizes."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.shapes import Shapes
from utils.config import Config
from utils.inference.forward import forward_fn
from utils.inference.predict import predict_images
from utils.preprocess import Preprocess

DEVICE = torch.device("cpu")


RGB = Preprocess(3, "area", (0.5,) * 3, (0.5,) * 3)
PLAIN = Preprocess(1, "area", (0.0,), (1.0,))


@pytest.fixture(autouse=True)
def _device(device, monkeypatch):
    monkeypatch.setattr(f"{__name__}.DEVICE", device)


def config(size: tuple[int, int], pre: Preprocess, protocol: str = "standard") -> Config:
    return Config(img_size=size, preprocess=pre, protocol=protocol)


def test_image_at_its_own_size_and_at_the_networks():
    image = np.zeros((90, 120, 3), np.uint8)
    image[20:50, 60:100] = 255
    forward = partial(torch.mul, torch.tensor(8.0, device=DEVICE))
    (native,), (small,) = (
        predict_images(lambda x: forward(x[:, :1]), [image], config((45, 64), RGB, protocol), DEVICE)
        for protocol in ("standard", "legacy")
    )
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
        (found,) = predict_images(lambda x: x, [image], config(size, PLAIN), DEVICE)
        inner = (slice(None), slice(10, 110)) if axis else (slice(10, 110), slice(None))
        np.testing.assert_allclose(np.log(found / (1 - found))[inner], image[inner], atol=1e-4)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_image_values_reach_the_network_as_fractions(dtype, top):
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    image = (np.linspace(0, 1, 12).reshape(3, 4) * top).astype(dtype)
    predict_images(forward, [image], config((3, 4), PLAIN), DEVICE)
    assert seen[0].shape == (1, 1, 3, 4)
    np.testing.assert_allclose(seen[0][0, 0].cpu(), image / top, atol=1e-6)


def test_batch_of_images_of_several_sizes():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((30, 40), (64, 20), (32, 48))]
    for classes, protocol in ((1, "standard"), (4, "standard"), (4, "legacy")):
        forward = forward_fn([Shapes(classes, channels=3)], DEVICE)
        cfg = config((32, 48), RGB, protocol)
        together = predict_images(forward, images, cfg, DEVICE)
        for image, found in zip(images, together, strict=True):
            (alone,) = predict_images(forward, [image], cfg, DEVICE)
            np.testing.assert_allclose(found, alone, atol=1e-6)
            plane = (32, 48) if protocol == "legacy" else image.shape[:2]
            assert found.shape == (plane if classes == 1 else (classes, *plane))
            assert classes == 1 or found.sum(0) == pytest.approx(1, abs=1e-5)
