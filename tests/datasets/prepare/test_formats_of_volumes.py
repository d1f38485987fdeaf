"""Kinds of volume files, and the numbers of their labels."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from datasets.prepared import read_prepared
from datasets.volumes.lists import read_list
from tests.datasets.prepare.test_volumes import draw, nnunet, prepare
from utils.errors import UserError
from utils.log import logging_to

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
