"""What predict.py segments: files, folders, series, patterns; and names of masks that never clash."""

import sys
from pathlib import Path

import pytest

from datasets.files.find import find_inputs, mask_paths
from utils.errors import UserError

DICOM = bytes(128) + b"DICM"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Photographs, a series, and what is neither, in folders within folders."""
    for name in (
        *("in/a.png", "in/b.JPG", "in/b.tif", "in/notes.txt", "in/.hidden.png"),
        *("in/deep/a.png", "in/deep/deeper/c.nii.gz", "in/.cache/x.png", "in/masks/a_mask.png"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    for name in ("in/ct/1.dcm", "in/ct/2", "in/ct/DICOMDIR", "mixed/1.dcm", "mixed/x.png", "only/1.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(DICOM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*words, recursive=False, out=None):
    inputs = find_inputs([str(word) for word in words], recursive, out)
    return {str(path): str(place) for path, place in inputs.places.items()}, inputs.skipped


def masks(*words, recursive=False, out="out", force=False):
    inputs = find_inputs([str(word) for word in words], recursive, Path(out))
    return [path.relative_to(out).as_posix() for path in mask_paths(Path(out), inputs.places, force)]


def test_a_folder_is_not_searched_deeper_unless_asked(tree):
    places, skipped = found("in")
    assert places == {"in/a.png": "a.png", "in/b.JPG": "b.JPG", "in/b.tif": "b.tif"}
    assert sorted(skipped) == [
        *("in/ct: a folder; give --recursive", "in/deep: a folder; give --recursive"),
        *("in/masks: a folder; give --recursive", "in/notes.txt: no image of a known kind"),
    ]


def test_recursive_keeps_the_structure_and_leaves_the_output_folder_out(tree):
    places, skipped = found("in", recursive=True, out=Path("in/masks"))
    assert places == {
        "in/a.png": "a.png",
        "in/b.JPG": "b.JPG",
        "in/b.tif": "b.tif",
        "in/ct": "ct",
        "in/deep/a.png": "deep/a.png",
        "in/deep/deeper/c.nii.gz": "deep/deeper/c.nii.gz",
    }
    assert "in/masks: the output folder" in skipped
    assert "in/notes.txt: no image of a known kind" in skipped
    assert masks("in", recursive=True, out="in/masks", force=True) == [
        "a",
        "b.JPG",
        "b.tif",
        "ct",
        "deep/a",
        "deep/deeper/c",
    ]


def test_a_folder_is_a_series_only_if_all_its_images_are_dicom(tree):
    assert found("only")[0] == {"only": "only"}
    places, skipped = found("in/ct")
    assert places == {"in/ct": "ct"}
    assert skipped == ["in/ct/DICOMDIR: no image of a known kind"]
    places, skipped = found("mixed")
    assert places == {"mixed/1.dcm": "1.dcm", "mixed/x.png": "x.png"}
    assert skipped == []
    note = "mixed: 1 DICOM files beside other images, each segmented alone; a series needs its own folder"
    assert find_inputs(["mixed"]).notes == [note]


def test_patterns_that_no_shell_expanded(tree):
    assert list(found("in/*.png")[0]) == ["in/a.png"]
    assert list(found("in/**/*.gz")[0]) == ["in/deep/deeper/c.nii.gz"]
    assert list(found(tree / "in" / "?.*")[0]) == [str(tree / "in" / name) for name in ("a.png", "b.JPG", "b.tif")]
    with pytest.raises(UserError, match=r"--input in/\*\.gif: no file has such a name"):
        found("in/*.gif")


def test_a_name_with_brackets_or_stars_that_exists_is_no_pattern(tree):
    for name in ("scan[1].png", "scan1.png", "all*.png", "all2.png"):
        (tree / name).write_bytes(b"?")
    assert found("scan[1].png", "all*.png")[0] == {"scan[1].png": "scan[1].png", "all*.png": "all*.png"}


def test_equal_names_in_different_folders_and_of_different_kinds(tree):
    assert masks("in/a.png", "in/deep/a.png") == ["a", "deep/a"]
    assert masks("in/b.JPG", "in/b.tif", "in/a.png") == ["b.JPG", "b.tif", "a"]
    assert masks("in/a.png", "in/a.png", "./in/a.png") == ["a"]
    (tree / "in" / "A.tif").write_bytes(b"?")  # one file with a.png where the file system ignores the case
    assert masks("in/a.png", "in/A.tif") == ["a.png", "A.tif"]
    for name in ("x.png", "x.jpg", "x.png.jpg"):
        (tree / "in" / name).write_bytes(b"?")
    with pytest.raises(UserError, match=r"several files would have one mask, x\.png"):
        masks("in/x.png", "in/x.jpg", "in/x.png.jpg")


@pytest.mark.parametrize("name", ["scan[1]", "scan*", "scan", "ö ?"])
@pytest.mark.parametrize("ending", ["_mask.png", "_mask.nii.gz", "_overlay.png"])
def test_results_are_not_replaced_unless_forced_whatever_the_name(tree, name, ending):
    (tree / f"{name}.png").write_bytes(b"?")
    assert masks(f"{name}.png") == [name]
    (tree / "out" / f"{name}{ending}").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"--output_dir out: already holds .*give --force"):
        masks(f"{name}.png")
    assert masks(f"{name}.png", force=True) == [name]


def test_other_masks_beside_do_not_matter(tree):
    assert masks("in/a.png") == ["a"]
    (tree / "out" / "aa_mask.png").write_bytes(b"mine")
    (tree / "out" / "a_mask.txt").write_bytes(b"mine")
    assert masks("in/a.png") == ["a"]


def test_an_input_is_never_replaced(tree):
    (tree / "in" / "a_mask.png").write_bytes(b"?")
    with pytest.raises(UserError, match=r"a mask would replace an input, in/a_mask\.png"):
        masks("in", out="in", force=True)


def test_refusals(tree):
    (tree / "empty").mkdir()
    for words, message in (
        (["nowhere.png"], r"--input nowhere\.png: no such file or folder"),
        ([""], "--input : no such file or folder"),
        (["empty"], "--input empty: it holds no image of a known kind; give --recursive"),
        ([], "--input: nothing given"),
    ):
        with pytest.raises(UserError, match=message):
            found(*words)
    with pytest.raises(UserError, match=r"no image of a known kind$"):
        found("empty", recursive=True)
    with pytest.raises(UserError, match=r"--output_dir in/a\.png/x: \S*in/a\.png is no folder"):
        masks("in/a.png", out="in/a.png/x")


def test_the_folder_given_may_be_the_current_one(tree, monkeypatch):
    monkeypatch.chdir(tree / "only")
    assert found(".")[0] == {".": "only"}
    monkeypatch.chdir(tree / "in" / "deep")
    assert found(".", recursive=True)[0] == {"a.png": "a.png", "deeper/c.nii.gz": "deeper/c.nii.gz"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which nobody, root included, can make a file")
def test_an_output_folder_that_cannot_be_written_is_refused_at_once(tree):
    with pytest.raises(UserError, match=r"--output_dir /proc/self: /proc/self cannot be written to"):
        masks("in", out="/proc/self")


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("a_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"), "in/a_0000.nii.gz and in/a_0001.nii.gz"),
        (("a_0000.nrrd", "a_0001.nrrd", "a_0002.nrrd"), "in/a_0000.nrrd and in/a_0001.nrrd"),
        (("a_0001.nii.gz", "a_0002.nii.gz", "b_0000.nii.gz"), None),  # numbers of cases
        (("a_0000.png", "a_0001.png"), None),  # frames of a video
        (("a_0000.nii.gz", "deep/a_0001.nii.gz"), None),
    ],
)
def test_channels_of_one_image_get_one_warning(tmp_path, monkeypatch, names, pair):
    monkeypatch.chdir(tmp_path)
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"?")
    notes = find_inputs(["in"], recursive=True).notes
    if pair is None:
        assert notes == []
        return
    (note,) = notes
    assert f"{pair} look like channels of one image" in note
    assert f"--input 'in/*_0000{Path(names[0]).suffix if 'nrrd' in names[0] else '.nii.gz'}'" in note
    assert find_inputs(["in/a_0000*"]).notes == []
