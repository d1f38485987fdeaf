"""Volumes in every orientation: SimpleITK is the oracle, and every mask comes back voxel by voxel."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from datasets.files.image import Image, read_image
from datasets.phantom.generate import draw_case
from datasets.phantom.organs import CLASS_NAMES
from recipes import RECIPES
from tests.datasets.files.test_itk import write_itk
from utils.inference.orientation import moves, turn
from utils.preprocess import ORIENTATIONS, SLICES, Preprocess

RNG = np.random.default_rng(0)
ARRAY = RNG.integers(-1000, 1500, (4, 6, 9), dtype=np.int16)
EVERY = ORIENTATIONS[1:]
SPACING = (2.5, 0.75, 0.5)


def meta_of(orientation: str) -> dict:
    """What a file says whose array has this orientation: x is the last letter, and grows towards it."""
    columns = np.zeros((3, 3))
    for x, letter in enumerate(orientation[::-1]):
        axis = next(k for k, ends in enumerate(("RL", "AP", "IS")) if letter in ends)
        columns[axis, x] = 1 if letter in "LPS" else -1
    return {"origin": (0.0, 0.0, 0.0), "direction": tuple(columns.ravel()), "dimension": 3, "oriented": True}


def orientation_of(meta: dict) -> str:
    return Image(ARRAY, None, "volume", Path("a.nii"), meta).orientation


def test_there_are_48_orientations():
    assert len(set(EVERY)) == 48
    assert all(orientation_of(meta_of(name)) == name for name in EVERY)


@pytest.mark.parametrize("stored", ["SPL", "SPR", "LIA", "PSR", "IAL"])
def test_every_orientation_is_that_of_simpleitk(stored):
    import SimpleITK as sitk

    file = sitk.GetImageFromArray(ARRAY)
    file.SetDirection(meta_of(stored)["direction"])
    file.SetSpacing(SPACING[::-1])
    for wanted in EVERY:
        # DICOMOrient names the direction that x, y and z grow to; ours is z, y, x
        turned = sitk.DICOMOrient(file, wanted[::-1])
        found = turn(ARRAY, orientation_of(meta_of(stored)), wanted)
        assert np.array_equal(found, sitk.GetArrayFromImage(turned))
        assert tuple(SPACING[axis] for axis in moves(stored, wanted)[0] or range(3)) == turned.GetSpacing()[::-1]
        assert np.array_equal(turn(found, wanted, stored), ARRAY)
        classes = np.stack([found, found + 1])
        assert np.array_equal(turn(classes, wanted, stored), np.stack([ARRAY, ARRAY + 1]))


def test_an_oblique_volume_takes_the_nearest_axes():
    for degrees, expected in ((-40, "SPL"), (40, "SPL"), (50, "SLA"), (140, "SAR")):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        assert orientation_of({"direction": (c, s, 0, -s, c, 0, 0, 0, 1)}) == expected


@pytest.mark.parametrize("meta", [{}, {"direction": (1, 0, 0, 1)}, meta_of("SPL") | {"oriented": False}])
def test_without_geometry_a_volume_is_left_as_stored(meta):
    assert turn(ARRAY, orientation_of(meta), "LIA") is ARRAY
    assert turn(ARRAY, "LIA", orientation_of(meta)) is ARRAY


def test_nothing_moves_where_the_training_data_have_no_orientation():
    assert turn(ARRAY, "LIA", "") is ARRAY
    assert turn(ARRAY, "LIA", "LIA") is ARRAY


def test_a_nifti_file_that_denies_its_geometry(tmp_path):
    path = write_itk(tmp_path / "a.nii", ARRAY)
    assert read_image(path).meta["oriented"]
    data = bytearray(path.read_bytes())
    data[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(data)
    assert read_image(path).orientation == ""


def test_a_nrrd_file_that_names_no_space(tmp_path):
    path = write_itk(tmp_path / "a.nrrd", ARRAY)
    assert read_image(path).orientation == "SLA"
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 9 6 4\nspacings: 1 1 2\nencoding: raw\nendian: little\n\n"
    path.write_bytes(header + ARRAY.astype("<i2").tobytes())
    image = read_image(path)
    assert np.array_equal(image.array, ARRAY)
    assert (image.spacing, image.orientation) == ((2, 1, 1), "")


def test_what_is_no_orientation_is_refused():
    for wrong in ("SPI", "SP", "spl", "XYZ", "SPLL"):
        with pytest.raises(ValueError, match="orientation to be one of"):
            Preprocess.from_dict(dataclasses.asdict(SLICES) | {"orientation": wrong})


def test_the_phantom_lies_as_its_recipe_says():
    """Liver on the right, spleen on the left, kidneys to the back, the lung bases at the upper end."""
    assert RECIPES["phantom"].preprocess.orientation == "SPL"
    case = draw_case("case", (1,), 48, 16)
    middle = {name: np.argwhere(case.label == k).mean(0) for k, name in enumerate(CLASS_NAMES, 1)}
    assert middle["liver"][2] < middle["stomach"][2] < middle["spleen"][2]
    assert middle["left kidney"][1] > middle["pancreas"][1]
    assert middle["spleen"][0] > middle["left kidney"][0]
