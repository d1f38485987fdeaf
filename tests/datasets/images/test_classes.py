"""classes.json: the table, what is refused, and masks of every kind that hold the same labels."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.images.classes import (
    ClassTable,
    find_classes,
    parse_label_colours,
    read_classes,
    read_mask,
)
from utils.errors import UserError

NAMES = ("background", "ring", "core")
GREYS = ClassTable(NAMES, (0, 85, 255))
INDICES = ClassTable(NAMES, (0, 1, 2))
COLOURS = ClassTable(NAMES, ("#000000", "#ff8000", "#0000ff"))
LABELS = np.random.default_rng(0).integers(0, 3, (7, 9)).astype(np.uint8)
RGB = np.array([(0, 0, 0), (255, 128, 0), (0, 0, 255)], np.uint8)


def write_palette(path, labels, colours=RGB):
    picture = Image.fromarray(labels)
    picture.putpalette(colours.tobytes())
    picture.save(path)
    return path


def write(path, array):
    cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)
    return path


def test_greys_palettes_and_colours_give_the_same_labels(tmp_path):
    greys = np.array(GREYS.values, np.uint8)[LABELS]
    files = [
        (write(tmp_path / "grey.png", greys), GREYS),
        (write(tmp_path / "grey_as_rgb.png", greys[..., None].repeat(3, 2)), GREYS),
        (write(tmp_path / "deep.png", LABELS.astype(np.uint16)), INDICES),
        (write(tmp_path / "labels.tif", LABELS), INDICES),
        (write(tmp_path / "colours.png", RGB[LABELS]), COLOURS),
        (write_palette(tmp_path / "palette.png", LABELS), INDICES),
        (write_palette(tmp_path / "palette_as_colours.png", LABELS), COLOURS),
        (write_palette(tmp_path / "palette.bmp", LABELS), INDICES),
    ]
    for path, table in files:
        labels = read_mask(path, table)
        assert (labels.dtype, labels.tolist()) == (np.uint8, LABELS.tolist()), path


def test_an_unsorted_table_gives_the_classes_in_its_own_order(tmp_path):
    path = write(tmp_path / "a.png", np.array([[7, 3, 200]], np.uint8))
    assert read_mask(path, ClassTable(NAMES, (200, 7, 3))).tolist() == [[1, 2, 0]]


def test_two_classes_are_a_binary_mask(tmp_path):
    table = ClassTable(("background", "lesion"), (255, 0))
    path = write(tmp_path / "a.png", np.array([[0, 255]], np.uint8))
    assert table.num_classes == 1
    assert read_mask(path, table).tolist() == [[True, False]]
    assert read_mask(path, None).tolist() == [[False, True]]
    assert GREYS.num_classes == 3


@pytest.mark.parametrize(
    ("mask", "table", "found"),
    [
        (np.array([[0, 84, 84, 255]], np.uint8), GREYS, r"84 \(2 pixels\).*add them there"),
        (np.array([[0, 256]], np.uint16), GREYS, r"256 \(1 pixel\)"),
        (np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8), COLOURS, r"#ff0000 \(1 pixel\)"),
        (np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8), GREYS, r"colours .*#ff0000 \(1 pixel\).*expected the numbers"),
        (np.array([[0, 9]], np.uint16), COLOURS, "found a mask of uint16, expected colours of 8 bits"),
    ],
)  # fmt: skip
def test_values_that_the_table_lacks_are_refused_with_their_pixels(tmp_path, mask, table, found):
    path = write(tmp_path / "a.png", mask)
    with pytest.raises(UserError, match=rf"a\.png: .*{found}"):
        read_mask(path, table)


def test_noise_of_a_jpeg_is_refused_with_the_remedy(tmp_path):
    path = write(tmp_path / "a.jpg", np.array(GREYS.values, np.uint8)[LABELS.repeat(5, 0)])
    with pytest.raises(UserError, match="JPEG changes values: export the masks as PNG"):
        read_mask(path, GREYS)


def test_several_classes_in_a_jpeg_are_refused_even_where_the_table_has_every_value(tmp_path):
    blocks = np.kron(LABELS, np.ones((16, 16), np.uint8)) * 85
    path = write(tmp_path / "a.jpg", blocks)
    levels = np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).tolist()
    table = ClassTable(tuple(map(str, levels)), tuple(levels))
    with pytest.raises(UserError, match=r"a\.jpg: .*JPEG changes values: export the masks as PNG"):
        read_mask(path, table)
    assert not read_mask(write(tmp_path / "b.jpg", blocks * 0), GREYS).any()


@pytest.mark.parametrize("table", [None, GREYS])
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_whose_shape_is_in_its_alpha_channel_is_refused(tmp_path, table, level, suffix):
    path = tmp_path / f"a{suffix}"
    alpha = (LABELS > 0).astype(np.uint8) * 255
    cv2.imwrite(str(path), np.dstack([np.full((7, 9, 3), level, np.uint8), alpha]))
    with pytest.raises(UserError, match=rf"a\{suffix}: found the shape in the alpha channel alone.*export"):
        read_mask(path, table)
    cv2.imwrite(str(path), np.dstack([np.repeat(alpha[..., None], 3, axis=2), alpha]))
    assert np.array_equal(read_mask(path, table) > 0, alpha > 0)
    cv2.imwrite(str(path), np.full((7, 9, 4), 255, np.uint8))
    assert read_mask(path, table).all()


def test_a_table_survives_its_file(tmp_path):
    assert find_classes(tmp_path) is None
    for table in (GREYS, COLOURS):
        (tmp_path / "classes.json").write_text(table.to_json())
        assert find_classes(tmp_path) == table
    assert json.loads((tmp_path / "classes.json").read_text())["classes"][1] == {"name": "ring", "value": "#ff8000"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no list of classes"),
        ('{"classes": {}}', "no list of classes"),
        ('{"classes": [1, 2]}', "no list of classes"),
        ('{"classes": [{"name": "a", "value": 0}]}', "1 classes, expected 2 to 255"),
        ('{"classes": [{"name": "a", "value": 0}, {"value": 1}]}', "the name None"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b"}]}', "the value None of b"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b", "value": -1}]}', "the value -1 of b"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b", "value": true}]}', "the value True of b"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b", "value": 1.5}]}', "the value 1.5 of b"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b", "value": "red"}]}', "the value 'red' of b"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b", "value": "#ff0000"}]}', "numbers and colours mixed"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b", "value": 0}]}', "0 twice"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": " a", "value": 1}]}', "a twice"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b\\u001b[1m", "value": 1}]}', "printable"),
        ('{"classes": [{"name": "a", "value": 0}, {"name": "b,c", "value": 1}]}', "without commas"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, found):
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=f"(?s)classes.json: .*{found}"):
        read_classes(path)


def test_label_colours_as_words_or_file(tmp_path):
    assert parse_label_colours("background:#000000,ring:#FF8000, core:#0000ff") == COLOURS
    path = tmp_path / "colours.json"
    path.write_text(json.dumps(dict(zip(COLOURS.names, COLOURS.values))))
    assert parse_label_colours(str(path)) == COLOURS
    path.write_text(COLOURS.to_json())
    assert parse_label_colours(str(path)) == COLOURS
    for wrong in ("ring", "ring:#ff0000", "background:#000000,ring:red"):
        with pytest.raises(UserError, match=f"--label_colours {wrong}: found"):
            parse_label_colours(wrong)
