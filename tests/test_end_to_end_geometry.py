"""From raw NIfTI in many frames through prepare_data.py, train.py and test.py --is_savenii, back to the patient."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from tests.support import raw_btcv
from tests.support.commands import SMALL_NETWORK, command
from tests.support.trees import write_synapse_tree
from utils.results.summary import read_cases

STORED = ("LPS", "RAS", "PIR", "AIL", "LAS", "oblique")
SPACING = (0.7, 0.9, 5.0)
OBLIQUE = Rotation.from_euler("zx", (20, 15), degrees=True).as_matrix()
CPU = ("--device", "cpu", "--precision", "fp32")


def write_pair(root: Path, number: int, stored: str) -> None:
    for array, folder in zip(raw_btcv.draw(number), ("imagesTr", "labelsTr")):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetOrigin((-100.0, 20.0, 500.0 + number))
        if stored == "oblique":
            image.SetDirection(OBLIQUE.ravel())
        else:
            image = sitk.DICOMOrient(image, stored)
        (root / folder).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(root / folder / f"{stored}.nii.gz"))


@pytest.fixture(scope="module", params=["SLP", "SPL"])
def folder(tmp_path_factory, request) -> Path:
    """Six raw cases prepared in one orientation, a network trained on two, and all parts tested with --is_savenii."""
    folder = tmp_path_factory.mktemp(request.param)
    for number, stored in enumerate(STORED):
        write_pair(folder / "RAW", number, stored)
    flags = ("--size", 0.5, "--orientation", request.param, "--intensity", "ct", "--workers", 1)
    command("prepare_data.py", "folder", "RAW", "DATA", *flags, cwd=folder)
    flags = ("--dataset", "DATA", "--recipe", "synapse", "--img_size", 32, "--epochs", 1, "--val_cases", 1)
    plain = ("--pretrained", "none", "--workers", 0, "--output_dir", "RUN")
    command("train.py", *flags, *SMALL_NETWORK, *plain, *CPU, cwd=folder)
    for part in ("train", "val", "test"):
        flags = ("--checkpoint", "RUN/best_model.pth", "--split", part, "--output_dir", part, "--is_savenii")
        command("test.py", *flags, *CPU, cwd=folder)
    return folder


def results(folder: Path, part: str) -> Path:
    (found,) = (folder / part).glob("*_standard")
    return found


@pytest.mark.parametrize("stored", STORED)
def test_what_test_py_writes_lies_where_the_raw_image_lies(folder, stored):
    (gt,) = folder.glob(f"*/*/nifti/{stored}_gt.nii.gz")
    raw, found = (sitk.ReadImage(str(path)) for path in (folder / f"RAW/labelsTr/{stored}.nii.gz", gt))
    label = sitk.GetArrayFromImage(raw)
    back = sitk.Resample(found, raw, sitk.Transform(), sitk.sitkNearestNeighbor, 99)
    assert np.array_equal(sitk.GetArrayFromImage(back), label)
    image = sitk.ReadImage(str(gt).replace("_gt.", "_img."))
    back = sitk.GetArrayFromImage(sitk.Resample(image, raw, sitk.Transform(), sitk.sitkNearestNeighbor, 99))
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"RAW/imagesTr/{stored}.nii.gz")))
    np.testing.assert_allclose(back, (np.clip(hu, -125, 275) + 125) / 400, atol=1e-6)
    mask = sitk.ReadImage(str(gt).replace("_gt.", "_pred."))
    assert mask.GetSize() == found.GetSize()
    for field in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, field)() == getattr(found, field)()


def test_the_header_says_so_to_those_who_do_not_read_with_simpleitk(folder):
    """The voxel of the spleen's first corner by the rows of sform, which NIfTI counts to the right, front and top."""
    (gt,) = folder.glob("*/*/nifti/LPS_gt.nii.gz")
    plain = gt.parents[2] / "plain.nii"
    sitk.WriteImage(sitk.ReadImage(str(gt)), str(plain))
    assert np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (gt, plain)))
    rows = np.reshape(struct.unpack_from("<12f", plain.read_bytes(), 280), (3, 4))
    voxels = np.argwhere(sitk.GetArrayFromImage(sitk.ReadImage(str(gt))) == 1)[:, ::-1]
    centre = rows[:, :3] @ voxels.mean(axis=0) + rows[:, 3]
    z, y, x = np.argwhere(raw_btcv.draw(0)[1] == 1).mean(axis=0)
    expected = -100 + x * SPACING[0], 20 + y * SPACING[1], 500 + z * SPACING[2]
    np.testing.assert_allclose(centre * (-1, -1, 1), expected, atol=1e-3)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_distances_are_in_mm_for_every_part(folder, part):
    rows = read_cases(results(folder, part) / "cases.csv")
    assert "hd95_mm" in rows[0]
    assert "hd95_px" not in rows[0]


def codes(path: Path) -> tuple[tuple[str, ...], int]:
    """qform_code and sform_code, and the code of the unit of length (2: mm), of a NIfTI file."""
    image = sitk.ReadImage(str(path))
    forms = tuple(image.GetMetaData(f"{form}_code") for form in ("qform", "sform"))
    return forms, int(image.GetMetaData("xyzt_units")) % 8


def test_a_download_without_geometry_gets_none(tmp_path):
    tree = write_synapse_tree(tmp_path / "DATA")
    flags = ("--dataset", "Synapse", "--root_path", tree, "--list_dir", tree / "lists", "--img_size", 32)
    command("train.py", *flags, *SMALL_NETWORK, "--epochs", 1, "--output_dir", "RUN", *CPU, cwd=tmp_path)
    for part in ("test", "train"):
        out = ("--split", part, "--output_dir", part, "--is_savenii")
        command("test.py", "--checkpoint", "RUN/best_model.pth", *out, *CPU, cwd=tmp_path)
        for path in results(tmp_path, part).glob("nifti/*.nii.gz"):
            assert codes(path) == (("0", "0"), 0)
        summary = json.loads((results(tmp_path, part) / "summary.json").read_text(encoding="utf-8"))
        assert "hd95_px" in summary["overall"]["metrics"]
