"""From a raw BTCV download to masks on raw files: prepare, train, test and predict, as a user types them."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.support import raw_btcv
from tests.support.commands import SMALL_NETWORK, command

# from the published description, not from the code under test
CLASSES = {1: 7, 2: 4, 3: 3, 4: 2, 6: 5, 7: 8, 8: 1, 11: 6}
CASE = 8  # of the test part
SMALL = ("--img_size", 64, *SMALL_NETWORK, "--val_cases", 0)
FAST = ("--epochs", 5, "--batch_size", 6, "--optimizer", "adamw", "--lr", 0.003, "--schedule", "cosine")
CPU = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The zip prepared, a network trained on it, and one test case predicted in each of the stored orientations."""
    folder = tmp_path_factory.mktemp("btcv")
    raw_btcv.write_download(folder / "Training")
    raw_btcv.zip_folder(folder / "Training", folder / "RawData.zip", "RawData/Training")
    for stored in raw_btcv.STORED:
        raw_btcv.write_case(folder / stored, folder / "truth" / stored, CASE, stored)
        (folder / stored / f"img{CASE:04d}.nii.gz").rename(folder / f"{stored}.nii.gz")
    command("prepare_data.py", "synapse", "RawData.zip", "DATA", "--workers", 1, cwd=folder)
    plain = ("--pretrained", "none", "--augment", False, "--workers", 0, "--output_dir", "RUN")
    command("train.py", "--dataset", "DATA", "--recipe", "synapse", *SMALL, *FAST, *plain, *CPU, cwd=folder)
    files = [f"{stored}.nii.gz" for stored in raw_btcv.STORED]
    flags = ("--checkpoint", "RUN/best_model.pth", *CPU)
    command("predict.py", *flags, "--input", *files, "--output_dir", "MASKS", cwd=folder)
    return folder


def mean_dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean Dice of the eight organs, of a mask of our classes and a label of the challenge."""
    figures = []
    for stored, ours in CLASSES.items():
        a, b = found == ours, truth == stored
        figures.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(figures))


@pytest.mark.parametrize("stored", raw_btcv.STORED)
def test_the_mask_lies_where_the_label_lies_in_the_frame_of_the_raw_file(folder, stored):
    truth = sitk.ReadImage(str(folder / "truth" / stored / f"label{CASE:04d}.nii.gz"))
    mask = sitk.ReadImage(str(folder / "MASKS" / f"{stored}_mask.nii.gz"))
    assert mask.GetSize() == truth.GetSize()
    for field in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, field)(), getattr(truth, field)(), atol=1e-4)
    found, truth = sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(truth)
    assert mean_dice(found, truth) > 0.85
    for axis in range(3):
        assert mean_dice(np.flip(found, axis), truth) < 0.35


def test_the_test_part_reaches_the_same_dice(folder):
    command("test.py", "--checkpoint", "RUN/best_model.pth", "--is_savenii", *CPU, cwd=folder)
    summary = json.loads((folder / "RUN/test_standard/summary.json").read_text(encoding="utf-8"))
    assert summary["num_cases"] == 12
    assert summary["overall"]["metrics"]["dice"]["mean"] > 0.85
    for path in (folder / "RUN/test_standard/nifti").glob("*_pred.nii.gz"):  # stored in five orientations
        truth = sitk.ReadImage(str(folder / "Training/label" / path.name.replace("case", "label").replace("_pred", "")))
        mask = sitk.Resample(sitk.ReadImage(str(path)), truth, sitk.Transform(), sitk.sitkNearestNeighbor)
        assert mean_dice(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(truth)) > 0.7
