"""The files of a download: archives are unpacked into no other folder, and whatever system made them."""

import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datasets.images.split import read_split
from datasets.prepare.command import build_parser, preprocessed
from datasets.prepare.shared import sources
from datasets.prepare.shared.sources import list_files
from prepare_data import main
from tests.support.trees import write_picture_tree
from utils.errors import UserError


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members:
            out.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:/evil.png"])
def test_members_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="leads out of the folder"):
        list_files([archive(tmp_path / "a.zip", ("Original/1.png", b""), (name, b"x"))])


def test_links_in_an_archive_are_refused(tmp_path):
    link = zipfile.ZipInfo("Original/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        list_files([tmp_path / "a.zip"])


def test_a_member_that_is_too_large_is_refused_from_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST", 1000)
    path = archive(tmp_path / "a.zip", ("1.png", bytes(1001)))
    with pytest.raises(UserError, match="1001 bytes unpacked; expected at most 1000"):
        list_files([path])


def test_a_member_is_unpacked_whole_and_its_place_is_removed(tmp_path):
    data = np.random.default_rng(0).bytes(3_000_000)
    (file,) = list_files([archive(tmp_path / "a.zip", ("deep/er/1.png", data), ("__MACOSX/._1.png", b""))])
    with file.local(tmp_path) as path:
        assert path.name == "1.png"
        assert path.read_bytes() == data
    assert [item.name for item in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("what", ["missing", "text", "cut"])
def test_a_source_that_is_no_folder_and_no_whole_archive(tmp_path, what):
    path = tmp_path / "a.zip"
    if what == "text":
        path.write_text("not a zip")
    elif what == "cut":
        archive(path, ("1.png", bytes(5000)))
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=str(path)):
        list_files([path])


def test_an_archive_made_on_windows(tmp_path):
    """Names have backslashes, those of folders at their end, too; one folder is around images and masks."""
    tree = write_picture_tree(tmp_path / "tree", 4)
    members = [(f"set\\{p.parent.name}\\{p.name}", p.read_bytes()) for p in sorted(tree.rglob("*.*"))]
    path = archive(tmp_path / "a.zip", ("set\\", b""), ("set\\images\\", b""), *members)
    assert [file.name for file in list_files([path])][:2] == ["set/images/000.jpg", "set/images/001.jpg"]
    main(["folder", str(path), str(tmp_path / "out"), "--workers", "1"])
    assert len(read_split(tmp_path / "out/test_train_data.csv")) == 4
    assert (tmp_path / "out/images/002.jpg").read_bytes() == (tree / "images/002.jpg").read_bytes()


def test_links_to_folders_are_followed_and_each_folder_is_read_once(tmp_path):
    """The patient folders are links, one of them to a folder that is there itself; others lead back or nowhere."""
    for name in (
        "store/case1/a.png",
        "store/case2/deep/b.png",
        "raw/case3/c.png",
        "store/.hidden/d.png",
        "other/e.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    links = {"case1": "../store/case1", "case2": "../store/case2", "Again": "case3", ".h": "../store", "up": ".."}
    links |= {"case3/loop": "..", "nowhere": "../not/there"}
    for name, to in links.items():
        (tmp_path / "raw" / name).symlink_to(to)
    assert [file.name for file in list_files([tmp_path / "raw"])] == ["case1/a.png", "case2/deep/b.png", "case3/c.png"]
    (tmp_path / "linked").symlink_to("raw")
    assert len(list_files([tmp_path / "linked"])) == 3
    assert sum(file.base == "a.png" for file in list_files([tmp_path / "raw", tmp_path / "store"])) == 2


def test_a_preprocessed_download_behind_a_link_is_found(tmp_path):
    (tmp_path / "store/set/train_npz").mkdir(parents=True)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/link").symlink_to("../store")
    args = build_parser("").parse_args(["acdc", str(tmp_path / "raw"), str(tmp_path / "out")])
    assert preprocessed(args) == tmp_path / "raw/link/set"
