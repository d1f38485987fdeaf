"""Raw BTCV -> the Synapse layout: labels and images in the known orientation whatever the files' own."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.prepare import synapse
from datasets.prepared import read_prepared
from datasets.volumes.lists import read_list
from prepare_data import main
from synapse_train_test.task import LISTS
from tests.support import raw_btcv
from tests.support.places import SHARED
from utils.errors import UserError

# from the published description, not from the code under test
CLASSES = {1: 7, 2: 4, 3: 3, 4: 2, 6: 5, 7: 8, 8: 1, 11: 6}


@pytest.fixture(scope="module")
def download(tmp_path_factory) -> Path:
    return raw_btcv.write_download(tmp_path_factory.mktemp("raw") / "Training")


@pytest.fixture(scope="module")
def prepared(download) -> Path:
    target = download.parent / "prepared"
    main(["synapse", str(download), str(target), "--workers", "1"])
    return target


def expected(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label as (slice upwards, row to the left, column to the back)."""
    hu, label = raw_btcv.draw(number)
    eight = np.zeros_like(label)
    for stored, wanted in CLASSES.items():
        eight[label == stored] = wanted
    unit = (np.clip(hu, -125, 275).astype(np.float64) + 125) / 400
    return unit.transpose(0, 2, 1), eight.transpose(0, 2, 1)


@pytest.mark.parametrize("number", synapse.TRAIN_SLICES)
def test_training_slices_lie_as_the_known_files_do(prepared, number):
    image, label = expected(number)
    for z in range(6):
        with np.load(prepared / f"train_npz/case{number:04d}_slice{z:03d}.npz") as arrays:
            np.testing.assert_allclose(arrays["image"], image[z], atol=1e-6)
            assert np.array_equal(arrays["label"], label[z])
            assert arrays["image"].dtype == np.float32


@pytest.mark.parametrize("number", synapse.TEST)
def test_volumes_lie_as_the_known_files_do_and_keep_their_geometry(prepared, number):
    image, label = expected(number)
    with h5py.File(prepared / f"test_vol_h5/case{number:04d}.npy.h5") as file:
        np.testing.assert_allclose(file["image"], image, atol=1e-6)
        assert np.array_equal(file["label"], label)
        z, y, x = raw_btcv.spacing_of(number)
        np.testing.assert_allclose(file.attrs["spacing"], (z, x, y), rtol=1e-5)
        # slice 0, row 0, column 0 is the lowest, rightmost, foremost voxel: that the case was drawn from
        point = file.attrs["affine"] @ (2, 3, 4, 1)
        np.testing.assert_allclose(point, (-100 + 3 * x, 20 + 4 * y, 500 + number + 2 * z, 1), rtol=1e-4)
        assert file.attrs["orientation"] == "SLP"


def test_the_organs_lie_at_their_sides(prepared):
    """Liver right of the spleen, kidneys behind the stomach, in rows and columns of the arrays themselves."""
    with h5py.File(prepared / "test_vol_h5/case0008.npy.h5") as file:
        label = file["label"][()]
    centre = {k: np.argwhere(label == k).mean(axis=0) for k in range(1, 9)}
    liver, spleen, stomach, left, right = (centre[k] for k in (5, 7, 8, 3, 4))
    assert liver[1] < spleen[1]
    assert right[1] < left[1]
    assert stomach[2] < min(left[2], right[2])
    assert right[0] < liver[0]


def test_lists_are_the_published_ones_for_these_slices(prepared):
    assert read_list(prepared / "lists/test_vol.txt") == read_list(LISTS / "test_vol.txt")
    ours = read_list(prepared / "lists/train.txt")
    published = [name for name in read_list(LISTS / "train.txt") if int(name[-3:]) < 6]
    assert ours == published
    assert read_prepared(prepared) == (synapse.CLASS_NAMES, "ct", "SLP")


def test_counts_are_those_of_the_published_lists():
    names = read_list(LISTS / "train.txt")
    for number, count in synapse.TRAIN_SLICES.items():
        assert sum(name.startswith(f"case{number:04d}_") for name in names) == count


@pytest.mark.skipif(not (SHARED / "reference/synapse_split.json").is_file(), reason="the reference is not here")
def test_counts_are_those_of_the_reference():
    reference = json.loads((SHARED / "reference/synapse_split.json").read_text())
    counts = {f"case{number:04d}": count for number, count in synapse.TRAIN_SLICES.items()}
    assert counts == reference["train_slices_per_case"]
    assert [f"case{number:04d}" for number in synapse.TEST] == reference["test_volumes"]


def test_other_counts_are_said(download, tmp_path, capsys):
    # `main` logs through the logger of a script; the lines of `finish` are what a user sees
    records = {f"case{number:04d}": {"facts": {"slices": 6}, "outputs": {}} for number in raw_btcv.NUMBERS}
    _, lines = synapse.finish(records)
    assert "case0005 has 6 slices, not 117" in lines[0]
    assert "72 slices, not 1568" in lines[0].replace("\n", " ")
    for number, count in synapse.TRAIN_SLICES.items():
        records[f"case{number:04d}"]["facts"]["slices"] = count
    for number in synapse.TEST:
        records[f"case{number:04d}"]["facts"]["slices"] = 130
    records["case0008"]["facts"]["slices"] = 1568 - 11 * 130
    assert synapse.finish(records)[1] == ["2211 training slices, 12 volumes"]


def sha_of(target: Path) -> str:
    return json.loads((target / "manifest.json").read_text())["sha256"]


@pytest.mark.parametrize("kind", ["RawData.zip", "averaged", "flat"])
def test_every_form_of_the_download_gives_the_same_data(download, prepared, tmp_path, kind):
    if kind == "RawData.zip":
        sources = [raw_btcv.zip_folder(download, tmp_path / "RawData.zip", "RawData/Training")]
    elif kind == "averaged":
        sources = [
            raw_btcv.zip_folder(download / "img", tmp_path / "i.zip", "averaged-training-images"),
            shutil.copytree(download / "label", tmp_path / "averaged-training-labels"),
        ]
    else:
        sources = [tmp_path / "flat"]
        for folder in ("img", "label"):
            shutil.copytree(download / folder, sources[0], dirs_exist_ok=True)
    main(["synapse", *map(str, sources), str(tmp_path / "out"), "--workers", "1"])
    assert sha_of(tmp_path / "out") == sha_of(prepared)
    assert not list((tmp_path / "out").rglob(".*"))


def test_another_orientation_is_another_data_set(download, prepared, tmp_path):
    main(["synapse", str(download), str(tmp_path / "out"), "--orientation", "SRA", "--workers", "1"])
    with np.load(tmp_path / "out/train_npz/case0005_slice003.npz") as arrays:
        assert np.array_equal(arrays["label"], expected(5)[1][3][::-1, ::-1])
    assert sha_of(tmp_path / "out") != sha_of(prepared)
    assert read_prepared(tmp_path / "out").orientation == "SRA"


def damaged(download: Path, tmp_path: Path) -> Path:
    return shutil.copytree(download, tmp_path / "copy")


def test_a_missing_case_is_named_with_the_place_to_download_it(download, tmp_path):
    copy = damaged(download, tmp_path)
    (copy / "label/label0007.nii.gz").unlink()
    with pytest.raises(UserError, match=r"1 of 30 cases are missing.*0007(.|\n)*synapse\.org"):
        main(["synapse", str(copy), str(tmp_path / "out"), "--workers", "1"])
    assert not (tmp_path / "out").exists()


def test_a_label_of_another_size_fails_alone(download, tmp_path):
    copy = damaged(download, tmp_path)
    shutil.copy(copy / "label/label0008.nii.gz", copy / "label/label0007.nii.gz")
    import SimpleITK as sitk

    label = sitk.ReadImage(str(copy / "label/label0007.nii.gz"))
    sitk.WriteImage(label[:-1], str(copy / "label/label0007.nii.gz"))
    with pytest.raises(UserError, match=r"1 of 30 cases failed(.|\n)*case0007: label/label0007.nii.gz: found size \("):
        main(["synapse", str(copy), str(tmp_path / "out"), "--workers", "1"])
    assert (tmp_path / "out/test_vol_h5/case0008.npy.h5").is_file()
    assert not list((tmp_path / "out/train_npz").glob("case0007*"))
    # the file is mended: only its case is made
    before = (tmp_path / "out/train_npz/case0005_slice000.npz").stat().st_mtime_ns
    shutil.copy(download / "label/label0007.nii.gz", copy / "label/label0007.nii.gz")
    main(["synapse", str(copy), str(tmp_path / "out"), "--workers", "1"])
    assert (tmp_path / "out/train_npz/case0005_slice000.npz").stat().st_mtime_ns == before
    assert (tmp_path / "out/train_npz/case0007_slice000.npz").is_file()


def test_a_label_that_the_challenge_does_not_have_is_refused(download, tmp_path):
    import SimpleITK as sitk

    copy = damaged(download, tmp_path)
    path = copy / "label/label0007.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path)) + 3, str(path))
    with pytest.raises(
        UserError, match=r"label0007\.nii\.gz: found the labels 14 \(72 voxels\), 15 .*16 .*; expected 1, 2"
    ):
        main(["synapse", str(copy), str(tmp_path / "out"), "--workers", "1"])


def test_the_same_case_twice_is_refused(download, tmp_path):
    copy = damaged(download, tmp_path)
    raw_btcv.write_case(copy / "more", copy / "more", 7)
    with pytest.raises(UserError, match=r"img0007\.nii\.gz is there twice: img/.* and more/"):
        main(["synapse", str(copy), str(tmp_path / "out"), "--workers", "1"])


def test_a_wrong_orientation_is_refused(download, tmp_path):
    with pytest.raises(UserError, match=r"--orientation LPL: expected three letters"):
        main(["synapse", str(download), str(tmp_path / "out"), "--orientation", "LPL"])


def test_values_that_are_no_hounsfield_units_are_noted(tmp_path):
    from datasets.prepare.shared.sources import SourceFile
    from datasets.prepare.shared.volumes import prepare_volume

    raw_btcv.write_case(tmp_path, tmp_path, 5)
    import SimpleITK as sitk

    path = tmp_path / "img0005.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path)) // 100 + 10, str(path))
    files = [SourceFile(name, 1, tmp_path / name) for name in ("img0005.nii.gz", "label0005.nii.gz")]
    (tmp_path / "train_npz").mkdir()
    _, facts = prepare_volume(tmp_path, *files, "case0005", False, "SLP", "ct", synapse.LABEL_MAP)
    assert re.search(r"values from 0 to 20 do not fill the window", facts["note"])
