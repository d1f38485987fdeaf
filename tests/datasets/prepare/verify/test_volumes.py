"""verify on slices and volumes: a clean folder passes; each thing that breaks a training is found."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from prepare_data import main
from tests.support import raw_btcv
from tests.support.places import SHARED
from tests.support.synapse_tree import write_slices, write_volume
from utils.errors import UserError
from utils.log import logging_to


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("btcv")
    raw_btcv.write_download(root / "raw")
    main(["synapse", str(root / "raw"), str(root / "out"), "--workers", "1"])
    return root / "out"


@pytest.fixture
def data(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "data")


def verify(data: Path, *flags: str) -> tuple[int, list[tuple[str, str]], str]:
    """The exit code, (level, kind) of every finding, and all that was said."""
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(data), *flags])
    text = (data / "verify.json").read_text()
    found = json.loads(text)["findings"]
    return stopped.value.code, sorted({(one["level"], one["kind"]) for one in found}), text


def test_what_prepare_data_made_is_right(data):
    code, found, _ = verify(data)
    assert (code, found) == (0, [])
    tables = json.loads((data / "verify.json").read_text())["tables"]
    assert tables["parts"][1:] == [["train", 18, 108], ["test", 12, 72]]
    assert [row[1] for row in tables["organs"][1:]] == ["30 of 30"] * 6


def edit_slice(data: Path, change, name: str = "case0005_slice003") -> None:
    path = data / f"train_npz/{name}.npz"
    with np.load(path) as arrays:
        held = dict(arrays)
    change(held)
    np.savez(path, **held)


def edit_volume(data: Path, change, name: str = "case0008") -> None:
    with h5py.File(data / f"test_vol_h5/{name}.npy.h5", "r+") as file:
        change(file)


def turn_place(file):
    """Say SPL of what lies in SLP, in orientation and affine alike."""
    file.attrs.update(
        orientation="SPL", affine=file.attrs["affine"][:, [0, 2, 1, 3]], spacing=file.attrs["spacing"][[0, 2, 1]]
    )


def nan(held):
    held["image"][3, 4] = np.nan


def label_nine(held):
    held["label"][0, 0] = 9


def constant(held):
    held["image"][:] = 0.5


def cut(held):
    held["image"], held["label"] = held["image"][:-1], held["label"][:-1]


def share_a_case(data):
    with (
        np.load(data / "train_npz/case0005_slice003.npz") as train,
        h5py.File(data / "test_vol_h5/case0008.npy.h5", "r+") as file,
    ):
        file["image"][2] = train["image"]


def list_twice(data):
    path = data / "lists/test_vol.txt"
    path.write_text(path.read_text() + "case0005\n")
    with (
        h5py.File(data / "test_vol_h5/case0005.npy.h5", "w") as file,
        h5py.File(data / "test_vol_h5/case0008.npy.h5") as other,
    ):
        for name in other:
            file[name] = other[name][()]
        file.attrs.update(other.attrs)


def drop_class(data):
    for path in (data / "train_npz").iterdir():
        edit_slice(data, lambda held: held["label"].__setitem__(held["label"] == 8, 0), path.stem)


DAMAGES = {
    "missing slice": (lambda d: (d / "train_npz/case0005_slice003.npz").unlink(), "files"),
    "missing volume": (lambda d: (d / "test_vol_h5/case0008.npy.h5").unlink(), "files"),
    "cut file": (lambda d: (d / "train_npz/case0005_slice003.npz").write_bytes(b"PK cut"), "unreadable"),
    "NaN": (lambda d: edit_slice(d, nan), "unreadable"),
    "label 9": (lambda d: edit_slice(d, label_nine), "unreadable"),
    "no label": (lambda d: edit_volume(d, lambda file: file.pop("label")), "unreadable"),
    "constant": (lambda d: edit_slice(d, constant), "constant slices with a label"),
    "size": (lambda d: edit_slice(d, cut), "sizes that differ"),
    "other value": (lambda d: edit_slice(d, lambda h: h["image"].__setitem__((0, 0), 0.123)), "manifest"),
    "orientation": (
        lambda d: edit_volume(d, turn_place),
        "orientations that differ",
    ),
    "no list": (lambda d: (d / "lists/train.txt").write_text(""), "lists"),
    "two parts": (list_twice, "patients in several parts"),
    "same slice": (share_a_case, "cases alike in different parts"),
    "no class": (drop_class, "classes without training data"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_breaks_a_training_is_an_error(data, name):
    damage, kind = DAMAGES[name]
    damage(data)
    code, found, _ = verify(data)
    assert code == 1
    assert ("error", kind) in found


def test_a_folder_that_lies_otherwise_than_it_says(data):
    """Every array turned: the organs tell, whatever prepared.json says."""
    prepared = json.loads((data / "prepared.json").read_text())
    (data / "prepared.json").write_text(json.dumps(prepared | {"orientation": "SRP"}))
    _, found, text = verify(data)
    assert ("error", "orientation") in found
    assert "spleen on the left side of the liver" in text
    assert "kidney on the back side" not in text.split("findings")[1]


def test_an_empty_slice_is_a_note(data):
    def empty(held):
        held["image"][:], held["label"][:] = 0, 0

    edit_slice(data, empty)
    _, found, _ = verify(data)
    assert ("note", "constant slices") in found
    assert ("error", "constant slices with a label") not in found


def test_a_preprocessed_download_is_recognised_and_checked(whole, tmp_path):
    """As it is passed around: no manifest, no prepared.json, no lists, in a folder of a project."""
    inner = tmp_path / "project/data/Synapse"
    for name in ("train_npz", "test_vol_h5"):
        shutil.copytree(whole / name, inner / name)
    with pytest.raises(SystemExit) as stopped:
        main(["synapse", str(tmp_path / "project"), str(tmp_path / "report")])
    report = json.loads((tmp_path / "report/verify.json").read_text())
    kinds = {found["kind"] for found in report["findings"] if found["level"] == "error"}
    assert stopped.value.code == 1
    assert kinds == {"files"}  # the published lists name the slices beyond the sixth, which this one lacks
    assert [row[1] for row in report["tables"]["organs"][1:]] == ["30 of 30"] * 6
    assert not (inner / "verify.json").exists()
    with pytest.raises(SystemExit):
        main(["synapse", str(tmp_path / "project"), str(tmp_path / "dry"), "--dry-run"])
    assert not (tmp_path / "dry").exists()
    archive = shutil.make_archive(str(tmp_path / "download"), "zip", tmp_path / "project")
    with pytest.raises(UserError, match=r"download\.zip: holds train_npz/, preprocessed data; unpack it, and give"):
        main(["synapse", archive, str(tmp_path / "out")])


def test_a_layout_of_lists_beside_the_data(tmp_path):
    """Such as ACDC as it is passed around: what is not known is a note."""
    write_slices(tmp_path, ["a_frame01_slice_1", "a_frame01_slice_2"])
    for seed, name in enumerate(("b_frame01", "c_frame01"), 7):
        write_volume(tmp_path / f"test_vol_h5/{name}.npy.h5", seed)
    for name, lines in (
        ("train", "a_frame01_slice_1\na_frame01_slice_2"),
        ("val_vol", "b_frame01"),
        ("test_vol", "c_frame01"),
    ):
        (tmp_path / f"{name}.txt").write_text(lines)
    code, found, _ = verify(tmp_path)
    assert (code, [kind for _, kind in found]) == (0, ["class names", "lists", "manifest", "no spacing"])
    assert ("note", "lists") not in verify(tmp_path, "--list_dir", str(tmp_path))[1]
    with pytest.raises(SystemExit) as stopped, logging_to(tmp_path / "log.txt"):
        main(["acdc", str(tmp_path), str(tmp_path / "report")])
    assert stopped.value.code == 0
    assert (tmp_path / "report/verify.json").is_file()
    said = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert f"--dataset {tmp_path} --list_dir {tmp_path} --num_classes 4 --class_names RV,Myo,LV" in said
    (tmp_path / "test_vol.txt").write_text("b_frame01")
    assert verify(tmp_path)[1][0] == ("error", "cases in two lists")


@pytest.mark.skipif(not (SHARED / "data/chaos_t2.tar").is_file(), reason="the real volumes are not here")
def test_real_abdomens_lie_as_prepared(tmp_path):
    import tarfile

    with tarfile.open(SHARED / "data/chaos_t2.tar") as archive:
        chosen = [m for m in archive if m.name.endswith("json") or any(f"chaos_{n:02d}" in m.name for n in (1, 2, 5))]
        archive.extractall(tmp_path, chosen, filter="data")
    main(["folder", str(tmp_path / "chaos_t2"), str(tmp_path / "out"), "--orientation", "SLP", "--workers", "1"])
    code, _, text = verify(tmp_path / "out")
    assert code == 0
    assert [row[1] for row in json.loads(text)["tables"]["organs"][1:]] == ["3 of 3"] * 5
