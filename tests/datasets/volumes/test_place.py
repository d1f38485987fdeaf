"""Where slices and volumes lie in the patient: what is read of their files, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from datasets.files.image import read_image, save_mask
from datasets.volumes.sets import SliceVolumes, SynapseSlices, SynapseVolumes
from tests.support.synapse_tree import random_image, random_label, write_slices, write_volume
from utils.errors import UserError

SPACING = (3.0, 0.7, 0.9)
# an SLP volume: slices to the top (+z), rows to the left (+x), columns to the back (+y)
AFFINE = np.array([[0, 0.7, 0, -50], [0, 0, 0.9, 20], [3, 0, 0, 700], [0, 0, 0, 1]])
PLACE = {"spacing": SPACING, "affine": AFFINE, "orientation": "SLP"}
NAMES = [f"case0005_slice{number:03d}" for number in range(4)]
MIRRORED = AFFINE * (1, -1, 1, 1)


def slice_place(number: int, **more) -> dict:
    affine = AFFINE.copy()
    affine[:3, 3] += number * AFFINE[:3, 0]
    return PLACE | {"affine": affine} | more


def write_placed(root: Path, places: dict[str, dict]) -> Path:
    folder = write_slices(root, list(places))
    for seed, (name, place) in enumerate(places.items()):
        np.savez(folder / name, image=random_image(seed, (24, 20)), label=random_label(seed, (24, 20)), **place)
    return folder


def volume_with(path: Path, **attributes) -> Path:
    write_volume(path, 0)
    with h5py.File(path, "a") as file:
        file.attrs.update(attributes)
    return path


def test_a_volume_knows_its_place(tmp_path):
    volume_with(tmp_path / "a.h5", **PLACE)
    (volume,) = SynapseVolumes(tmp_path, ["a"])
    assert (volume.spacing, volume.orientation) == (SPACING, "SLP")
    np.testing.assert_array_equal(volume.affine, AFFINE)


def test_an_orientation_may_be_bytes_and_means_nothing_alone(tmp_path):
    volume_with(tmp_path / "a.h5", **PLACE | {"orientation": np.bytes_(b"SLP")})
    assert SynapseVolumes(tmp_path, ["a"])[0].orientation == "SLP"
    write_volume(tmp_path / "b.h5", 0)
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["orientation"] = "whatever"
    assert SynapseVolumes(tmp_path, ["b"])[0].orientation == ""
    assert read_image(tmp_path / "b.h5").orientation == ""


def test_slices_of_others_may_have_a_spacing_of_their_own(tmp_path):
    folder = write_placed(tmp_path, {name: {"spacing": (0.7, 0.9)} for name in NAMES})
    assert SliceVolumes(folder, NAMES)[0].spacing is None


def test_the_slices_of_a_case_know_its_place_and_training_does_not_ask(tmp_path):
    folder = write_placed(tmp_path, {name: slice_place(number) for number, name in enumerate(NAMES)})
    (volume,) = SliceVolumes(folder, NAMES[::-1])
    assert (volume.spacing, volume.orientation) == (SPACING, "SLP")
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert len(SynapseSlices(folder, NAMES, (24, 20))[0]) == 2
    (later,) = SliceVolumes(folder, NAMES[2:])
    np.testing.assert_array_equal(later.affine, slice_place(2)["affine"])


def test_slices_without_keys_have_no_place(tmp_path):
    (volume,) = SliceVolumes(write_slices(tmp_path, NAMES), NAMES)
    assert (volume.spacing, volume.affine, volume.orientation) == (None, None, "")


def test_slices_with_gaps_have_no_spacing_and_no_place(tmp_path):
    folder = write_placed(tmp_path, {name: slice_place(number) for number, name in enumerate(NAMES)})
    (volume,) = SliceVolumes(folder, [NAMES[0], NAMES[1], NAMES[3]])
    assert (len(volume.image), volume.spacing, volume.affine, volume.orientation) == (3, None, None, "")


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        ({"spacing": (5.0, 0.7, 0.9), "affine": AFFINE * [[5 / 3, 1, 1, 1]]}, r"\(5\.0, 0\.7, 0\.9\)"),
        ({"orientation": "SRP", "affine": MIRRORED}, "SRP"),
        ({"spacing": SPACING, "affine": None, "orientation": None}, "no orientation"),
    ],
)
def test_slices_of_a_case_that_contradict_each_other_are_refused(tmp_path, odd, found):
    places = {name: slice_place(number) for number, name in enumerate(NAMES)}
    places[NAMES[2]] = {key: value for key, value in (PLACE | odd).items() if value is not None}
    with pytest.raises(UserError, match=rf"slices of case0005 .*{found}.*expected one.*prepare"):
        SliceVolumes(write_placed(tmp_path, places), NAMES)[0]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"affine": np.eye(3)}, r"`affine` .*shape \(3, 3\); expected .*\(4, 4\)"),
        ({"affine": AFFINE * np.nan}, "`affine`.*expected finite"),
        ({"affine": AFFINE * 2}, r"`affine` .*`spacing`"),
        ({"affine": AFFINE + np.eye(4) * 0.2}, "`affine`"),
        ({"affine": MIRRORED}, r"`affine` .*`orientation` SLP"),
        ({"affine": AFFINE[:, [1, 0, 2, 3]], "spacing": (0.7, 3.0, 0.9)}, "`affine` .*`orientation` SLP"),
        ({"orientation": "XYZ"}, "`orientation` is XYZ; expected"),
        ({"orientation": 3}, "`orientation` is 3; expected"),
    ],
)
def test_a_place_that_contradicts_itself_is_refused(tmp_path, wrong, found):
    path = volume_with(tmp_path / "a.h5", **PLACE | wrong)
    for read in (lambda: SynapseVolumes(tmp_path, ["a"])[0], lambda: read_image(path)):
        with pytest.raises(UserError, match=rf"a\.h5: {found}"):
            read()


def test_an_affine_alone_may_be_of_any_convention_and_is_not_used(tmp_path):
    volume_with(tmp_path / "a.h5", affine=MIRRORED, spacing=SPACING)
    volume = SynapseVolumes(tmp_path, ["a"])[0]
    assert (volume.spacing, volume.affine, volume.orientation) == (SPACING, None, "")


# --- predict.py on such files -------------------------------------------------------------------------


def test_a_prepared_volume_is_an_image_with_its_place_and_so_is_its_mask(tmp_path):
    image = read_image(volume_with(tmp_path / "a.h5", **PLACE))
    assert (image.kind, image.spacing, image.orientation) == ("volume", SPACING, "SLP")
    mask = np.zeros(image.array.shape, np.uint8)
    mask[1, 2, 3] = 1
    found = sitk.ReadImage(str(save_mask(tmp_path / "m", mask, image)))
    expected = AFFINE @ (1, 2, 3, 1)
    np.testing.assert_allclose(found.TransformIndexToPhysicalPoint((3, 2, 1)), expected[:3], atol=1e-4)


def test_a_prepared_slice_is_still_a_picture(tmp_path):
    folder = write_placed(tmp_path, {NAMES[0]: slice_place(0)})
    image = read_image(folder / f"{NAMES[0]}.npz")
    assert (image.kind, image.spacing, image.orientation) == ("picture", SPACING[1:], "")


@pytest.mark.parametrize("kind", ["array", "denied"])
def test_a_mask_claims_no_orientation_that_its_image_did_not_have(tmp_path, kind):
    if kind == "array":
        np.savez(tmp_path / "a.npz", image=random_image(0, (4, 6, 7)), spacing=SPACING)
        image = read_image(tmp_path / "a.npz")
    else:
        path = tmp_path / "a.nii"
        volume = sitk.GetImageFromArray(random_image(0, (4, 6, 7)))
        volume.SetSpacing(SPACING[::-1])
        sitk.WriteImage(volume, str(path))
        data = bytearray(path.read_bytes())
        data[252:256] = bytes(4)  # qform_code and sform_code
        path.write_bytes(data)
        image = read_image(path)
    mask = np.arange(4 * 6 * 7, dtype=np.uint8).reshape(4, 6, 7)
    back = read_image(save_mask(tmp_path / "m", mask, image))
    assert (back.orientation, image.orientation) == ("", "")
    np.testing.assert_allclose(back.spacing, SPACING, rtol=1e-6)
    assert np.array_equal(back.array, mask)
