"""Carrying out a plan: idempotent, resumable, safe with archives, and nothing of the user's lost."""

import json
import shutil
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from datasets.prepare.shared.manifest import content_sha256, read_manifest
from prepare_data import main
from tests.support.trees import write_picture_tree
from utils import files
from utils.errors import UserError


@pytest.fixture
def download(tmp_path) -> Path:
    """Original/1.png and Ground Truth/1.png to 12, as CVC-ClinicDB has them."""
    tree = write_picture_tree(tmp_path / "tree", 12)
    folder = tmp_path / "download"
    for old, new in (("images", "Original"), ("masks", "Ground Truth")):
        (folder / new).mkdir(parents=True)
        for number, path in enumerate(sorted((tree / old).iterdir()), 1):
            cv2.imwrite(str(folder / new / f"{number}.png"), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    return folder


def cvc(download: Path, target: Path, *flags: str) -> None:
    main(["cvc", str(download), str(target), "--workers", "1", *flags])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_writes_nothing(download, tmp_path):
    cvc(download, tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cvc", "isic", "folder"])
@pytest.mark.parametrize("size", ["90", "-0.5", "nan", "half"])
def test_a_share_that_is_none_is_refused_before_any_work(download, tmp_path, name, size):
    with pytest.raises(UserError, match=f"--size {size}: expected the share of training images, above 0 and below 1"):
        main([name, str(download), str(tmp_path / "out"), f"--size={size}"])
    assert not (tmp_path / "out").exists()


def test_pictures_are_links_and_the_download_stays_as_it_is(download, tmp_path):
    before = contents(download)
    cvc(download, tmp_path / "out")
    assert (tmp_path / "out/images/3.png").is_symlink()
    assert contents(download) == before
    cvc(download, tmp_path / "copies", "--copy")
    assert not (tmp_path / "copies/images/3.png").is_symlink()
    assert contents(tmp_path / "copies/images") == contents(download / "Original")


def test_copies_are_made_where_links_fail(download, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    cvc(download, tmp_path / "out")
    assert contents(tmp_path / "out/masks") == contents(download / "Ground Truth")


def test_links_become_copies_without_a_write_through_them(download, tmp_path):
    before = contents(download)
    cvc(download, tmp_path / "out")
    cvc(download, tmp_path / "out", "--copy")
    assert not (tmp_path / "out/images/3.png").is_symlink()
    assert contents(download) == before


def test_twice_gives_the_same_and_makes_nothing(download, tmp_path):
    cvc(download, tmp_path / "out", "--copy")
    files, times = contents(tmp_path / "out"), {p: p.stat().st_mtime_ns for p in (tmp_path / "out/images").iterdir()}
    cvc(download, tmp_path / "out", "--copy")
    assert contents(tmp_path / "out") == files
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/images").iterdir()} == times


def test_what_is_missing_or_of_a_changed_source_is_made_again(download, tmp_path):
    cvc(download, tmp_path / "out", "--copy")
    (tmp_path / "out/images/3.png").unlink()
    (tmp_path / "out/masks/4.png").write_bytes(b"cut")
    shutil.copy(download / "Original/6.png", download / "Original/5.png")
    cvc(download, tmp_path / "out", "--copy")
    assert contents(tmp_path / "out/images") == contents(download / "Original")
    assert contents(tmp_path / "out/masks") == contents(download / "Ground Truth")


def test_processes_give_the_same_as_one(download, tmp_path):
    cvc(download, tmp_path / "out", "--copy")
    main(["cvc", str(download), str(tmp_path / "two"), "--workers", "2", "--copy"])
    assert contents(tmp_path / "out") == contents(tmp_path / "two")


def test_what_another_call_left_is_removed_and_nothing_else(download, tmp_path):
    cvc(download, tmp_path / "out")
    (tmp_path / "out/images/mine.txt").write_text("mine")
    for folder in ("Original", "Ground Truth"):
        (download / folder / "12.png").unlink()
    cvc(download, tmp_path / "out")
    assert not (tmp_path / "out/images/12.png").is_symlink()
    assert (tmp_path / "out/images/mine.txt").read_text() == "mine"


def test_a_split_that_the_user_changed_is_kept(download, tmp_path):
    cvc(download, tmp_path / "out")
    csv = tmp_path / "out/test_train_data.csv"
    ours = csv.read_text()
    cvc(download, tmp_path / "out", "--size", "0.5")
    assert csv.read_text() != ours  # nobody had touched it
    csv.write_text("image_id,category\n1.png,train\n2.png,test\n")
    cvc(download, tmp_path / "out")
    assert csv.read_text() == "image_id,category\n1.png,train\n2.png,test\n"
    csv.unlink()
    cvc(download, tmp_path / "out")
    assert csv.read_text() == ours


def test_a_stopped_call_goes_on(download, tmp_path, monkeypatch):
    from datasets.prepare.shared import run

    done, whole = [], run._do

    def stop_after_five(case, *rest):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(case.name)
        return whole(case, *rest)

    monkeypatch.setattr(run, "_do", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        cvc(download, tmp_path / "out", "--copy")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert sorted(manifest["cases"]) == sorted(done)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/images").iterdir()}
    monkeypatch.setattr(run, "_do", whole)
    cvc(download, tmp_path / "out", "--copy")
    assert len(list((tmp_path / "out/images").iterdir())) == 12
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())


def test_a_call_that_was_killed_at_its_first_case_goes_on(download, tmp_path, monkeypatch):
    from datasets.prepare.shared import run

    whole, left = run._do, tmp_path / "left"  # what a kill leaves

    def keep_what_is_there(case, target, *rest):
        if not left.exists():
            shutil.copytree(target, left)
        return whole(case, target, *rest)

    monkeypatch.setattr(run, "_do", keep_what_is_there)
    cvc(download, tmp_path / "out")
    cvc(download, left)
    assert len(list((left / "images").iterdir())) == 12


@pytest.mark.parametrize("held", ["file", "other", "source"])
def test_a_target_that_holds_something_else_is_refused(download, tmp_path, held):
    target = tmp_path / "out"
    if held == "file":
        target.write_text("mine")
        expected = "is a file"
    elif held == "other":
        target.mkdir()
        (target / "thesis.txt").write_text("mine")
        expected = "no manifest.json"
    else:
        target = download
        expected = "holds the source"
    before = contents(tmp_path)
    with pytest.raises(UserError, match=expected):
        cvc(download, target)
    assert contents(tmp_path) == before


def test_the_folder_of_another_data_set_is_refused(download, tmp_path):
    cvc(download, tmp_path / "out")
    with pytest.raises(UserError, match="holds the data set cvc"):
        main(["folder", str(download), str(tmp_path / "out")])


def test_a_damaged_member_fails_its_case_and_no_other(download, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        for file in sorted(download.rglob("*.png")):
            out.write(file, file.relative_to(download).as_posix())
        offset = out.getinfo("Original/7.png").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 200] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"1 of 12 cases failed(.|\n)*7: .*a\.zip: cannot be read"):
        cvc(path, tmp_path / "out")
    assert len(list((tmp_path / "out/images").iterdir())) == 11


# --- checksums ----------------------------------------------------------------------------------


def test_a_checksum_is_of_what_arrays_hold(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "a.npz", image=array, label=array > 2)
    np.savez_compressed(tmp_path / "b.npz", label=array > 2, image=array)
    same = content_sha256(tmp_path / "a.npz")
    assert content_sha256(tmp_path / "b.npz") == same
    others = ({"image": array.T}, {"image": array.astype(np.float32)}, {"image": array + 1e-9}, {"picture": array})
    for other in others:
        np.savez(tmp_path / "c.npz", label=array > 2, **other)
        assert content_sha256(tmp_path / "c.npz") != same


@pytest.mark.parametrize("kind", ["link", "size"])
def test_a_checksum_of_a_file_that_points_elsewhere_or_claims_too_much(tmp_path, monkeypatch, kind):
    monkeypatch.setenv(files.LIMIT, "1000")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["image"] = np.zeros(2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = h5py.ExternalLink("other.h5", "image") if kind == "link" else np.zeros(1000)
    with pytest.raises(UserError, match="lies elsewhere" if kind == "link" else "claims an image of 8,000 bytes"):
        content_sha256(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": ["cvc"]},
        {"parameters": []},
        {"lists": "a"},
        {"lists": {"../a.txt": ""}},
        {"sha256": None},
        {"cases": {"1": None}},
        {"cases": {"1": {"sources": {}, "outputs": {"images/1.png": "sha"}}}},
        {"cases": {"1": {"outputs": {"images/1.png": {"sha256": "", "bytes": 1}}}}},
        {"cases": {"1": {"sources": {}, "outputs": {"../1.png": {"sha256": "", "bytes": 1}}}}},
        {"cases": {"1": {"sources": {}, "outputs": {"/dev/null": {"sha256": "", "bytes": 1}}}}},
    ],
)
def test_a_manifest_that_is_damaged_or_made_up_is_refused(tmp_path, changed):
    whole = {"format": 1, "dataset": "cvc", "sha256": "", "parameters": {}, "lists": {}}
    outputs = {"images/1.png": {"sha256": "", "bytes": 1}}
    whole["cases"] = {"1": {"sources": {}, "outputs": outputs, "facts": {}}}
    (tmp_path / "manifest.json").write_text(json.dumps(whole))
    assert read_manifest(tmp_path) == whole
    some = {name: value for name, value in (whole | changed).items() if value is not None}
    (tmp_path / "manifest.json").write_text(json.dumps(some))
    with pytest.raises(UserError, match=r"manifest\.json: no manifest of format 1"):
        read_manifest(tmp_path)
