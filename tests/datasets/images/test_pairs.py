"""images/ and masks/: pairing and reading of every kind of picture."""

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets.files.pictures import read_picture, to_mask, to_rgb8
from datasets.images.check import check_pairs
from datasets.images.pairs import ImageMaskSet, data_root, pair_files, stem_of
from tests.datasets.files.test_image import with_exif
from utils.errors import UserError
from utils.log import _Terminal, logging_to
from utils.preprocess import PICTURES
from utils.preprocess.sizes import resize_image, resize_labels

RNG = np.random.default_rng(0)


def save(path: Path, picture: np.ndarray) -> Path:
    """Write RGB(A) or grey under any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = {4: [2, 1, 0, 3], 3: [2, 1, 0]}
    stored = picture[..., order[picture.shape[2]]] if picture.ndim == 3 else picture
    cv2.imencode(path.suffix, stored)[1].tofile(path)
    return path


def noise(height: int = 20, width: int = 30) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def box(height: int = 20, width: int = 30, value: int = 255) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[5:12, 10:20] = value
    return mask


def write_set(root: Path, names: dict[str, str]) -> Path:
    """Image name -> mask name."""
    for image, mask in names.items():
        save(root / "images" / image, noise())
        save(root / "masks" / mask, box())
    return root


def test_pairs_by_stem_with_every_usual_ending_and_sorted(tmp_path):
    names = {
        "b.jpg": "b.png",
        "a.PNG": "a_segmentation.png",
        "ISIC_07.JPEG": "ISIC_07_Segmentation.PNG",
        "c.tif": "c_mask.tiff",
        "d.bmp": "d-mask.bmp",
        "e.png": "e_seg.png",
        "f.png": "f_gt.png",
        "g_mask.png": "g_mask.png",
        "h.v2.png": "h.v2_GT.png",
        "i.png": "i_masks.png",
        "x0.png": "x0_mask.png",  # sorts after x.png, but before x_mask.png
        "x.png": "x_mask.png",
        "Überweisung é.png": "Überweisung é_mask.png",
    }
    root = write_set(tmp_path, names)
    (root / "images" / ".hidden.png").write_bytes(b"x")
    (root / "images" / "Thumbs.db").write_bytes(b"x")
    (root / "masks" / "notes.txt").write_text("x")
    pairs = pair_files(root)
    assert [pair.image_id for pair in pairs] == sorted(names)
    assert {pair.image.name: pair.mask.name for pair in pairs} == names
    assert pair_files(root / "images") == pairs
    images = ImageMaskSet(pairs, (8, 8))
    assert all(image.shape[:2] == mask.shape for image, mask in map(images.native, range(len(pairs))))


def test_a_mask_named_exactly_as_an_image_is_its_own(tmp_path):
    root = write_set(tmp_path, {"a.png": "a_gt.png", "a_mask.png": "a_mask.png"})
    assert [(p.image_id, p.mask.name) for p in pair_files(root)] == [("a.png", "a_gt.png"), ("a_mask.png",) * 2]


def test_results_of_predict_beside_the_images_are_left_out(tmp_path, capsys):
    names = {"a.png": "a.png", "b.jpg": "b_mask.png", "c.png": "c_gt.png"}
    names |= {name: name for name in ("c_mask.png", "e_mask.png", "g_seg.png", "g_seg_mask.png")}
    root = write_set(tmp_path, names)
    for result in ("a_mask.png", "a_overlay.png", "b_mask.png", "e_mask_mask.png"):
        save(root / "images" / result, noise())
    with logging_to(_Terminal()):
        pairs = pair_files(root)
    assert {pair.image.name: pair.mask.name for pair in pairs} == names
    line = (
        "images: left out 4 pictures that predict.py made of others (_mask.png, _overlay.png), the first is a_mask.png"
    )
    assert line in capsys.readouterr().out
    save(root / "images" / "a_mask.jpg", noise())
    save(root / "images" / "f_mask.png", noise())
    with pytest.raises(UserError) as error:
        pair_files(root)
    assert "images/a_mask.jpg: no mask" in str(error.value)
    assert "images/f_mask.png: no mask" in str(error.value)


def test_composed_and_decomposed_accents_are_one_name(tmp_path):
    root = write_set(tmp_path, {unicodedata.normalize("NFD", "né.png"): unicodedata.normalize("NFC", "né.png")})
    assert len(pair_files(root)) == 1
    assert stem_of("x/y\\né.png") == stem_of(unicodedata.normalize("NFD", "né")) == "né"


def test_every_file_that_does_not_pair_is_named(tmp_path):
    root = write_set(tmp_path, {"good.png": "good.png", "two.png": "two.png", "dup.png": "dup.png"})
    save(root / "masks" / "two_mask.png", box())
    save(root / "images" / "dup.jpg", noise())
    save(root / "images" / "lonely.png", noise())
    save(root / "masks" / "orphan_seg.png", box())
    with pytest.raises(UserError) as error:
        pair_files(root)
    for words in (
        "ambiguous: images/two.png, masks/two.png, masks/two_mask.png",
        "ambiguous: images/dup.jpg, images/dup.png, masks/dup.png",
        "images/lonely.png: no mask",
        "masks/orphan_seg.png: no image",
        "4 ",
    ):
        assert words in str(error.value)
    assert "good" not in str(error.value)


def test_a_folder_without_the_two_folders_or_pictures(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        data_root(tmp_path / "nowhere")
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="found masks; expected the folders images/ and masks/"):
        pair_files(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.gif").write_bytes(b"")
    with pytest.raises(UserError, match=r"images: found \.gif, expected pictures"):
        pair_files(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colours_keep_their_order_and_alpha_is_dropped(tmp_path, suffix):
    picture = noise()
    path = save(tmp_path / f"Maß 猫{suffix}", picture)
    assert np.array_equal(to_rgb8(read_picture(path), path), picture)
    if suffix != ".bmp":
        alpha = np.dstack([picture, RNG.integers(0, 256, (20, 30), np.uint8)])
        assert np.array_equal(read_picture(save(tmp_path / f"alpha{suffix}", alpha)), picture)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([[0, 255, 17]], np.uint8), [0, 255, 17]),
        (np.array([[0, 65535, 32768, 257 * 9, 100]], np.uint16), [0, 255, 128, 9, 0]),
        (np.array([[0, 1, 0.5]], np.float32), [0, 255, 128]),
    ],
)
def test_images_are_scaled_by_the_range_of_their_type(tmp_path, stored, expected):
    path = save(tmp_path / "a.tif", stored)
    image = to_rgb8(read_picture(path), path)
    assert image.dtype == np.uint8
    assert image.shape == (*stored.shape, 3)
    assert image[0, :, 0].tolist() == image[0, :, 2].tolist() == expected


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([[0, 5, 15, 127, 128, 255]], np.uint8), [0, 0, 0, 0, 1, 1]),
        (np.array([[0, 1, 1]], np.uint8), [0, 1, 1]),
        (np.array([[0, 1, 2]], np.uint8), [0, 0, 0]),
        (np.array([[0, 0, 0]], np.uint8), [0, 0, 0]),
        (np.array([[0, 32767, 32768, 65535]], np.uint16), [0, 0, 1, 1]),
        (np.array([[0, 1, 0]], np.uint16), [0, 1, 0]),
        (np.array([[0, 0.5, 0.6, 1]], np.float32), [0, 0, 1, 1]),
        (np.array([[[0, 0, 0], [9, 9, 9], [255, 0, 0], [0, 0, 255]]], np.uint8), [0, 0, 1, 1]),
    ],
)
def test_masks_are_cut_at_half_the_range(tmp_path, stored, expected):
    path = save(tmp_path / "a.tif", stored)
    mask = to_mask(read_picture(path), path)
    assert mask.dtype == bool
    assert mask[0].tolist() == [bool(value) for value in expected]


def test_one_bit_masks_and_jpeg_noise():
    assert to_mask(np.array([[False, True]]), Path("a.png")).tolist() == [[False, True]]
    assert not to_mask(np.array([[0, 1]], np.uint8), Path("a.jpg")).any()


def test_the_exif_orientation_turns_nothing(tmp_path):
    path = save(tmp_path / "turned.jpg", noise(16, 40))
    path.write_bytes(with_exif(path.read_bytes(), 6))
    assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR).shape == (40, 16, 3)
    assert read_picture(path).shape == (16, 40, 3)


def turned(root: Path, orientation: int, *folders: str) -> Path:
    """The set with the orientation in the JPEG files of these folders."""
    for path in (path for folder in folders for path in (root / folder).iterdir()):
        path.write_bytes(with_exif(path.read_bytes(), orientation))
    return root


def test_an_orientation_that_is_not_applied_is_noted(tmp_path):
    root = turned(write_set(tmp_path, {"a.jpg": "a.png", "b.jpg": "b.png"}), 3, "images")
    save(root / "images" / "c.jpg", noise())
    save(root / "masks" / "c.png", box())
    text = (
        "with an EXIF orientation that the mask lacks and that is not applied: a mask drawn in a viewer lies otherwise"
    )
    (note,) = check_pairs(pair_files(root)).notes
    assert note == f"2 images {text} (turn such images: mogrify -auto-orient); the first is a.jpg"


@pytest.mark.parametrize(
    ("folders", "orientation"),
    [
        (("images", "masks"), 3),
        (("images",), 1),
        (("images",), 9),
        (("images",), 5),
        (("images",), 6),  # a mask of the viewer's picture had another size
    ],
)
def test_an_orientation_by_which_a_mask_cannot_lie_otherwise_is_not_noted(tmp_path, folders, orientation):
    root = turned(write_set(tmp_path, {"a.jpg": "a.jpg"}), orientation, *folders)
    assert check_pairs(pair_files(root)).notes == ()
    save(root / "images" / "b.bmp", noise())
    save(root / "masks" / "b.bmp", box())
    assert check_pairs(pair_files(root)).notes == ()


def test_a_quarter_turn_of_a_square_image_is_noted(tmp_path):
    save(tmp_path / "images" / "a.jpg", noise(30, 30))
    save(tmp_path / "masks" / "a.png", box(30, 30))
    (note,) = check_pairs(pair_files(turned(tmp_path, 6, "images"))).notes
    assert note.startswith("1 image with an EXIF orientation")


def test_a_mask_of_the_size_of_the_turned_image_is_refused_with_the_remedy(tmp_path):
    root = turned(write_set(tmp_path, {"a.jpg": "a.png"}), 6, "images")
    save(root / "masks" / "a.png", box(30, 20))
    expected = r"expected 20x30 as a\.jpg has, which viewers turn by its EXIF orientation; turn .*mogrify -auto-orient"
    with pytest.raises(UserError, match=expected):
        check_pairs(pair_files(root))
    save(root / "masks" / "a.png", box(30, 21))
    with pytest.raises(UserError, match=r"expected 20x30 as a\.jpg has; export it again"):
        check_pairs(pair_files(root))


@pytest.mark.parametrize(("size", "flag"), [((10, 15), cv2.INTER_AREA), ((40, 15), cv2.INTER_LINEAR)])
def test_images_are_averaged_when_they_shrink(size, flag):
    image = noise()
    assert np.array_equal(resize_image(image, size, PICTURES), cv2.resize(image, size[::-1], interpolation=flag))


def test_masks_are_read_at_the_nearest_pixel_centre():
    mask = RNG.random((30, 42)) > 0.5
    assert np.array_equal(resize_labels(mask, (10, 14), PICTURES), mask[1::3, 1::3])  # the middle one of each three
    assert np.array_equal(resize_labels(mask, (60, 84), PICTURES), mask.repeat(2, 0).repeat(2, 1))


def test_the_data_set_gives_resized_tensors_and_native_arrays(tmp_path):
    root = tmp_path
    image, mask = noise(20, 30), RNG.random((20, 30)) > 0.5
    save(root / "images" / "a.png", image)
    save(root / "masks" / "a.png", mask.astype(np.uint8) * 255)
    data = ImageMaskSet(pair_files(root), (10, 60))
    resized, target = data[0]
    assert len(data) == 1
    assert (resized.shape, resized.dtype, target.shape, target.dtype) == (
        (3, 10, 60),
        torch.uint8,
        (10, 60),
        torch.uint8,
    )
    assert set(target.unique().tolist()) == {0, 1}
    assert np.array_equal(resized.permute(1, 2, 0).numpy(), cv2.resize(image, (60, 10)))
    assert np.array_equal(data.native(0)[0], image)
    assert np.array_equal(data.native(0)[1], mask)
    same = ImageMaskSet(data.pairs, (20, 30))[0]
    assert np.array_equal(same[0].numpy(), image.transpose(2, 0, 1))
    assert np.array_equal(same[1].numpy(), mask)
