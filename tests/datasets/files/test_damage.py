"""Damaged files, files that claim too much, and files that would have something else read: all are refused by name."""

import contextlib
import gzip
import os
import shutil
import socket
import struct
import subprocess
import sys

import cv2
import h5py
import numpy as np
import pytest

from datasets.files.image import read_image
from tests.fuzz import BAD, attack, same
from tests.support.image_files import READERS, TEXTS, VOLUME, write_itk, write_packed_h5, write_series
from tests.support.places import ROOT
from utils.errors import UserError

BINARY = [name for name in READERS if name not in TEXTS]


@pytest.mark.parametrize("name", BINARY)
def test_a_file_that_was_cut_short_is_named(tmp_path, name):
    reader = READERS[name]
    path = tmp_path / reader.name
    reader.write(path)
    target = path / reader.target if reader.target else path
    data, value = target.read_bytes(), reader.read(path)
    for keep in {0, 1, 4, 140, *range(1, len(data), max(1, len(data) // 25))}:
        target.write_bytes(data[:keep])
        if keep < len(data) - 16:
            with pytest.raises(UserError, match=target.name):
                reader.read(path)
            continue
        with contextlib.suppress(UserError):  # where only filling or a checksum is missing, the value must be whole
            assert same(reader.read(path), value), keep


@pytest.mark.parametrize("name", READERS)
def test_damage_gives_a_value_or_a_clear_error(tmp_path, name):
    for found in attack(name, range(40), 1, tmp_path):
        assert found.get("outcome") not in BAD, found


@pytest.mark.parametrize("other", [".nii", ".hdr", ".img"])
def test_voxels_come_from_the_named_file_alone(tmp_path, other):
    write_itk(tmp_path / "a.nii.gz")
    write_itk(tmp_path / "b.nii")
    data = bytearray((tmp_path / "b.nii").read_bytes())
    data[352:] = bytes(len(data) - 352)
    (tmp_path / f"a{other}").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "a.nii.gz").array, VOLUME)
    pair = bytearray((tmp_path / "b.nii").read_bytes())
    pair[344:348] = b"ni1\0"  # the voxels are in b.img
    (tmp_path / "b.nii").write_bytes(pair)
    (tmp_path / "b.img").write_bytes(bytes(VOLUME.nbytes))
    with pytest.raises(UserError, match=r"b\.nii: cannot be read as Nifti .*holds its own voxels"):
        read_image(tmp_path / "b.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_with_more_than_its_header_says_is_refused(tmp_path, suffix):
    write_itk(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<h", data, 46, 2)  # one slice less
    (tmp_path / f"b{suffix}").write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    with pytest.raises(UserError, match="or more where its header says"):
        read_image(tmp_path / f"b{suffix}")


@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize("ending", [".dcm", "", ".17"])
@pytest.mark.parametrize("keep", [200, 700, -1])
def test_a_broken_slice_is_named_wherever_it_lies(tmp_path, index, ending, keep):
    paths = [path.rename(path.with_suffix(ending)) for path in write_series(tmp_path / "s")]
    assert read_image(tmp_path / "s").array.shape == (4, 8, 10)
    paths[index].write_bytes(paths[index].read_bytes()[:keep])
    with pytest.raises(UserError, match=paths[index].name):
        read_image(tmp_path / "s")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [".npy", ".tif", ".nii.gz", ".mha"])
def test_values_that_are_not_finite_are_refused(tmp_path, bad, kind):
    import SimpleITK as sitk

    array, path = np.ones((4, 6, 7) if kind in (".nii.gz", ".mha") else (6, 7), np.float32), tmp_path / f"a{kind}"
    array[..., 3, 4] = bad
    if kind == ".npy":
        np.save(path, array)
    elif kind == ".tif":
        cv2.imencode(kind, array)[1].tofile(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    with pytest.raises(UserError, match=rf"a{kind}: found \d of .* not finite"):
        read_image(path)


def virtual(file, other):
    layout = h5py.VirtualLayout((4, 6), "f4")
    layout[:] = h5py.VirtualSource(str(other), "image", (4, 6))
    file.create_virtual_dataset("image", layout)


ELSEWHERE = {
    "external storage": lambda file, other: file.create_dataset(
        "image", (4, 6), "u1", external=[(str(other), 0, h5py.h5f.UNLIMITED)]
    ),
    "external link": lambda file, other: file.__setitem__("image", h5py.ExternalLink(str(other), "image")),
    "soft link": lambda file, other: file.__setitem__("image", h5py.SoftLink("/hidden/image")),
    "virtual": virtual,
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_an_h5_file_that_points_elsewhere_is_refused(tmp_path, kind):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["image"] = np.ones((4, 6), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        ELSEWHERE[kind](file, tmp_path / "other.h5")
        file["hidden/image"] = np.ones((4, 6))
        file["label"] = np.ones((4, 6))
    with pytest.raises(UserError, match=r"a\.h5"):
        read_image(tmp_path / "a.h5")
    if kind != "soft link":  # `hidden` makes two arrays of it for a reader of pictures
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["hidden"]
        with pytest.raises(UserError, match=r"a\.h5: `image` lies elsewhere"):
            read_image(tmp_path / "a.h5")


def test_a_chunk_that_is_missing_is_not_read_as_zero(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("image", (3, 8, 10), "f4", chunks=(1, 8, 10))
        data[:2] = 1
    with pytest.raises(UserError, match="chunks of it are missing"):
        read_image(tmp_path / "a.h5")
    write_packed_h5(tmp_path / "b.h5")
    assert read_image(tmp_path / "b.h5").array.shape == (3, 8, 10)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nrrd", b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 4 4\nencoding: raw\nDATA FILE: other\n\n"),
        (
            "a.nrrd",
            b"NRRD0004\r\ntype: uchar\r\ndimension: 2\r\nsizes: 4 4\r\nencoding: raw\r\ndatafile: other\r\n\r\n",
        ),
        ("a.mha", b"ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = other\n"),
    ],
)
def test_values_in_a_file_beside_the_header_are_refused(tmp_path, name, content):
    (tmp_path / "other").write_bytes(bytes(range(16)))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .*do not lie in the file itself"):
        read_image(tmp_path / name)


READ_ALL = """
import sys
from datasets.files.image import read_image
from utils.errors import UserError

for name in sys.argv[1:]:
    try:
        read_image(name)
    except UserError as error:
        print(error)
"""


def test_a_long_field_of_a_nrrd_header_does_not_end_the_program(tmp_path):
    """The library crashes on it, so the program runs in a process of its own."""
    paths = [tmp_path / name for name in ("a.nrrd", "b.nrrd", "c.nrrd")]
    for path, field in zip(paths, ("encoding: g{}", "{}", "{}: 1")):
        write_itk(path)
        path.write_bytes(path.read_bytes().replace(b"kinds:", field.format("9" * 5000).encode() + b"\nkinds:"))
    words = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines):
        assert str(path) in line
        assert "in its header, expected at most 800" in line


def test_long_comments_and_pairs_of_a_nrrd_header_are_read(tmp_path):
    path = tmp_path / "a.nrrd"
    write_itk(path)
    more = f"# {'x' * 5000}\nSegmentation_Parameters:={'y' * 5000}\nkinds:"
    path.write_bytes(path.read_bytes().replace(b"kinds:", more.encode()))
    assert same(read_image(path).array, VOLUME)


def test_a_nrrd_header_of_comments_alone(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"# nothing else\n# here\n\n")
    with pytest.raises(UserError, match=r"a\.nrrd") as error:
        read_image(tmp_path / "a.nrrd")
    assert "max()" not in str(error.value)


@pytest.mark.parametrize("place", [132, 136, 148], ids=["its group", "its type", "the next type"])
def test_a_dicom_file_that_does_not_say_how_it_is_encoded(tmp_path, place):
    write_series(tmp_path / "s")
    path = sorted((tmp_path / "s").iterdir())[0]
    content = bytearray(path.read_bytes())
    content[place] = 0x42
    path.write_bytes(content)
    with pytest.raises(UserError, match="describe a DICOM file are not at its beginning"):
        read_image(path)


def test_a_changed_directory_of_an_npz_file_loses_no_spacing(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", image=np.ones((2, 3, 4), np.uint8), spacing=(2.5, 1, 1))
    data = (tmp_path / "a.npz").read_bytes()
    listed = data.rindex(b"spacing.npy")  # the directory at the end; the name stands in front of the values, too
    (tmp_path / "a.npz").write_bytes(data[:listed] + b"spaxing.npy" + data[listed + 11 :])
    with pytest.raises(UserError, match=r"a\.npz: cannot be read .*differ"):
        read_image(tmp_path / "a.npz")
    first = data.index(b"PK\1\2")  # of the directory: the comment of its first entry takes in the second
    (tmp_path / "a.npz").write_bytes(data[: first + 32] + struct.pack("<H", 46 + 11) + data[first + 34 :])
    with pytest.raises(UserError, match=r"a\.npz: cannot be read .*2 members, found 1"):
        read_image(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.npz", "a.h5", "a.nii", "a.nii.gz", "a.nrrd", "a.dcm", "a"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_only_files_are_opened(tmp_path, monkeypatch, name, kind):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    monkeypatch.chdir(tmp_path)
    if kind == "pipe":
        os.mkfifo(name)
    else:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(name)
    with pytest.raises(UserError, match=rf"{name}: is a pipe, a device or a socket"):
        read_image(tmp_path / name)


def test_a_pipe_among_the_slices_of_a_series(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    write_series(tmp_path / "s")
    os.mkfifo(tmp_path / "s" / "x.dcm")
    with pytest.raises(UserError, match=r"x\.dcm: is a pipe"):
        read_image(tmp_path / "s")


def test_other_files_of_a_series_folder_are_left_alone(tmp_path):
    write_series(tmp_path / "s")
    for name in ("notes.txt", ".hidden", "DICOMDIR", "mask.png"):
        (tmp_path / "s" / name).write_bytes(bytes(128) + b"DICM" if name == "DICOMDIR" else b"text")
    (tmp_path / "s" / "folder").mkdir()
    assert read_image(tmp_path / "s").array.shape == (4, 8, 10)
    shutil.copy(tmp_path / "s" / "notes.txt", tmp_path / "s" / "a.dcm")
    with pytest.raises(UserError, match=r"a\.dcm: cannot be read as DICOM .*move what does not belong"):
        read_image(tmp_path / "s")
