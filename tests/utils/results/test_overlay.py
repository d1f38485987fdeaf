"""Overlays: what is drawn where and in which colour, sizes, choice of slices, files."""

import cv2
import numpy as np
import pytest

from utils.inference.orientation import moves, turn
from utils.results.overlay import (
    PALETTE,
    WHITE,
    choose_slices,
    class_color,
    contact_sheet,
    overlay,
    save_overlay,
    to_rgb,
    upright,
)

GREY = np.full((40, 60), 0.5, np.float32)


def box(label: int, rows: slice, columns: slice, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = label
    return mask


NOTHING = np.zeros((40, 60), np.uint8)
LEFT, RIGHT = box(2, slice(10, 30), slice(5, 25)), box(2, slice(10, 30), slice(35, 55))


def has(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (picture == color).all(-1)


def test_prediction_is_coloured_and_truth_is_white():
    picture = overlay(GREY, LEFT, RIGHT, num_classes=3)
    assert (picture.shape, picture.dtype) == ((40 * 13, 60 * 13, 3), np.uint8)  # 13 x 40 >= 512
    half = picture.shape[1] // 2
    assert has(picture[:, :half], class_color(2)).any()
    assert not has(picture[:, half:], class_color(2)).any()
    assert has(picture[:, half:], WHITE).any()
    assert not has(picture[:, :half], WHITE).any()
    inside, outside, truth = (picture[20 * 13, x * 13] for x in (15, 30, 45))
    assert (outside == 128).all()
    assert (truth == 128).all()  # only the prediction's area is tinted
    assert (inside != 128).all()


def test_contours_run_along_the_edge_of_the_mask():
    picture = overlay(GREY, LEFT, NOTHING, num_classes=3)
    rows, columns = np.nonzero(has(picture, class_color(2)))
    edges = rows.min(), rows.max(), columns.min(), columns.max()
    assert np.abs(np.array(edges) - [10 * 13, 30 * 13, 5 * 13, 25 * 13]).max() <= 2


def test_holes_are_outlined():
    ring = box(1, slice(5, 35), slice(5, 55))
    ring[15:25, 20:40] = 0
    picture = overlay(GREY, ring, NOTHING, num_classes=2)
    assert has(picture[14 * 13 : 26 * 13, 18 * 13 : 42 * 13], class_color(1)).any()
    assert (picture[20 * 13, 30 * 13] == 128).all()


def test_boolean_masks_of_one_class_and_large_colour_images():
    image = np.full((600, 520, 3), 90, np.uint8)
    mask = np.zeros((600, 520), bool)
    mask[100:300, 100:300] = True
    picture = overlay(image, mask, mask, num_classes=1)
    assert picture.shape == image.shape
    assert has(picture, class_color(1)).any()
    assert (image == 90).all()  # the input is not drawn on


def test_empty_masks_leave_the_image_alone():
    assert (overlay(GREY, NOTHING, NOTHING, 3) == 128).all()


def test_legend_and_title_are_added_outside_of_the_image():
    bare = overlay(GREY, LEFT, RIGHT, 3)
    full = contact_sheet(GREY[None], LEFT[None], RIGHT[None], 3, ("liver", "spleen"))[:, : bare.shape[1]]
    top = next(i for i in range(len(full)) if np.array_equal(full[i], bare[0]))
    np.testing.assert_array_equal(full[top : top + len(bare)], bare)
    legend = full[top + len(bare) :]
    assert has(legend, class_color(2)).any()
    assert not has(legend, class_color(1)).any()  # liver is not in the picture
    assert has(full[:top], WHITE).any()


def test_a_long_legend_wraps():
    labels = np.arange(1, 13, dtype=np.uint8).reshape(3, 4).repeat(10, 0).repeat(10, 1)
    names = [f"a rather long name {i}" for i in range(12)]
    few = labels * (labels == 1)
    short, tall = (contact_sheet(np.zeros((1, 30, 40)), one[None], one[None], 13, names) for one in (few, labels))
    assert tall.shape[1] == short.shape[1]
    assert tall.shape[0] > short.shape[0]
    assert has(tall[-24:], class_color(12)).any()


def test_colours_differ():
    colors = [class_color(k) for k in range(1, 2 * len(PALETTE) + 1)]
    assert len(set(colors)) == len(colors)
    assert WHITE not in colors
    distances = np.linalg.norm(np.array(PALETTE)[:, None] - np.array(PALETTE)[None], axis=-1)
    assert distances[~np.eye(len(PALETTE), dtype=bool)].min() > 60


@pytest.mark.parametrize(
    ("filled", "wrong", "number", "expected"),
    [
        (range(3, 8), (), 5, [3, 4, 5, 6, 7]),
        (range(10), (), 4, [0, 3, 6, 9]),
        (range(10), (4,), 4, [0, 4, 6, 9]),  # the worst takes the place of its neighbour
        ((2,), (), 6, [2]),
        ((), (), 3, [0, 4, 9]),
    ],
)
def test_choice_of_slices(filled, wrong, number, expected):
    target = np.zeros((10, 4, 4), np.uint8)
    target[list(filled), 1] = 1
    prediction = target.copy()
    prediction[list(wrong), 1] = 2
    assert choose_slices(prediction, target, number) == expected


def test_contact_sheet_has_a_place_for_every_slice():
    target = np.zeros((7, 40, 60), np.uint8)
    target[1:6] = LEFT
    sheet = contact_sheet(np.zeros((7, 40, 60)), target, target, 3, ("a", "b"))
    height, width = 40 * 13 + 22 + 4, 60 * 13 + 4
    assert sheet.shape[1] == 3 * width
    assert sheet.shape[0] > 2 * height
    tiles = [sheet[r * height : (r + 1) * height, c * width : (c + 1) * width] for r in (0, 1) for c in (0, 1, 2)]
    assert [bool(has(t, class_color(2)).any()) for t in tiles] == [True] * 5 + [False]


def test_files_are_read_back_as_they_were(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "überlagert" / "case 1.png"
    save_overlay(path, picture)
    found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(found, picture)


def test_floats_outside_of_0_and_1_are_clipped():
    assert to_rgb(np.array([[-0.5, 0.5, 1.7]]))[0, :, 1].tolist() == [0, 128, 255]


# --- spacing and orientation --------------------------------------------------------------------------


def test_cuts_have_their_aspect_in_mm():
    """60 x 200 voxels of 7.7 x 1.25 mm: 462 x 250 mm."""
    label = np.zeros((1, 60, 200), np.uint8)
    label[0, 10:40, 50:100] = 1
    sheet = contact_sheet(np.full((1, 60, 200), 0.5), label, label, 2, ("a",), (3.0, 7.7, 1.25))
    rows, columns = np.nonzero(has(sheet[22:], class_color(1))[: sheet.shape[0] - 60])
    drawn = (rows.max() - rows.min()) / (columns.max() - columns.min())
    assert drawn == pytest.approx(30 * 7.7 / (50 * 1.25), rel=0.02)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (2.0, 7.7, 1.25), (1.0, 0.3, 9.0)])
@pytest.mark.parametrize("shape", [(8, 12, 512), (8, 512, 12), (8, 40, 512), (8, 3000, 2000), (2, 5, 5)])
def test_a_sheet_is_neither_vast_nor_tiny(shape, spacing):
    label = np.zeros(shape, np.uint8)
    label[:, shape[1] // 2 :, shape[2] // 2 :] = 1
    sheet = contact_sheet(np.zeros(shape, np.float32), label, label, 2, ("a",), spacing)
    assert 512 <= sheet.shape[1] <= 3 * (1024 + 4)
    assert sheet.shape[0] <= 2 * (1024 + 4 + 22) + 60
    assert has(sheet, class_color(1)).any()


def test_a_picture_that_is_very_long_is_not_enlarged_beyond_measure_nor_shrunk():
    thin = np.zeros((12, 3000), np.uint8)
    assert overlay(thin, thin, thin, 2).shape == (12, 3000, 3)
    assert overlay(thin[:, :200], thin[:, :200], None, 2).shape == (12 * 10, 200 * 10, 3)


@pytest.mark.parametrize("stored", ["SLP", "PIR", "IRP", "LIP"])
def test_volumes_stand_as_a_radiologist_sees_them(stored):
    upright_as = {"S": "SPL", "I": "IPL", "P": "PIL", "L": "LIP"}[stored[0]]
    image, mask = np.random.default_rng(0).random((3, 4, 5)), np.arange(60).reshape(3, 4, 5)
    spacing = (2.0, 3.0, 5.0)
    order = moves(upright_as, stored)[0] or range(3)
    laid = [None if array is None else turn(array, upright_as, stored) for array in (image, mask, None)]
    *seen, found = upright(stored, tuple(spacing[axis] for axis in order), *laid)
    np.testing.assert_array_equal(seen[0], image)
    np.testing.assert_array_equal(seen[1], mask)
    assert seen[2] is None
    assert found == spacing
    assert upright("", None, image)[0] is image
