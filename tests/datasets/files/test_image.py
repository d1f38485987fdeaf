"""Pictures and array files, masks of every kind, the CT window, refusals."""

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from datasets.files.image import Image, read_image, save_mask, suffix_of
from datasets.files.pictures import orientation_of, read_picture
from utils.errors import UserError
from utils.preprocess.intensities import window_ct

RNG = np.random.default_rng(0)


def volume(*shape: int) -> np.ndarray:
    return RNG.integers(-1000, 1500, shape, dtype=np.int16)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures(tmp_path, suffix, channels):
    array = RNG.integers(0, 256, (6, 9, 3), np.uint8)[..., : channels if channels == 3 else 1].squeeze()
    path = tmp_path / f"ö 1{suffix}"
    cv2.imencode(suffix.lower(), array[..., ::-1] if channels == 3 else array)[1].tofile(path)
    image = read_image(path)
    assert np.array_equal(image.array, array)
    assert (image.kind, image.spacing, image.meta, image.path) == ("picture", None, {}, path)


def test_a_jpeg_and_a_16_bit_picture(tmp_path):
    cv2.imencode(".jpg", np.full((8, 8, 3), (200, 90, 10), np.uint8))[1].tofile(tmp_path / "a.JPG")
    assert np.abs(read_image(tmp_path / "a.JPG").array.astype(int) - (10, 90, 200)).max() < 6
    deep = RNG.integers(0, 65536, (5, 7), np.uint16)
    cv2.imencode(".png", deep)[1].tofile(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png").array, deep)


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((5, 7), "picture", (5, 7)),
        ((5, 7, 3), "picture", (5, 7, 3)),
        ((5, 7, 4), "picture", (5, 7, 3)),
        ((5, 7, 1), "picture", (5, 7)),
        ((3, 5, 7), "volume", (3, 5, 7)),
        ((1, 5, 7), "volume", (1, 5, 7)),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_array_files(tmp_path, suffix, shape, kind, expected):
    array, path = RNG.random(shape, np.float32), tmp_path / f"case.npy{suffix}"
    spacing = None
    if suffix == ".npy":
        np.save(path, array)
    else:
        spacing = (2.5, 0.5, 0.75)[-len(expected) if kind == "volume" else -2 :]
        if suffix == ".npz":
            np.savez(path, image=array, label=np.zeros(shape), spacing=spacing)
        else:
            with h5py.File(path, "w") as file:
                file["image"], file["label"], file.attrs["spacing"] = array, np.zeros(shape), spacing
    image = read_image(path)
    assert image.array.dtype == np.float32
    assert np.array_equal(image.array, array[..., 0] if shape[-1] == 1 else array[tuple(map(slice, expected))])
    assert (image.kind, image.spacing) == (kind, spacing)


def test_the_only_array_and_a_spacing_data_set_are_found(tmp_path):
    np.savez(tmp_path / "a.npz", volume(2, 3, 5))
    assert read_image(tmp_path / "a.npz").array.shape == (2, 3, 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"], file["spacing"] = volume(2, 3, 5), np.zeros((2, 3, 5)), [3, 2, 1.5]
    assert read_image(tmp_path / "a.h5").spacing == (3, 2, 1.5)
    np.savez(tmp_path / "b.npz", also=volume(1, 1, 5), image=volume(2, 3, 5))
    assert read_image(tmp_path / "b.npz").array.shape == (2, 3, 5)


def picture_of(*shape: int) -> Image:
    return Image(np.zeros(shape, np.uint8), None, "picture", Path("like.png"))


def test_masks_of_pictures(tmp_path):
    like, labels = picture_of(6, 9, 3), RNG.integers(0, 9, (6, 9), np.uint8)
    path = save_mask(tmp_path / "ü", labels, like)
    assert path == tmp_path / "ü.png"
    assert np.array_equal(read_image(path).array, labels)
    assert np.array_equal(read_image(save_mask(tmp_path / "ü", labels > 4, like)).array, (labels > 4) * 255)
    assert list(tmp_path.iterdir()) == [path]


def test_masks_of_volumes_from_array_files(tmp_path):
    np.save(tmp_path / "a.npy", volume(3, 4, 5))
    image = read_image(tmp_path / "a.npy")
    path = save_mask(tmp_path / "m", image.array > 0, image)
    assert path.name == "m.npy"
    assert np.array_equal(read_image(path).array, image.array > 0)
    np.savez(tmp_path / "b.npz", image=volume(3, 4, 5), spacing=(2.5, 0.75, 0.5))
    image = read_image(tmp_path / "b.npz")
    path = save_mask(tmp_path / "m", image.array > 0, image)
    assert path.name == "m.nii.gz"
    back = read_image(path)
    assert np.array_equal(back.array, image.array > 0)
    assert (back.spacing, back.meta["origin"]) == ((2.5, 0.75, 0.5), (0, 0, 0))


@pytest.mark.parametrize("kind", ["picture", "volume"])
def test_a_write_that_fails_names_the_file_and_leaves_nothing_behind(tmp_path, kind):
    like = picture_of(6, 9) if kind == "picture" else Image(np.zeros((2, 6, 9)), (1.0, 1.0, 1.0), kind, Path("v"))
    suffix = {"picture": ".png", "volume": ".nii.gz"}[kind]
    (tmp_path / f"m{suffix}").mkdir()
    with pytest.raises(UserError, match=rf"m{suffix}: cannot be written"):
        save_mask(tmp_path / "m", np.zeros(like.array.shape, bool), like)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"file.m{suffix}: cannot be written"):
        save_mask(tmp_path / "file" / "m", np.zeros(like.array.shape, bool), like)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", f"m{suffix}"]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.npz", "a.h5", "a.nii", "a.nii.gz", "a.dcm", "a"])
def test_damaged_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"nonsense" * 20)
    with pytest.raises(UserError, match=name):
        read_image(tmp_path / name)


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "a.gif").write_bytes(b"GIF")
    with pytest.raises(UserError, match=r"a\.gif: of no known kind, expected DICOM or one of"):
        read_image(tmp_path / "a.gif")
    for array, words in (
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((2, 3, 4, 5)), r"shape \(2, 3, 4, 5\), .*; save each volume, such as array\[0\], as a file"),
        (np.zeros((2, 3), complex), "complex128"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
    ):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UserError, match=words):
            read_image(tmp_path / "a.npy")
    for arrays, words in (
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, "expected one named image"),
        ({"image": np.zeros((2, 3)), "spacing": [1, 2, 3]}, "expected 2 positive numbers"),
        ({"image": np.zeros((2, 3)), "spacing": [0, 2]}, "expected 2 positive numbers"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(UserError, match=words):
            read_image(tmp_path / "a.npz")


def test_the_window_of_abdominal_ct():
    values = window_ct(np.array([-2000, -125, 75, 275, 3000], np.int16))
    assert values.dtype == np.float32
    assert values.tolist() == [0, 0, 0.5, 1, 1]
    assert window_ct(np.array([0.0, 50]), 0, 100).tolist() == [0, 0.5]


def test_endings():
    assert [suffix_of(name) for name in ("a.b.NII.gz", "x/a.npy.h5", "a.JPEG", "a.gz", "nii")] == [
        ".nii.gz",
        ".h5",
        ".jpeg",
        "",
        "",
    ]


def test_labels_of_a_picture_are_grey_levels_for_every_reader(tmp_path):
    labels = RNG.integers(0, 9, (6, 9), np.uint8)
    path = save_mask(tmp_path / "m", labels, picture_of(6, 9))
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), labels)
    assert np.array_equal(read_image(path).array, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_several_pages_is_a_volume_and_its_mask_is_one_too(tmp_path, dtype):
    pages = RNG.integers(0, 255, (4, 6, 9)).astype(dtype)
    cv2.imencodemulti(".tif", list(pages))[1].tofile(tmp_path / "stack.tif")
    image = read_image(tmp_path / "stack.tif", upright=True)
    assert (image.kind, image.spacing, image.orientation) == ("volume", None, "")
    assert np.array_equal(image.array, pages)
    path = save_mask(tmp_path / "m", pages > 99, image)
    assert path.name == "m.tif"
    assert np.array_equal(read_image(path).array, pages > 99)
    with pytest.raises(UserError, match="4 pages, expected one picture"):
        read_picture(tmp_path / "stack.tif")


def test_pages_of_a_tiff_that_make_no_volume_are_refused(tmp_path):
    grey, colour = np.zeros((6, 9), np.uint8), np.zeros((6, 9, 3), np.uint8)
    for pages, words in (([grey, grey[:5]], "5x9 uint8, 6x9 uint8"), ([colour, colour], "6x9x3 uint8")):
        cv2.imencodemulti(".tif", pages)[1].tofile(tmp_path / "a.tif")
        with pytest.raises(UserError, match=f"found 2 pages of {words}, expected grey pages"):
            read_image(tmp_path / "a.tif")


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with the tag that a camera writes, right after the start marker."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


TURNS = {1: lambda a: a, 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1), 8: np.rot90, 2: lambda a: a[:, ::-1]}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_photograph_is_turned_upright_where_no_mask_stands_beside_it(tmp_path, orientation, channels):
    array = cv2.resize(RNG.integers(0, 255, (3, 4, channels), np.uint8), (64, 48), interpolation=cv2.INTER_NEAREST)
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_exif(cv2.imencode(".jpg", array)[1].tobytes(), orientation))
    stored = read_image(path).array
    assert stored.shape[:2] == (48, 64)
    assert np.array_equal(read_image(path, upright=True).array, TURNS[orientation](stored))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 8, 9])
def test_the_orientation_is_read_where_upright_turns_by_it(tmp_path, suffix, orientation):
    from PIL import Image as Picture

    tags = Picture.Exif()
    tags[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Picture.fromarray(RNG.integers(0, 255, (16, 24, 3), np.uint8)).save(path, exif=tags)
    turns = not np.array_equal(read_image(path, upright=True).array, read_image(path).array)
    assert turns == (suffix != ".tif" and 1 < orientation < 9)  # OpenCV always turns a TIFF file
    assert orientation_of(path) == (orientation if turns else 1)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_damaged_orientation_is_none(tmp_path, suffix):
    from PIL import Image as Picture

    tags, path = Picture.Exif(), tmp_path / f"a{suffix}"
    tags[0x0112] = 6
    Picture.new("RGB", (24, 16)).save(path, exif=tags)
    data = path.read_bytes()
    at = data.index(b"II*\0") if b"II*\0" in data else data.index(b"MM\0*")
    for cut in range(at, at + 20):
        path.write_bytes(data[:cut] + b"\xff" * 4 + data[cut + 4 :])
        assert orientation_of(path) in range(1, 9)
        path.write_bytes(data[:cut])
        assert orientation_of(path) in range(1, 9)


def test_upright_changes_nothing_else(tmp_path):
    for suffix in (".png", ".tif", ".bmp", ".jpg"):
        for shape, dtype in (((6, 9), np.uint8), ((6, 9, 3), np.uint8), ((6, 9, 4), np.uint8), ((6, 9, 3), np.uint16)):
            if suffix in (".bmp", ".jpg") and (dtype == np.uint16 or shape[-1] == 4):
                continue
            path = tmp_path / f"a{suffix}"
            cv2.imencode(suffix, RNG.integers(0, 255, shape).astype(dtype))[1].tofile(path)
            assert np.array_equal(read_image(path, upright=True).array, read_image(path).array)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_nrrd_and_metaimage(tmp_path, suffix):
    import SimpleITK as sitk

    array = volume(4, 6, 9)
    file = sitk.GetImageFromArray(array)
    file.SetSpacing((0.5, 0.75, 2.5))
    file.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(file, str(tmp_path / f"a{suffix}"))
    image = read_image(tmp_path / f"a{suffix}")
    assert np.array_equal(image.array, array)
    assert (image.spacing, image.orientation) == ((2.5, 0.75, 0.5), "SLA")
