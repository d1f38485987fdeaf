"""Files that claim more than they hold: refused before memory is taken."""

import gzip
import struct
import zipfile
import zlib

import cv2
import h5py
import numpy as np
import pytest

from datasets.files.image import read_image
from tests.support.image_files import VOLUME, write_itk
from utils import files
from utils.errors import UserError


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setenv(files.LIMIT, "10_000")


def png_of(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def resized_jpeg(path):
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 30000, 30000)
    path.write_bytes(data)


def many_pages(path):
    assert cv2.imwritemulti(str(path), [np.zeros((8, 8), np.uint8)] * 500)


def nifti_of(path):
    write_itk(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<8h", data, 40, 3, 2000, 2000, 1000, 1, 1, 1, 1)
    path.write_bytes(data)


def npy_of(path):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**3)})


def npz_bomb(path):
    npy_of(path.with_suffix(".npy"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", path.with_suffix(".npy").read_bytes() + bytes(10**6))
    path.with_suffix(".npy").unlink()


def npz_long_header(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 10**7) + b" " * 10**7)


def h5_of(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (10**5, 10**5), "f8", chunks=(8, 8))


def h5_chunk(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=np.zeros((8, 8)), maxshape=(None, None), chunks=(8000, 8), compression="gzip")


def nrrd_of(path):
    path.write_bytes(b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2000 2000 1000\nencoding: raw\nendian: little\n\n\0")


def mha_of(path):
    path.write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 2000 2000 1000\nElementType = MET_SHORT\nElementDataFile = LOCAL\n\0"
    )


TOO_LARGE = {
    "a.png": lambda path: path.write_bytes(png_of(30000, 30000)),
    "a.jpg": resized_jpeg,
    "a.tif": many_pages,
    "a.bmp": lambda path: path.write_bytes(b"BM" + bytes(12) + struct.pack("<Iii", 40, 30000, -30000) + bytes(60)),
    "a.nii": nifti_of,
    "a.npy": npy_of,
    "a.npz": npz_bomb,
    "a.h5": h5_of,
    "b.h5": h5_chunk,
    "a.nrrd": nrrd_of,
    "a.mha": mha_of,
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_claims_too_much_is_refused_before_memory_is_taken(tmp_path, limit, name):
    TOO_LARGE[name](tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: claims an image of [\d,]+ bytes, .* --max_image_bytes \d+"):
        read_image(tmp_path / name)


def test_the_limit_is_that_of_the_decoded_image(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", VOLUME)
    for allowed in (VOLUME.nbytes - 1, VOLUME.nbytes):
        monkeypatch.setenv(files.LIMIT, str(files.MAX_IMAGE_BYTES))
        files.allow_bytes(allowed)
        if allowed < VOLUME.nbytes:
            with pytest.raises(UserError, match=f"--max_image_bytes {VOLUME.nbytes}$"):
                read_image(tmp_path / "a.npy")
        else:
            assert np.array_equal(read_image(tmp_path / "a.npy").array, VOLUME)


def test_a_png_chunk_that_claims_more_than_the_file_is_not_decoded(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data + b"filling after the end")
    assert read_image(tmp_path / "a.png").array.shape == (8, 8, 3)
    at = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + b"\x7f" + data[at + 1 :])
    monkeypatch.delattr(cv2, "imdecode")
    with pytest.raises(UserError, match=r"a\.png: .*a PNG chunk of 2,1\d\d,\d{3},\d{3} bytes in a file of"):
        read_image(tmp_path / "a.png")


def test_an_npz_whose_header_is_a_bomb(tmp_path):
    npz_long_header(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"a\.npz: cannot be read \(its header is too long"):
        read_image(tmp_path / "a.npz")


def test_a_compressed_bomb_is_not_unpacked_further_than_its_header_says(tmp_path, monkeypatch):
    write_itk(tmp_path / "b.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "b.nii").read_bytes() + bytes(2**26)))
    sizes = []
    monkeypatch.setattr("datasets.files.nifti.BLOCK", 1000)
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n: sizes.append(n) or read(self, n))
    with pytest.raises(UserError, match="or more where its header says"):
        read_image(tmp_path / "a.nii.gz")
    assert sum(sizes) < 10_000
