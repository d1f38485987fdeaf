"""The phantom on disk: reproducible, whole or not there, read by the common loader."""

import hashlib
import json

import h5py
import numpy as np
import pytest

from datasets.phantom import generate as phantom
from datasets.phantom.generate import draw_case, write_phantom
from datasets.volumes.lists import read_list
from datasets.volumes.sets import SynapseSlices, SynapseVolumes, check_slices, check_volumes
from utils.errors import UserError

SMALL = {"num_train": 2, "num_test": 1, "size": 48, "slices": 12, "seed": 5}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(root, **SMALL)
    return root


def digests(root):
    return {p.relative_to(root): hashlib.sha256(p.read_bytes()).digest() for p in root.rglob("*") if p.is_file()}


def test_layout_is_read_by_the_common_loader(written):
    train, test = read_list(written / "lists/train.txt"), read_list(written / "lists/test_vol.txt")
    assert train == [f"case{case:04d}_slice{number:03d}" for case in (1, 2) for number in range(12)]
    assert test == ["case0003"]
    summary = check_slices(written / "train_npz", train, 9)
    assert (summary.num_cases, summary.num_images, summary.sizes) == (2, 24, {(48, 48): 24})
    assert check_volumes(written / "test_vol_h5", test, 9).num_images == 12
    image, target = SynapseSlices(written / "train_npz", train, (48, 48))[14]
    case = draw_case("", (5, 0, 1), 48, 12)
    np.testing.assert_array_equal(image[0].numpy(), case.image[2])
    np.testing.assert_array_equal(target.numpy(), case.label[2])
    volume = SynapseVolumes(written / "test_vol_h5", test)[0]
    case = draw_case("", (5, 1, 0), 48, 12)
    np.testing.assert_array_equal(volume.image, case.image)
    np.testing.assert_array_equal(volume.label, case.label)
    assert volume.spacing == pytest.approx((224 / 12, 370 / 48, 370 / 48))


def test_types_are_those_of_the_real_files(written):
    with np.load(written / "train_npz/case0001_slice000.npz") as arrays:
        assert {name: arrays[name].dtype for name in arrays} == {"image": np.float32, "label": np.float32}
    with h5py.File(written / "test_vol_h5/case0003.npy.h5") as file:
        assert (file["image"].dtype, file["label"].dtype) == (np.float32, np.float32)


def test_same_parameters_same_bytes(written, tmp_path):
    write_phantom(tmp_path / "again", **SMALL)
    assert digests(tmp_path / "again") == digests(written)
    assert list(tmp_path.iterdir()) == [tmp_path / "again"]
    write_phantom(tmp_path / "seed", **{**SMALL, "seed": 6})
    slices = [root / "train_npz/case0001_slice006.npz" for root in (written, tmp_path / "seed")]
    assert slices[0].read_bytes() != slices[1].read_bytes()


def test_patients_do_not_depend_on_their_number(written, tmp_path):
    write_phantom(tmp_path / "more", **{**SMALL, "num_train": 3})
    old, new = digests(written), digests(tmp_path / "more")
    shared = {path for path in old if path.suffix == ".npz"}
    assert len(shared) == 24
    assert all(old[path] == new[path] for path in shared)
    volumes = [
        SynapseVolumes(written / "test_vol_h5", ["case0003"]),
        SynapseVolumes(tmp_path / "more/test_vol_h5", ["case0004"]),
    ]
    np.testing.assert_array_equal(volumes[0][0].image, volumes[1][0].image)


def test_existing_phantom_is_kept(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_phantom(written, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    with pytest.raises(UserError, match=r"another phantom, .*\"seed\": 5.* expected .*\"seed\": 8"):
        write_phantom(written, **{**SMALL, "seed": 8})


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no phantom data set"):
        write_phantom(tmp_path, **SMALL)
    (tmp_path / "phantom.json").write_text("[")
    with pytest.raises(UserError, match="no phantom data set"):
        write_phantom(tmp_path, **SMALL)
    with pytest.raises(UserError, match="no phantom data set"):
        write_phantom(tmp_path / "notes.txt", **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "phantom.json"]


@pytest.mark.parametrize("lost", ["train_npz/case0002_slice003.npz", "test_vol_h5/case0003.npy.h5"])
def test_incomplete_phantom_is_refused(tmp_path, lost):
    write_phantom(tmp_path / "p", **SMALL)
    (tmp_path / "p" / lost).unlink()
    with pytest.raises(UserError, match="files missing"):
        write_phantom(tmp_path / "p", **SMALL)


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def run_out_of_space(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(phantom, "draw_case", run_out_of_space)
    with pytest.raises(UserError, match=r"p: cannot be written \(no space"):
        write_phantom(tmp_path / "p", **SMALL)
    assert not list(tmp_path.iterdir())
    (tmp_path / "p").mkdir()
    monkeypatch.undo()
    write_phantom(tmp_path / "p", **SMALL)  # an empty folder is taken
    assert json.loads((tmp_path / "p/phantom.json").read_text(encoding="utf-8")) == {**SMALL, "version": 1}
