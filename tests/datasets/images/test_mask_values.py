"""Telling masks of several classes from binary masks with noise, soft edges or a grey background."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.images.mask_values import foreground_areas, guess_classes, share_of_shades

PNG, JPG = Path("a.png"), Path("a.jpg")
RNG = np.random.default_rng(0)


def rings(*values: int, size: int = 60) -> np.ndarray:
    """Discs, each within the one before, on a background of 0."""
    mask = np.zeros((size, size), np.uint8)
    for k, value in enumerate(values):
        cv2.circle(mask, (size // 2, size // 2), size // 2 - 2 - k * size // (2 * len(values)), value, -1)
    return mask


def as_jpeg(mask: np.ndarray, quality: int = 90) -> np.ndarray:
    data = cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def coloured(*colours: tuple[int, int, int]) -> np.ndarray:
    table = np.array([(0, 0, 0), *colours], np.uint8)
    return table[rings(*range(1, len(colours) + 1))]


@pytest.mark.parametrize(
    "mask",
    [
        rings(),
        rings(255),
        rings(1),
        rings(128),
        np.where(rings(255) > 0, 255, RNG.integers(5, 16, (60, 60))).astype(np.uint8),
        np.where(rings(255) > 0, 255, rings(10, 5)).astype(np.uint8),
        rings(10),
        cv2.resize(rings(255), (45, 37), interpolation=cv2.INTER_AREA),
        cv2.resize(rings(255), (300, 280), interpolation=cv2.INTER_LINEAR),
        cv2.resize(rings(255, size=600), (300, 300), interpolation=cv2.INTER_AREA),
        cv2.GaussianBlur(rings(255), (0, 0), 3),
        rings(255).astype(np.uint16) * 257,
        rings(1).astype(np.uint16),
        rings(255) > 0,
        (rings(255) / 255).astype(np.float32),
        as_jpeg(rings(255), 20),
        as_jpeg(rings(255), 90),
        coloured((255, 0, 0)),
        coloured((200, 0, 0)),
        as_jpeg(coloured((255, 0, 0))),
    ],
)
def test_binary_masks_have_one_foreground(mask):
    assert len(foreground_areas(mask, PNG)) <= 1


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (rings(85, 170, 255), {85, 170, 255}),
        (rings(128, 255), {128, 255}),
        (rings(1, 2, 3), {1, 2, 3}),
        (rings(1, 2, 255), {1, 2, 255}),
        (rings(85, 255).astype(np.uint16) * 257, {85 * 257, 255}),
        (rings(85, 170)[..., None].repeat(3, 2), {85, 170}),
        (coloured((255, 0, 0), (0, 255, 0)), {"#ff0000", "#00ff00"}),
        (coloured((128, 0, 0), (255, 255, 255)), {"#800000", "#ffffff"}),
    ],
)
def test_classes_are_areas_of_several_values(mask, expected):
    assert foreground_areas(mask, PNG) == expected


def test_classes_stored_as_jpeg_are_found_and_its_noise_is_not():
    assert len(foreground_areas(as_jpeg(rings(85, 170, 255, size=200)), JPG)) == 3
    assert len(foreground_areas(as_jpeg(coloured((255, 0, 0), (0, 255, 0)), 95), JPG)) == 2
    for quality in (10, 30, 60, 95):
        assert foreground_areas(as_jpeg(rings(255, size=200), quality), JPG) == {255}


def write(folder: Path, *masks: np.ndarray) -> list[Path]:
    paths = [folder / f"{k}.png" for k in range(len(masks))]
    for path, mask in zip(paths, masks):
        cv2.imwrite(str(path), mask[..., ::-1] if mask.ndim == 3 else mask)
    return paths


def test_a_guess_names_every_value_of_the_set(tmp_path):
    guess = guess_classes(write(tmp_path, rings(85), rings(255), rings(170, 85), rings()))
    assert (guess.kind, guess.table.values, guess.table.names[:2]) == (
        "greys",
        (0, 85, 170, 255),
        ("background", "class 1"),
    )
    assert guess.words == "values 85 in 2, 170 in 1, 255 in 1 of 4 masks"
    guess = guess_classes(write(tmp_path, rings(1), rings(3, 2)))
    assert (guess.kind, guess.table.values) == ("labels", (0, 1, 2, 3))
    colours = coloured((255, 0, 0), (0, 255, 0))
    guess = guess_classes(write(tmp_path, colours, rings(), rings(255)))
    assert (guess.kind, guess.table.values) == ("colours", ("#000000", "#00ff00", "#ff0000", "#ffffff"))
    colours = np.pad(colours, ((40, 40), (40, 40), (0, 0)))
    white = np.where(colours.any(-1, keepdims=True), colours, 255).astype(np.uint8)
    assert guess_classes(write(tmp_path, white)).table.values == ("#ffffff", "#00ff00", "#ff0000")
    picture = Image.fromarray(rings(1, 2))
    picture.putpalette(bytes((0, 0, 0, 200, 0, 0, 0, 200, 0)))
    picture.save(tmp_path / "0.png")
    guess = guess_classes([tmp_path / "0.png"])
    assert (guess.kind, guess.table.values) == ("palette", (0, 1, 2))


def test_many_labels_in_every_mask_are_labels_where_no_mask_has_white(tmp_path):
    masks = [rings(*range(12, 0, -1), size=200), rings(5, 6, 7, 8, 9, 10)]
    guess = guess_classes(write(tmp_path, *masks))
    assert (guess.kind, guess.table.values) == ("labels", tuple(range(13)))
    assert guess.words.startswith("values 1 in 1, 2 in 1, 3 in 1, 4 in 1, 5 in 2,")
    assert guess_classes(write(tmp_path, *masks, rings(255))).kind == "binary"
    noise = RNG.integers(5, 16, (60, 60)).astype(np.uint8)
    assert guess_classes(write(tmp_path, noise)).table is None


def test_a_guess_without_a_table(tmp_path):
    for masks in ((rings(255), rings()), (rings(1), rings(255)), (rings(128), rings())):
        guess = guess_classes(write(tmp_path, *masks))
        assert (guess.kind, guess.table) == ("binary", None)
    shades = cv2.GaussianBlur(rings(120, 255, size=200), (0, 0), 4)
    guess = guess_classes(write(tmp_path, shades))
    assert (guess.kind, guess.table) == ("unclear", None)


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        (rings(100), (0, 100)),
        (rings(127), (0, 127)),
        (rings(2), (0, 2)),
        (rings(12), (0, 12)),
        (rings(255).astype(np.uint16), (0, 255)),
        (coloured((100, 0, 0)), ("#000000", "#640000")),
    ],
)
def test_one_value_up_to_half_the_range_is_a_class(tmp_path, mask, values):
    assert guess_classes(write(tmp_path, mask, mask * 0)).table.values == values


@pytest.mark.parametrize(
    "mask", [rings(), cv2.GaussianBlur(rings(100), (0, 0), 2), np.tile(np.arange(80) % 90, (60, 1))]
)
def test_masks_without_foreground_that_no_table_describes_are_unclear(tmp_path, mask):
    guess = guess_classes(write(tmp_path, mask.astype(np.uint8)))
    assert (guess.kind, guess.table) == ("unclear", None)


def test_the_words_name_the_values_that_are_stored(tmp_path):
    guess = guess_classes(write(tmp_path, rings(1), rings(1), rings(3, 1), rings(3)))
    assert (guess.table.values, guess.words) == ((0, 1, 3), "values 1 in 3, 3 in 2 of 4 masks")
    assert guess_classes(write(tmp_path, rings(90, 240))).words == "values 90 in 1, 240 in 1 of 1 mask"
    deep = rings(90, 255).astype(np.uint16) * 257
    assert guess_classes(write(tmp_path, deep)).words == "values 23130 in 1, 65535 in 1 of 1 mask"
    colours = write(tmp_path, coloured((255, 0, 0), (0, 250, 0)))
    assert guess_classes(colours).words == "values #00fa00 in 1, #ff0000 in 1 of 1 mask"


@pytest.mark.parametrize("others", [[], [rings(85, 170, size=200)]])
@pytest.mark.parametrize("mask", [rings(85, 170, size=200), coloured((255, 0, 0), (0, 255, 0))])
def test_several_classes_in_jpeg_are_unclear_whatever_the_number_of_values(tmp_path, mask, others):
    cv2.imwrite(str(tmp_path / "a.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 100])
    guess = guess_classes([tmp_path / "a.jpg", *write(tmp_path, *others)])
    assert (guess.kind, guess.table) == ("unclear", None)
    assert "JPEG changes values: export the masks as PNG" in guess.words


def test_an_empty_mask_in_jpeg_hinders_no_classes(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), rings())
    assert guess_classes([tmp_path / "a.jpg", *write(tmp_path, rings(85, 170))]).table.values == (0, 85, 170)


def test_one_class_in_jpeg_is_binary(tmp_path):
    for quality in (60, 95):
        cv2.imwrite(str(tmp_path / "a.jpg"), rings(255, size=200), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert guess_classes([tmp_path / "a.jpg", *write(tmp_path, rings(255), rings())]).kind == "binary"


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (rings(255, size=200), 0.0),
        (rings(128, size=200), 0.0),
        (as_jpeg(rings(255, size=200), 40), 0.1),
        (as_jpeg(rings(200, size=200), 40), 0.1),
        (np.where(rings(255) > 0, 255, RNG.integers(5, 16, (60, 60))).astype(np.uint8), 0.0),
        (rings(255) > 0, 0.0),
    ],
)
def test_masks_have_few_shades(mask, expected):
    assert share_of_shades(mask, JPG) <= expected


@pytest.mark.parametrize("scale", [1, 257, 1 / 255])
def test_photographs_are_made_of_shades(scale):
    photo = cv2.resize(RNG.integers(0, 256, (5, 7, 3), np.uint8), (90, 60), interpolation=cv2.INTER_CUBIC)
    dtype = {1: np.uint8, 257: np.uint16}.get(scale, np.float32)
    for picture in (photo, photo[..., 0]):
        assert share_of_shades((picture * float(scale)).astype(dtype), PNG) > 0.3
