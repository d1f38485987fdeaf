"""The check of a whole set of pictures and masks: what is counted, noted and refused."""

import os
import sys

import cv2
import numpy as np
import pytest

from datasets.files.pictures import read_picture, to_rgb8
from datasets.images.check import check_pairs
from datasets.images.classes import CLASSES_FILE, find_classes
from datasets.images.pairs import ImageMaskSet, pair_files
from tests.datasets.images.test_pairs import RNG, box, noise, save, write_set
from utils.errors import UserError


def test_the_check_counts_and_notes_what_is_unusual(tmp_path):
    root = write_set(tmp_path, {f"{name}.png": f"{name}.png" for name in "abcdef"})
    save(root / "masks" / "b.png", box() * 0)
    save(root / "masks" / "c.png", box(value=12))
    save(root / "masks" / "d.png", box() + 9 * (box() == 0))
    save(root / "masks" / "e.png", box(value=1))
    save(root / "images" / "f.png", RNG.integers(0, 65536, (25, 30), np.uint16))
    save(root / "masks" / "f.png", np.full((25, 30), 255, np.uint8))
    summary = check_pairs(pair_files(root))
    assert (summary.num_cases, summary.num_images) == (6, 6)
    assert summary.sizes == {(20, 30): 5, (25, 30): 1}
    assert summary.classes == {0: 5, 1: 4}
    for line in (
        "2 masks without foreground; the first is b.png",
        "1 mask with grey values, but none above half the range: read as empty; the first is c.png",
        "1 mask stored as 0 and 1 beside others of a full range; make them alike; the first is e.png",
        "1 image of 16 bits, scaled by the whole range of the type (dark? --intensity percentile); the first is f.png",
    ):
        assert line in summary.notes
    assert len(summary.notes) == 4
    assert str(summary).startswith("6 images of 20x30, 25x30; classes seen: 0 in 5, 1 in 4\n  note: 2 masks")
    save(root / "masks" / "d.png", box() + 9 * (box() == 0) + 3 * (np.arange(30) < 3).astype(np.uint8))
    assert (
        "1 mask of more than two values, cut at half the range; the first is d.png"
        in check_pairs(pair_files(root)).notes
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_and_masks_that_are_swapped_are_noted(tmp_path, suffix):
    save(tmp_path / "images" / "a.png", box(80, 120))
    photo = cv2.resize(noise(5, 7) // 2 + 50, (120, 80), interpolation=cv2.INTER_CUBIC)
    save(tmp_path / "masks" / f"a{suffix}", photo)
    text = "grey in more than a tenth of the pixels, as photographs are (are images/ and masks/ swapped?)"
    assert check_pairs(pair_files(tmp_path)).notes == (f"1 mask {text}; the first is a{suffix}",)
    photo[:40, :40], photo[40:, :40] = (255, 0, 0), (0, 255, 0)
    save(tmp_path / "masks" / f"a{suffix}", photo)
    with pytest.raises(UserError, match=r"masks: .* found areas of .*1 mask grey .*swapped"):
        check_pairs(pair_files(tmp_path))


def test_the_check_names_every_problem_at_once(tmp_path, capfd):
    root = write_set(
        tmp_path, {f"{name}.png": f"{name}.png" for name in "abcdef"} | {"g.jpg": "g.png", "h.tif": "h.tif"}
    )
    for name in ("images/b.png", "masks/b.png", "images/g.jpg", "masks/h.tif"):
        path = root / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (root / "images" / "c.png").write_bytes(b"")
    (root / "masks" / "d.png").write_bytes(b"no picture at all")
    save(root / "masks" / "e.png", box(30, 20))
    pages = [box(), box()]
    (root / "images" / "h.tif").write_bytes(cv2.imencodemulti(".tif", pages)[1].tobytes())
    with pytest.raises(UserError) as error:
        check_pairs(pair_files(root))
    lines = str(error.value).splitlines()
    assert lines[0] == "8 problems in 8 pairs:"
    for name in ("images/b.png", "masks/b.png", "images/c.png", "masks/d.png", "images/g.jpg", "masks/h.tif"):
        assert sum(str(root / name) in line for line in lines) == 1
    assert any("e.png: found a mask of 30x20, expected 20x30" in line for line in lines)
    assert any("h.tif: found 2 pages, expected one picture" in line for line in lines)
    assert not any("a.png" in line or "f.png" in line for line in lines)
    assert "WARN" not in capfd.readouterr().err


def test_a_mask_of_another_size_is_refused_when_read(tmp_path):
    root = write_set(tmp_path, {"a.png": "a.png"})
    save(root / "masks" / "a.png", box(20, 31))
    with pytest.raises(UserError, match=r"a\.png: found a mask of 20x31, expected 20x30"):
        ImageMaskSet(pair_files(root), (8, 8))[0]


def test_a_set_without_any_foreground_is_a_mistake(tmp_path):
    root = write_set(tmp_path, {"a.png": "a.png"})
    save(root / "masks" / "a.png", box(value=60))
    with pytest.raises(UserError, match="no mask has a value above half the range") as error:
        check_pairs(pair_files(root))
    text = str(error.value)
    (root / CLASSES_FILE).write_text(text[text.index("{") :])
    assert find_classes(root).values == (0, 60)
    with pytest.raises(UserError, match="no mask has a value above half the range"):
        check_pairs(pair_files(root), training=False)
    save(root / "masks" / "a.png", box(value=12))
    assert len(check_pairs(pair_files(root), training=False).notes) == 2  # noise of an empty mask
    save(root / "masks" / "a.png", box(value=60))
    assert check_pairs(pair_files(root), find_classes(root)).classes == {0: 1, 1: 1}


def test_several_classes_in_jpeg_masks_are_refused_with_the_remedy(tmp_path):
    root = write_set(tmp_path, {"a.png": "a.jpg"})
    mask = np.zeros((160, 240), np.uint8)
    mask[30:90], mask[90:130] = 85, 170
    save(root / "masks" / "a.jpg", mask)
    save(root / "images" / "a.png", noise(160, 240))
    with pytest.raises(UserError, match=r"found areas of .* of 1 mask; JPEG changes values: export the masks as PNG"):
        check_pairs(pair_files(root))


def test_values_without_a_known_range_are_refused(tmp_path):
    for stored in (np.full((4, 4), -5, np.int16), np.full((4, 4), 40.0, np.float32)):
        path = save(tmp_path / "a.tif", stored)
        with pytest.raises(UserError, match=r"expected unsigned integers .*--intensity .*save unsigned 8"):
            to_rgb8(read_picture(path), path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    for folder in ("images", "masks"):
        save(tmp_path / folder / os.fsdecode(b"\xff.png"), noise())
    with pytest.raises(UserError, match=r"images/.*\.png: its name is not UTF-8"):
        pair_files(tmp_path)
