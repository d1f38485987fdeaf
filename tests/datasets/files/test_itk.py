"""NIfTI and DICOM: values, order of slices, spacing, and masks that lie where their image lies."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from datasets.files.image import read_image, save_mask
from tests.support import places
from tests.support.places import ROOT
from utils.errors import UserError
from utils.preprocess.intensities import window_ct

DATA = ROOT / "data"
SHARED = places.SHARED / "data"
ORIGIN, SPACING = (-12.5, 30.25, 7.75), (0.5, 0.75, 2.5)  # x first; powers of two survive the file's float32
TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # a quarter turn: rows are no columns
RNG = np.random.default_rng(0)


def volume(*shape: int) -> np.ndarray:
    return RNG.integers(-1000, 1500, shape, dtype=np.int16)


def write_itk(path: Path, array: np.ndarray, direction: tuple[float, ...] = TURNED, vector: bool = False) -> Path:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array, isVector=vector)
    dimension = image.GetDimension()
    image.SetSpacing(SPACING[:dimension])
    image.SetOrigin(ORIGIN[:dimension])
    if dimension == 3:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


def write_series(folder: Path, array: np.ndarray, uid: str, heights: list[float], ending: str = ".dcm") -> None:
    """DICOM slices whose file names run against their positions."""
    import SimpleITK as sitk

    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, height in enumerate(heights):
        image = sitk.GetImageFromArray(array[index][None])  # in HU; the writer undoes the rescaling below
        image.SetSpacing((0.5, 0.75, 2.5))
        tags = {
            "0020|000e": uid,
            "0020|000d": "1.2.3",
            "0008|0018": f"{uid}.{index + 1}",
            "0008|0060": "CT",
            "0020|0032": f"-12.5\\30.25\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "2",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}_{99 - index}.dcm"))
        writer.Execute(image)
        if ending != ".dcm":
            (folder / f"{uid}_{99 - index}.dcm").rename(folder / f"{uid}_{99 - index}{ending}")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_a_nifti_mask_lies_where_its_image_lies(tmp_path, suffix):
    import SimpleITK as sitk

    array = volume(4, 6, 9)
    image = read_image(write_itk(tmp_path / f"image{suffix.lower()}", array).rename(tmp_path / f"image{suffix}"))
    assert np.array_equal(image.array, array)
    assert (image.kind, image.spacing) == ("volume", (2.5, 0.75, 0.5))
    mask = RNG.integers(0, 9, array.shape, np.uint8)
    save_mask(tmp_path / "mask", mask, image)
    written, original = (sitk.ReadImage(str(path)) for path in (tmp_path / "mask.nii.gz", image.path))
    assert written.GetOrigin() == original.GetOrigin() == pytest.approx(ORIGIN)
    assert written.GetDirection() == original.GetDirection() == pytest.approx(TURNED)
    assert written.GetSpacing() == original.GetSpacing() == pytest.approx(SPACING)
    assert written.GetPixelIDValue() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(written), mask)
    back = read_image(tmp_path / "mask.nii.gz")
    assert (back.meta, back.spacing) == (image.meta, image.spacing)
    assert [path.name for path in tmp_path.glob(".part*")] == []


def test_a_flat_nifti_is_a_volume_of_one_slice_and_stays_flat(tmp_path):
    image = read_image(write_itk(tmp_path / "a.nii", volume(6, 9)))
    assert image.array.shape == (1, 6, 9)
    assert image.spacing == (1.0, 0.75, 0.5)
    save_mask(tmp_path / "m", np.ones((1, 6, 9), bool), image)
    back = read_image(tmp_path / "m.nii.gz")
    assert (back.meta, back.spacing, back.array.max()) == (image.meta, image.spacing, 1)


def test_a_dicom_series_is_sorted_by_position_scaled_to_hu_and_written_as_nifti(tmp_path):
    import SimpleITK as sitk

    array = RNG.integers(0, 1000, (4, 6, 9)).astype(np.int16) * 2 - 1024
    write_series(tmp_path / "s", array, "1.2.3.4", [10, 12.5, 15, 17.5])
    (tmp_path / "s" / "mask.png").write_bytes(b"not DICOM")
    image = read_image(tmp_path / "s")
    assert np.array_equal(image.array, array)
    assert image.spacing == (2.5, 0.75, 0.5)
    save_mask(tmp_path / "m", image.array > 0, image)
    written = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    assert written.GetOrigin() == pytest.approx((-12.5, 30.25, 10))
    assert written.GetSpacing() == pytest.approx(SPACING)
    assert np.array_equal(sitk.GetArrayFromImage(written), image.array > 0)


def test_one_dicom_file_with_and_without_an_ending(tmp_path):
    array = RNG.integers(0, 1000, (1, 6, 9)).astype(np.int16) * 2 - 1024
    for ending in (".dcm", ""):
        write_series(tmp_path / f"s{ending}", array, "1.2.3.4", [10], ending)
        image = read_image(next((tmp_path / f"s{ending}").iterdir()))
        assert np.array_equal(image.array, array)
        assert (image.kind, image.meta["origin"]) == ("volume", (-12.5, 30.25, 10))


def test_missing_slices_are_said_and_two_series_refused(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("datasets.files.slices.log_once", said.append)
    write_series(tmp_path / "even", volume(3, 6, 9), "1.2.3.4", [10, 12.5, 15])
    read_image(tmp_path / "even")
    assert said == []
    write_series(tmp_path / "gap", volume(3, 6, 9), "1.2.3.4", [10, 12.5, 17.5])
    assert read_image(tmp_path / "gap").array.shape == (3, 6, 9)
    assert "slices lie 2.5 to 5 mm apart" in said[0]
    write_series(tmp_path / "gap", volume(2, 6, 9), "1.2.3.5", [10, 12.5])
    with pytest.raises(UserError, match=r"found 2 DICOM series \(.*3 files such as .*expected one"):
        read_image(tmp_path / "gap")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"found 0 DICOM series \(no DICOM file\)"):
        read_image(tmp_path / "none")


def test_a_colour_dicom_is_a_picture(tmp_path):
    picture = RNG.integers(0, 256, (1, 6, 9, 3), np.uint8)
    image = read_image(write_itk(tmp_path / "a.dcm", picture, (1, 0, 0, 0, 1, 0, 0, 0, 1), vector=True))
    assert image.kind == "picture"
    assert np.array_equal(image.array, picture[0])


def test_a_narrow_nifti_is_no_colour_picture(tmp_path):
    assert read_image(write_itk(tmp_path / "a.nii", volume(4, 6, 3))).kind == "volume"


def test_vectors_are_no_volume(tmp_path):
    write_itk(tmp_path / "a.nii", RNG.random((3, 4, 5, 2), np.float32), vector=True)
    with pytest.raises(UserError, match=r"expected one volume \(D, H, W\); save each of its volumes as a file"):
        read_image(tmp_path / "a.nii")


@pytest.mark.skipif(not (DATA / "rectal_case1002").is_dir(), reason="the real series is not unpacked here")
def test_a_real_dicom_series(tmp_path):
    image = read_image(DATA / "rectal_case1002")
    assert (image.array.shape, image.array.dtype) == ((37, 512, 512), np.int16)
    assert image.spacing == (5.0, 0.732421875, 0.732421875)
    assert np.array_equal(read_image(DATA / "rectal_case1002" / "10037.dcm").array[0], image.array[0])
    save_mask(tmp_path / "m", window_ct(image.array) > 0.6, image)
    back = read_image(tmp_path / "m.nii.gz")
    for key in ("origin", "direction"):
        assert back.meta[key] == pytest.approx(image.meta[key], abs=1e-4)


@pytest.mark.skipif(not (SHARED / "ct_abdomen_3mm.nii.gz").is_file(), reason="the real volume is not here")
def test_a_real_nifti(tmp_path):
    image = read_image(SHARED / "ct_abdomen_3mm.nii.gz")
    assert image.array.shape == (112, 101, 122)
    save_mask(tmp_path / "m", image.array > 100, image)
    back = read_image(tmp_path / "m.nii.gz")
    assert (back.meta, back.spacing) == (image.meta, image.spacing)


@pytest.mark.skipif(os.name == "nt", reason="this system has no such names")
def test_the_library_shows_no_name_of_a_file(tmp_path, capfd):
    """Its warning of axes with two scales would."""
    data = bytearray(write_itk(tmp_path / "a.nii", volume(3, 4, 5)).read_bytes())
    struct.pack_into("<hh", data, 252, 0, 1)  # qform_code, sform_code
    struct.pack_into("<12f", data, 280, 3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0)  # sform
    (tmp_path / "a\x1b[2J.nii").write_bytes(data)
    assert read_image(tmp_path / "a\x1b[2J.nii").array.shape == (3, 4, 5)
    assert capfd.readouterr() == ("", "")
