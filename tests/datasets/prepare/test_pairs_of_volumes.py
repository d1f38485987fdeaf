"""Which label, patient and channel a NIfTI volume has, and whether image and label lie at one place."""

import pytest

from datasets.volumes.lists import patient_of, read_list
from tests.datasets.prepare.test_volumes import draw, nnunet, prepare, write_nifti
from utils.errors import UserError

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
