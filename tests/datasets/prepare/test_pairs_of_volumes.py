"""Which label and channel a volume has, and whether image and label lie at one place."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from datasets.prepared import read_prepared
from datasets.volumes.lists import read_list
from prepare_data import main
from tests.datasets.prepare.test_volumes import draw, nnunet, prepare, write_nifti
from utils.errors import UserError


def rename(folder: Path, old: str, new: str) -> None:
    for path in sorted(folder.rglob("*.nii.gz")):
        path.rename(path.with_name(path.name.replace(old, new)))


# --- pairs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("liver_1_gt.nii.gz", "liver_1_seg.nii.gz"), ("liver_1.nii.gz", "liver_1_seg.nii")])
def test_two_labels_of_one_image_are_refused(tmp_path, names):
    for number in (1, 2):
        write_nifti(tmp_path / f"images/liver_{number}.nii.gz", draw(number)[0])
    for name in (*names, "liver_2.nii.gz"):
        write_nifti(tmp_path / "labels" / name, draw(1)[1])
    expected = rf"1 file cannot be paired(.|\n)*labels/{names[0]} and labels/{names[1]}: two labels for one image"
    with pytest.raises(UserError, match=expected):
        prepare(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("ending", ["", "_0000"])
@pytest.mark.parametrize("word", ["", "_seg"])
def test_names_of_cases_may_end_in_four_digits(tmp_path, ending, word):
    raw = nnunet(tmp_path / "raw")
    rename(raw / "imagesTr", "_0000", ending)
    rename(raw / "imagesTr", "abd_", "amos_00")
    rename(raw / "labelsTr", "abd_", "amos_00")
    rename(raw / "labelsTr", ".nii", f"{word}.nii")
    out = prepare(raw, tmp_path / "out")
    for name in read_list(out / "lists/test_vol.txt"):
        with h5py.File(out / f"test_vol_h5/{name}.npy.h5") as file:
            assert np.array_equal(file["label"], draw(int(name.removeprefix("amos_")))[1])
    for number in (2, 4):
        (raw / f"labelsTr/amos_{number:04d}{word}.nii.gz").unlink()
    with pytest.raises(UserError, match=rf"2 files cannot(.|\n)*amos_000[24]{ending}\.nii\.gz: no label"):
        prepare(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("channel", "named", "expected"),
    [
        (0, {"0": "CT", "1": "PET"}, "ct"),
        (1, {"0": "CT", "1": "PET"}, "percentile"),
        (1, ["PET", "ct"], "ct"),
        (0, {"1": "CT"}, "percentile"),
    ],
)
def test_the_chosen_channel_alone_says_whether_it_is_ct(tmp_path, channel, named, expected):
    raw = nnunet(tmp_path / "raw", channel_names=named)
    for path in sorted((raw / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    out = prepare(raw, tmp_path / "out", "--channel", str(channel))
    assert read_prepared(out).intensity == expected


@pytest.mark.parametrize("ending", ["", "_0000"])
def test_a_channel_that_is_not_there_is_refused(tmp_path, ending):
    raw = nnunet(tmp_path / "raw")
    rename(raw / "imagesTr", "_0000", ending)
    with pytest.raises(UserError, match=rf"abd_00{ending}\.nii\.gz: found one channel, and no _0001 in its name"):
        prepare(raw, tmp_path / "out", "--channel", "1")
    prepare(raw, tmp_path / "out", "--channel", "0")


# --- geometry -----------------------------------------------------------------------------------


def change_label(raw: Path, **changes) -> None:
    """Change the header of the first label, not its voxels: SetSpacing=... and so on."""
    path = raw / "labelsTr/abd_00.nii.gz"
    label = sitk.ReadImage(str(path))
    for name, value in changes.items():
        getattr(label, name)(value)
    sitk.WriteImage(label, str(path))


IDENTITY = {"SetSpacing": (1, 1, 1), "SetOrigin": (0, 0, 0), "SetDirection": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}  # in NIfTI
TURNED = (np.cos(0.05), -np.sin(0.05), 0, np.sin(0.05), np.cos(0.05), 0, 0, 0, 1)


@pytest.mark.parametrize("stored", ["LPS", "PIR"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (IDENTITY, r"spacing \(1, 1, 1\).*direction \(-1, .*expected .*spacing \(.*8.*direction"),
        ({"SetSpacing": (1.6, 1.6, 8.0)}, r"spacing \(1\.6, 1\.6, 8\); expected spacing"),
        ({"SetOrigin": (0.0, 0.0, 4.0)}, r"origin \(0, 0, 4\); expected origin \("),
        ({"SetDirection": TURNED}, r"direction \(0\.9987\d*, -0\.0499\d*, 0, .*expected .*direction"),
    ],
)
def test_a_label_that_lies_elsewhere_is_refused(tmp_path, stored, changes, expected):
    raw = nnunet(tmp_path / "raw", stored=(stored,), cases=2)
    change_label(raw, **changes)
    with pytest.raises(
        UserError, match=rf"1 of 2 cases failed(.|\n)*abd_00: labelsTr/abd_00\.nii\.gz: found {expected}"
    ) as e:
        prepare(raw, tmp_path / "out")
    assert "as imagesTr/abd_00_0000.nii.gz has" in str(e.value)
    assert "label.CopyInformation(image)" in str(e.value)


def test_the_remedy_works(tmp_path):
    raw = nnunet(tmp_path / "raw", cases=2)
    wanted = json.loads((prepare(raw, tmp_path / "a") / "manifest.json").read_text())["sha256"]
    change_label(raw, **IDENTITY)
    change_label(raw, CopyInformation=sitk.ReadImage(str(raw / "imagesTr/abd_00_0000.nii.gz")))
    assert json.loads((prepare(raw, tmp_path / "b") / "manifest.json").read_text())["sha256"] == wanted


def test_the_remedy_for_a_label_of_another_size_works(tmp_path):
    raw = nnunet(tmp_path / "raw", cases=2)
    wanted = prepare(raw, tmp_path / "a")
    path = raw / "labelsTr/abd_00.nii.gz"
    label, image = sitk.ReadImage(str(path)), sitk.ReadImage(str(raw / "imagesTr/abd_00_0000.nii.gz"))
    sitk.WriteImage(label[:, :, 1:], str(path))
    with pytest.raises(UserError, match=r"size \(24, 20, 3\).*expected size \(24, 20, 4\)") as e:
        prepare(raw, tmp_path / "b")
    assert "CopyInformation" not in str(e.value)
    assert "SimpleITK.Resample(label, image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)" in str(e.value)
    sitk.WriteImage(
        sitk.Resample(sitk.ReadImage(str(path)), image, sitk.Transform(), sitk.sitkNearestNeighbor), str(path)
    )
    out = prepare(raw, tmp_path / "b")
    names = read_list(out / "lists/train.txt")
    assert names[0] == "abd_00_slice000"
    for name in names:
        with np.load(out / f"train_npz/{name}.npz") as mine, np.load(wanted / f"train_npz/{name}.npz") as theirs:
            assert np.array_equal(mine["label"], theirs["label"] * (name != names[0]))


@pytest.mark.parametrize("packed", ["no", "one", "two"])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("geometry", "labels/p2.nii.gz: found spacing .* as images/p2.nii.gz has"),
        ("nan", "images/p2.nii.gz: found 1 of 1,920 values that are not finite"),
        ("cut", "images/p2.nii.gz: cannot be read as Nifti"),
        ("values", "labels/p2.nii.gz: found the labels 9 "),
        ("range", "images/p2.nii.gz: --intensity range needs integers"),
    ],
)
def test_image_and_label_of_one_name_are_told_apart(tmp_path, packed, damage, expected):
    for number in range(3):
        image, label = draw(number)
        bad = number == 2
        image = image.astype(np.float32 if bad else np.int16)
        if bad and damage == "nan":
            image[0, 0, 0] = np.nan
        if bad and damage == "values":
            label[label == 3] = 9
        write_nifti(tmp_path / f"images/p{number}.nii.gz", image)
        write_nifti(tmp_path / f"labels/p{number}.nii.gz", label)
    path = tmp_path / "labels/p2.nii.gz"
    if damage == "geometry":
        label = sitk.ReadImage(str(path))
        label.SetSpacing((1, 1, 1))
        sitk.WriteImage(label, str(path))
    if damage == "cut":
        path = tmp_path / "images/p2.nii.gz"
        path.write_bytes(path.read_bytes()[:-50])
    described = {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}
    (tmp_path / "labels/dataset.json").write_text(json.dumps(described))
    sources = [tmp_path / "images", tmp_path / "labels"]
    if packed == "two":
        sources = [Path(shutil.make_archive(str(source), "zip", source)) for source in sources]
    elif packed == "one":
        sources = [Path(shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path))]
    flags = ["--workers", "1", "--intensity", "range" if damage == "range" else "percentile"]
    with pytest.raises(UserError) as e:
        main(["folder", *map(str, sources), str(tmp_path / "out"), *flags])
    assert re.search(rf"1 of 3 cases failed.*\n  p2: {expected}", str(e.value)), e.value
    assert str(tmp_path) not in str(e.value)


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_picture_in_a_volume_file_is_named_as_such(tmp_path, kind):
    raw = nnunet(tmp_path / "raw", cases=2)
    for folder, name in (("imagesTr", "abd_00_0000"), ("labelsTr", "abd_00")):
        array = np.zeros((20, 24, 3) if kind == "colour" and folder == "imagesTr" else (20, 24), np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(raw / f"{folder}/{name}.nii.gz"))
    expected = {"grey": r"is 2-D \(24 x 20\); expected slices", "colour": "is a picture in colours"}[kind]
    with pytest.raises(UserError, match=rf"imagesTr/abd_00_0000\.nii\.gz: {expected}.*(png|PNG)"):
        prepare(raw, tmp_path / "out")


def write_oblique(path: Path, array: np.ndarray, stored: str) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.9, 5.0))
    image.SetOrigin((-1185.23, 210.6, -616.7))
    about_z, about_x = (sitk.Euler3DTransform((0, 0, 0), *angles) for angles in ((0, 0, 0.04), (0.002, 0, 0)))
    image.SetDirection((np.reshape(about_z.GetMatrix(), (3, 3)) @ np.reshape(about_x.GetMatrix(), (3, 3))).ravel())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, stored), str(path))


@pytest.mark.parametrize(
    ("stored", "cleared"),
    [("LPS", [252, 254]), *((stored, [code]) for stored in ("LPS", "RAS", "PIR") for code in (252, 254))],
)
def test_headers_may_be_rounded_and_stored_in_another_order(tmp_path, stored, cleared):
    """The label has only its sform (a matrix) or its qform (a quaternion), or neither: then it has the image's."""
    for number in range(2):
        image, label = draw(number)
        write_oblique(tmp_path / f"raw/images/{number}.nii", image, "LPS")
        path = tmp_path / f"raw/labels/{number}.nii"
        write_oblique(path, label, stored)
        data = bytearray(path.read_bytes())
        for code in cleared:  # qform_code at byte 252, sform_code at 254
            data[code : code + 2] = bytes(2)
        if len(cleared) == 2:
            data[80:92] = np.ones(3, "<f4").tobytes()  # the spacing
        path.write_bytes(data)
    out = prepare(tmp_path / "raw", tmp_path / "out")
    for name in read_list(out / "lists/test_vol.txt"):
        with h5py.File(out / f"test_vol_h5/{name}.npy.h5") as file:
            assert np.array_equal(file["label"], draw(int(name))[1])
