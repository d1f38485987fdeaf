"""Which label, patient and channel a NIfTI volume has, and whether image and label lie at one place."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.prepared import read_prepared
from datasets.volumes.lists import patient_of, read_list
from tests.datasets.prepare.test_volumes import draw, nnunet, prepare, write_nifti
from utils.errors import UserError


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
