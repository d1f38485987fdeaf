"""What a network sees: SciPy and OpenCV as oracles; training and prediction alike; intensities not guessed."""

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from datasets.images.pairs import ImageMaskSet, Pair
from datasets.volumes.sets import SynapseSlices
from utils.config import Config
from utils.errors import UserError
from utils.inference.segment import segment
from utils.log import log_once, logging_to
from utils.preprocess import PICTURES, SLICES, Preprocess
from utils.preprocess.intensities import as_trained, choose_intensity, normalise, to_unit
from utils.preprocess.sizes import nearest_index, network_input, resize_image, resize_labels, spline_matrix

CPU = torch.device("cpu")
CT = dataclasses.replace(SLICES, intensity="ct")
STRETCHED = dataclasses.replace(SLICES, intensity="percentile")


@pytest.mark.parametrize("sizes", [(224, 512), (512, 224), (7, 5), (5, 7), (224, 260), (49, 50), (1, 3)])
def test_spline_grid_is_scipys(sizes):
    source, target = sizes
    labels = np.random.default_rng(0).integers(0, 9, (2, source, 11), dtype=np.uint8)
    expected = np.stack([zoom(s, (target / source, 23 / 11), order=0) for s in labels])
    np.testing.assert_array_equal(resize_labels(labels, (target, 23), SLICES), expected)
    image = np.random.default_rng(0).random(source)
    if source > 1:
        np.testing.assert_allclose(spline_matrix(*sizes) @ image, zoom(image, target / source, order=3), atol=1e-5)
    assert nearest_index(*sizes, "spline").shape == (target,)


@pytest.mark.parametrize("size", [(25, 35), (64, 96), (64, 30), (17, 70), (50, 70)])
def test_area_grid_is_opencvs(size):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), rng.random((50, 70)) > 0.5
    shrinks = size[0] <= 50 and size[1] <= 70
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    np.testing.assert_array_equal(resize_image(image, size, PICTURES), cv2.resize(image, size[::-1], interpolation=way))
    nearest = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(resize_labels(mask, size, PICTURES), nearest.astype(bool))


def test_normalise():
    images = torch.rand(2, 3, 4, 5)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(normalise(images, PICTURES), (images - mean[:, None, None]) / std[:, None, None])
    assert normalise(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1), SLICES).flatten().tolist() == [-1, 0, 1]
    with pytest.raises(ValueError, match="zip"):
        normalise(images[:, :1], PICTURES)  # one channel is not RGB: it would be normalised as red


def test_slices_resized_on_the_device_and_by_scipy_agree():
    images = np.random.default_rng(0).random((3, 50, 61), dtype=np.float32)
    by_scipy = [resize_image(image, (32, 40), SLICES) for image in images]
    fast, slow = (network_input(batch, (32, 40), SLICES, CPU) for batch in (images, by_scipy))
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)


# --- training and prediction see an image alike -------------------------------------------------


class Recorder:
    """Stands for a network: remembers what it sees."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(batch.clone())
        return torch.zeros(len(batch), 1, *batch.shape[2:])


def predicted(array, pre, volume, intensity="auto"):
    """What the network sees when predict.py segments `array` at 40x48."""
    cfg = Config(preprocess=pre, img_size=(40, 48), num_classes=1, intensity=intensity)
    forward = Recorder()
    segment(SimpleNamespace(cfg=cfg, forward=forward, device=CPU), array, volume, "file")
    return torch.cat(forward.seen)


def trained_slices(tmp_path, volume):
    """What it sees in training on the slices of `volume`, values in [0, 1]."""
    for i, image in enumerate(volume):
        np.savez(tmp_path / f"case_slice{i}.npz", image=image, label=np.zeros(image.shape, np.uint8))
    slices = SynapseSlices(tmp_path, [f"case_slice{i}" for i in range(len(volume))], (40, 48))
    return normalise(torch.stack([image for image, _ in slices]), SLICES)


def trained_pictures(tmp_path, pictures):
    """What it sees in training on 8-bit RGB pictures."""
    pairs = []
    for i, picture in enumerate(pictures):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), picture[..., ::-1])
        cv2.imwrite(str(tmp_path / f"mask{i}.png"), np.zeros(picture.shape[:2], np.uint8))
        pairs.append(Pair(path.name, path, tmp_path / f"mask{i}.png"))
    images = torch.stack([image for image, _ in ImageMaskSet(pairs, (40, 48))])
    return normalise(images / 255, PICTURES)


def test_a_volume_through_a_network_of_slices(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 900, (3, 70, 61), dtype=np.int16)
    seen = predicted(hu, CT, volume=True)
    torch.testing.assert_close(seen, trained_slices(tmp_path, to_unit(hu, "ct", "")), atol=1e-4, rtol=1e-4)


def test_a_picture_through_a_network_of_slices(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (70, 61), dtype=np.uint8)
    expected = trained_slices(tmp_path, picture[None] / np.float32(255))
    torch.testing.assert_close(predicted(picture, CT, volume=False), expected, atol=1e-4, rtol=1e-4)


def test_a_volume_through_a_network_of_pictures(tmp_path):
    """Three channels, each normalised by its own figures, and areas averaged, as in training on its slices."""
    hu = np.random.default_rng(0).integers(-1000, 900, (3, 70, 61), dtype=np.int16)
    levels = np.rint(to_unit(hu, "ct", "") * 255).astype(np.uint8)
    expected = trained_pictures(tmp_path, np.repeat(levels[..., None], 3, axis=-1))
    seen = predicted(hu, PICTURES, volume=True, intensity="ct")
    torch.testing.assert_close(seen, expected)
    assert seen[:, 0].mean() != seen[:, 1].mean()


@pytest.mark.parametrize("shape", [(70, 61, 3), (30, 30, 3), (70, 61)])
def test_a_picture_through_a_network_of_pictures(tmp_path, shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
    torch.testing.assert_close(predicted(picture, PICTURES, volume=False), trained_pictures(tmp_path, [rgb]))


# --- intensities ----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
HU = RNG.integers(-1024, 900, (4, 5, 5), dtype=np.int16)
MR = RNG.integers(0, 1800, (4, 5, 5), dtype=np.int16)


@pytest.mark.parametrize(
    ("array", "pre", "expected"),
    [
        (HU, CT, "ct"),
        (HU.astype(np.float32), CT, "ct"),
        (MR, CT, "which shows air below -500 HU"),
        (MR, SLICES, "does not tell how such values become"),
        (HU, SLICES, "does not tell how such values become"),
        (HU, PICTURES, "does not tell how such values become"),
        (MR, STRETCHED, "percentile"),
        (MR.astype(np.uint16), SLICES, "does not tell how such values become"),
        (MR.astype(np.uint16), PICTURES, "range"),
        (MR[0].astype(np.uint8), CT, "range"),
        (MR.astype(np.uint8), CT, "which shows air below -500 HU"),
        (RNG.integers(0, 255, (4, 5, 3), np.uint8), CT, "range"),
        (RNG.random((4, 5)), CT, "unit"),
        (RNG.random((2, 4, 5)), CT, "unit"),
        (MR.astype(np.uint8), STRETCHED, "percentile"),
        (RNG.random((2, 4, 5)), STRETCHED, "percentile"),
        (np.ones((2, 4, 5), bool), STRETCHED, "percentile"),
        (np.ones((4, 5), bool), PICTURES, "unit"),
    ],
)
def test_auto_takes_what_training_took_and_asks_where_it_would_guess(array, pre, expected):
    if " " not in expected:
        assert choose_intensity(array, "auto", pre, "scan.nii.gz") == expected
        return
    with pytest.raises(UserError, match=rf"scan\.nii\.gz: .*{expected}.*--intensity what they are: ct, range"):
        choose_intensity(array, "auto", pre, "scan.nii.gz")
    assert choose_intensity(array, "percentile", pre, "scan.nii.gz") == "percentile"


@pytest.mark.parametrize(
    ("array", "pre", "said"),
    [
        (RNG.random((2, 4, 5)), CT, "warning: u.nii: found float64 values from "),
        (MR[0].astype(np.uint8), CT, ", which are taken as HU clipped to -125..275"),
        (RNG.random((4, 5)), STRETCHED, "warning: u.nii: one slice is stretched by its own percentiles"),
        (MR[:1], STRETCHED, "warning: u.nii: one slice is stretched by its own percentiles"),
        (RNG.random((2, 4, 5)), STRETCHED, ""),
        (RNG.random((4, 5)), dataclasses.replace(PICTURES, intensity="percentile"), ""),
        (HU, CT, ""),
        (
            MR[0].astype(np.uint16),
            PICTURES,
            ", which are dark as fractions of the type's largest; say with --intensity",
        ),
        ((MR[0] * 30).astype(np.uint16), PICTURES, ""),
    ],
)
def test_auto_says_where_its_choice_may_be_wrong(tmp_path, array, pre, said):
    log_once.cache_clear()
    with logging_to(tmp_path / "log.txt"):
        choose_intensity(array, "auto", pre, "u.nii")
    logged = (tmp_path / "log.txt").read_text("utf-8")
    assert said in logged if said else not logged


def test_units():
    assert to_unit(np.array([-2000, -125, 75, 275, 3000], np.int16), "ct", "").tolist() == [0, 0, 0.5, 1, 1]
    assert to_unit(np.array([0, 65535], np.uint16), "range", "").tolist() == [0, 1]
    stretched = to_unit(np.arange(1001.0), "percentile", "")
    assert (stretched[5], stretched[500], stretched[995]) == (0, 0.5, 1)
    assert to_unit(np.array([False, True]), "percentile", "").tolist() == [0, 1]
    for array, intensity, message in (
        (np.array([0.0, 2]), "unit", r"x: --intensity unit: found values 0 to 2"),
        (np.array([0.0, 2]), "range", r"x: --intensity range needs integers"),
        (np.array([0, 255]), "range", r"x: --intensity range needs integers of 8 or 16 bits, found int64"),
    ):
        with pytest.raises(UserError, match=message):
            to_unit(array, intensity, "x")


def test_a_colour_picture_for_one_channel_is_its_luminance():
    colour = np.random.default_rng(0).random((4, 5, 3), dtype=np.float32)
    np.testing.assert_allclose(as_trained(colour, SLICES, True), cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), atol=1e-6)


def test_json_gives_the_same_value_back():
    values = dataclasses.asdict(PICTURES)
    assert Preprocess.from_dict({k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}) == PICTURES
