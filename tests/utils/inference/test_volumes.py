"""Inference on volumes: the slow published pipeline as oracle, geometry, averaging."""

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from torch import Tensor

from tests.support.shapes import Shapes
from utils.config import Config
from utils.inference import predict as inference
from utils.inference.forward import forward_fn
from utils.inference.predict import predict_volume

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def _device(device, monkeypatch):
    monkeypatch.setattr(f"{__name__}.DEVICE", device)


def normalise(image: Tensor) -> Tensor:
    return (image - 0.5) / 0.5


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
    cfg = Config(img_size=(40, 48), batch_size=batch_size, protocol="legacy")
    found = predict_volume(forward, image, cfg, DEVICE)
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
    found = predict_volume(forward, image, Config(img_size=(40, 48), batch_size=2), DEVICE)
    assert found.dtype == np.uint8
    assert (found != expected).mean() < 1e-3  # rounding at exact ties


def test_standard_volume_in_parts_of_the_memory_limit(monkeypatch):
    image, forward = volume((7, 50, 60)), forward_fn([Shapes()], DEVICE)
    whole = predict_volume(forward, image, Config(img_size=(32, 40), batch_size=7), DEVICE)
    for limit in (1, 2 * 5 * 50 * 60, 3 * 5 * 50 * 60 + 1):
        monkeypatch.setattr(inference, "MAX_LOGITS", limit)
        parts = predict_volume(forward, image, Config(img_size=(32, 40), batch_size=5), DEVICE)
        np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_a_volume_keeps_its_place(protocol):
    """A bright block comes back where it was, in slice, row and column; one class means a threshold."""
    image = np.zeros((4, 90, 120), np.float32)
    image[2, 20:50, 60:100] = 1
    found = predict_volume(lambda x: x * 8, image, Config(img_size=(45, 60), protocol=protocol), DEVICE)
    assert found.max() == 1
    wrong = found != (image > 0.5)
    assert not wrong[[0, 1, 3]].any()
    assert not wrong[2, 22:48, 62:98].any()
    assert wrong.sum() < 200  # the edge
