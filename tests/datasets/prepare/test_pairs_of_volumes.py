"""Which label, patient, channel and classes a volume has, and whether image and label lie at one place."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from datasets.prepare.verify.volumes import verify_volumes
from datasets.prepared import read_prepared
from datasets.volumes.lists import hold_out_cases, patient_of, read_list
from prepare_data import main
from tests.datasets.prepare.test_volumes import draw, nnunet, prepare, write_nifti
from utils.errors import UserError
from utils.log import logging_to


def rename(folder: Path, old: str, new: str) -> None:
    for path in sorted(folder.rglob("*.nii.gz")):
        path.rename(path.with_name(path.name.replace(old, new)))


# --- patients -----------------------------------------------------------------------------------


def test_frames_of_a_patient_stay_in_one_part(tmp_path):
    for patient in range(8):
        for frame in (1, 9):
            image, label = draw(10 * patient + frame, slices=1)
            name = f"patient{patient:03d}_frame{frame:02d}"
            write_nifti(tmp_path / f"raw/imagesTr/{name}_0000.nii.gz", image)
            write_nifti(tmp_path / f"raw/labelsTr/{name}.nii.gz", label)
    out = prepare(tmp_path / "raw", tmp_path / "out")
    trained, tested = (read_list(out / f"lists/{part}.txt") for part in ("train", "test_vol"))
    assert (len(trained), len(tested)) == (12, 4)
    assert not {patient_of(name) for name in trained} & {patient_of(name) for name in tested}


def test_cases_without_frames_are_split_as_ever(tmp_path):
    out = prepare(nnunet(tmp_path / "raw", cases=10), tmp_path / "out")
    assert read_list(out / "lists/test_vol.txt") == ["abd_01", "abd_02", "abd_05"]


@pytest.fixture
def visits(tmp_path) -> Path:
    """Eight patients with two scans each: 2020_P0_a, 2021_P0_b ..., and BIDS names of the same."""
    for patient in range(8):
        for number, visit in enumerate("ab"):
            image, label = draw(10 * patient + number, slices=1)
            write_nifti(tmp_path / f"raw/imagesTr/202{number}_P{patient}_{visit}_0000.nii.gz", image)
            write_nifti(tmp_path / f"raw/labelsTr/202{number}_P{patient}_{visit}.nii.gz", label)
    return tmp_path / "raw"


def parts_of(out: Path) -> tuple[list[str], list[str]]:
    return read_list(out / "lists/train.txt"), read_list(out / "lists/test_vol.txt")


def test_sessions_of_bids_stay_in_one_part(visits, tmp_path):
    for path in sorted(visits.rglob("*.nii.gz")):
        path.rename(path.with_name(re.sub(r"202(\d)_P(\d)_.", r"sub-\2_ses-\1", path.name)))
    with logging_to(tmp_path / "log.txt"):
        trained, tested = parts_of(prepare(visits, tmp_path / "out"))
    assert (len(trained), len(tested)) == (12, 4)
    assert not {name[:5] for name in trained} & {name[:5] for name in tested}
    assert "patients: 8 in 16 cases (by their names; " in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("pattern", [r"P\d", r"_(P\d)_"])
def test_groups_by_a_pattern_stay_together_here_and_later(visits, tmp_path, pattern):
    with logging_to(tmp_path / "log.txt"):
        out = prepare(visits, tmp_path / "out", "--group-by", pattern)
    trained, tested = parts_of(out)
    assert (len(trained), len(tested)) == (12, 4)
    assert all(re.fullmatch(r"(P\d)@202\d_\1_[ab](_slice000)?", name) for name in trained + tested)
    assert not {name[:2] for name in trained} & {name[:2] for name in tested}
    assert f"patients: 8 in 16 cases (--group-by {pattern})" in (tmp_path / "log.txt").read_text()
    for part in hold_out_cases(trained, 2, seed=1):
        assert len(part) == 2 * len({name[:2] for name in part})
    (out / "lists/train.txt").write_text("\n".join([*trained, f"{tested[0]}_slice000"]))
    report = verify_volumes(out, None, out / "lists")
    assert [f.where for f in report.findings if f.kind == "patients in several parts"] == [tested[0][:2]]


def test_names_that_say_the_group_are_kept(visits, tmp_path):
    names = [name for part in parts_of(prepare(visits, tmp_path / "out", "--group-by", "202._P.*")) for name in part]
    assert not any("@" in name for name in names)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("Q", "finds nothing in 16 names"), ("(", "no regular expression"), ("202", "are of the one group '202'")],
)
def test_patterns_that_give_no_groups_are_refused(visits, tmp_path, pattern, expected):
    with pytest.raises(UserError, match=expected):
        prepare(visits, tmp_path / "out", "--group-by", pattern)


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


# --- formats ------------------------------------------------------------------------------------


def convert(raw: Path, ending: str) -> None:
    """Store every NIfTI file below `raw` as another kind."""
    for path in sorted(raw.rglob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path).replace(".nii.gz", ending))
        path.unlink()


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".MHA"])
def test_other_volume_files_give_the_same_data(tmp_path, ending):
    raw = nnunet(tmp_path / "raw", cases=3)
    wanted = json.loads((prepare(raw, tmp_path / "a") / "manifest.json").read_text())["sha256"]
    convert(raw, ending.lower())
    for path in sorted(raw.rglob(f"*{ending.lower()}")):
        path.rename(path.with_suffix(ending))
    out = prepare(raw, tmp_path / "b", "--channel", "0")
    assert json.loads((out / "manifest.json").read_text())["sha256"] == wanted
    with pytest.raises(UserError, match=rf"abd_00_0000\{ending}: found one channel, and no _0001 in its name"):
        prepare(raw, tmp_path / "c", "--channel", "1")


def test_a_nrrd_file_that_does_not_say_how_it_lies(tmp_path):
    raw = nnunet(tmp_path / "raw", cases=2)
    convert(raw, ".nrrd")
    path = raw / "imagesTr/abd_00_0000.nrrd"
    path.write_bytes(path.read_bytes().replace(b"space: left-posterior-superior", b"space dimension: 3"))
    with pytest.raises(UserError, match=r"abd_00_0000\.nrrd: .* does not say how its volume lies .*space of NRRD"):
        prepare(raw, tmp_path / "out")


def test_a_mha_file_of_several_channels_says_what_to_do(tmp_path):
    raw = nnunet(tmp_path / "raw", cases=2)
    convert(raw, ".mha")
    path = raw / "imagesTr/abd_00_0000.mha"
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(path))
    with pytest.raises(UserError, match=r"abd_00_0000\.mha: found an array of shape \(2, .*save each of its volumes"):
        prepare(raw, tmp_path / "out", "--channel", "0")


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_header_without_its_voxels_is_refused(tmp_path, ending, all_of_them):
    raw = nnunet(tmp_path / "raw", cases=3)
    convert(raw if all_of_them else raw / "imagesTr", ending)
    expected = rf"abd_00_0000\{ending}: is a header.*another file.*\.WriteImage\(.*\.mha"
    with pytest.raises(UserError, match=expected):
        prepare(raw, tmp_path / "out")


# --- numbers of labels --------------------------------------------------------------------------


def relabel(raw: Path, ending: str = ".nii.gz", **numbers: int) -> None:
    """Give class 1, 2, 3 of every label other numbers: a=1, b=2, c=3."""
    for path in sorted((raw / "labelsTr").iterdir()):
        label = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkUInt32)
        changes = {old: numbers[name] for old, name in enumerate("abc", 1)}
        sitk.WriteImage(sitk.ChangeLabel(label, changeMap=changes), str(path))


def test_numbers_that_change_are_said(tmp_path):
    raw = nnunet(tmp_path / "raw", cases=2)
    (raw / "dataset.json").unlink()
    relabel(raw, a=1, b=2, c=5)
    with logging_to(tmp_path / "log.txt"):
        out = prepare(raw, tmp_path / "out", "--intensity", "ct")
    assert "labels: 0 background, 1 class 1, 2 class 2, 5 class 5 -> 3\n" in (tmp_path / "log.txt").read_text()
    assert json.loads((out / "manifest.json").read_text())["parameters"]["label_map"]["5"] == 3


@pytest.mark.parametrize("described", [True, False])
def test_labels_may_have_any_whole_numbers(tmp_path, described):
    """As those of MM-WHS: 205, 420, and some larger."""
    raw = nnunet(tmp_path / "raw", cases=2, labels={"background": 0, "LV": 205, "RA": 420, "PA": 70_000})
    relabel(raw, a=205, b=420, c=70_000)
    if not described:
        (raw / "dataset.json").unlink()
    out = prepare(raw, tmp_path / "out")
    assert len(read_prepared(out).class_names) == 3
    (name,) = read_list(out / "lists/test_vol.txt")
    with h5py.File(out / f"test_vol_h5/{name}.npy.h5") as file:
        assert np.array_equal(file["label"], draw(int(name[-2:]))[1])
        assert file["label"].dtype == np.uint8


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"LV": 205, "RA": 420}, r"labels are 205, 420; expected 0 for the background.*; relabel"),
        ({"background": 0}, r"labels are 0; expected .* one to 255 .*; relabel"),
        ({"background": 0, "a": -1, "b": 1}, r"labels are -1, 0, 1; expected .*; relabel"),
        ({str(n): n for n in range(300)}, r"labels are 0, 1, .* 292 more; expected .* one to 255 .*; relabel"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused_with_a_remedy(tmp_path, labels, expected):
    raw = nnunet(tmp_path / "raw", cases=2, labels=labels)
    with pytest.raises(UserError, match=expected):
        prepare(raw, tmp_path / "out")


@pytest.mark.parametrize(
    "labels", [{"background": 0, "a": 1, "b": 2, "ignore": 3}, {"0": "bg", "1": "a", "3": "ignore"}]
)
def test_voxels_to_ignore_are_refused_before_any_case_is_read(tmp_path, labels):
    raw = nnunet(tmp_path / "raw", cases=2, labels=labels)
    with pytest.raises(UserError, match=r"dataset\.json: .*label ignore \(3\).*; give .* remove ignore from it"):
        prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
