"""Check a NIfTI file against its header, because SimpleITK reads a file that was cut short as if it were whole."""

import contextlib
import gzip
import math
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from utils.errors import UserError
from utils.files import check_bytes
from utils.preprocess.intensities import check_finite

# Code of a type of voxels -> NumPy's name for it
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
RGB = 128
BLOCK = 2**20


class Layout(NamedTuple):
    """Where the voxels lie in an uncompressed file, and their type, None for RGB; size: bytes of the whole file."""

    size: int
    start: int
    dtype: np.dtype | None


@contextlib.contextmanager
def whole_nifti(path: Path) -> Iterator[Path]:
    """The path of an uncompressed file with the content of `path`, which is as long as its header says.

    It is `path` itself, or a temporary file: beside NAME.nii.gz the library would look for NAME.nii.
    raises: UserError for what is too large, and for voxels that are not finite, which the library would read as 0;
        ValueError, EOFError, OSError, zlib.error for what is damaged
    """
    with contextlib.ExitStack() as stack:
        if path.suffix.lower() == ".gz":
            plain = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heteromedseg-"))) / "image.nii"
            with plain.open("wb") as target:
                layout = check_whole(path, target)
        else:
            plain, layout = path, check_whole(path)
        if layout.dtype is not None:
            check_finite(np.memmap(plain, layout.dtype, "r", layout.start), str(path))
        yield plain


def check_whole(path: Path, target: BinaryIO | None = None) -> Layout:
    """Read all of `path`, write it uncompressed to `target` if there is one. raises: as `whole_nifti`"""
    with path.open("rb") as file, gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file as stream:
        block = stream.read(540)
        layout = read_header(block)
        check_bytes(path, layout.size)
        if target and layout.size > shutil.disk_usage(tempfile.gettempdir()).free:
            raise UserError(f"{path}: no room for {layout.size:,} bytes in {tempfile.gettempdir()}; set TMPDIR")
        found = 0
        while block and found <= layout.size:
            found += len(block)
            if target:
                target.write(block)
            block = stream.read(BLOCK)  # at the end of a .gz file its checksum is compared
    if found != layout.size:
        more = "or more " if found > layout.size else ""
        raise ValueError(f"found {found:,} bytes {more}where its header says {layout.size:,}")
    return layout


def read_header(header: bytes) -> Layout:
    """The layout of a NIfTI file by its first 540 bytes. raises: ValueError for what is no NIfTI file"""
    if len(header) < 348:
        raise ValueError("its header is cut short")
    for order in "<>":
        (version,) = struct.unpack_from(f"{order}i", header)
        if version == 348 and header[344:348] == b"n+1\0":
            *dims, kind, start = struct.unpack_from(f"{order}8h14xh36xf", header, 40)  # from byte 40, 70 and 108
            break
        if version == 540 and header[4:8] == b"n+2\0" and len(header) == 540:
            kind, *dims, start = struct.unpack_from(f"{order}h2x8q88xq", header, 12)  # from byte 12, 16 and 168
            break
    else:
        raise ValueError("not a NIfTI file that holds its own voxels")
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1 or not version <= start < 2**31:
        raise ValueError(f"its header says {dims[0]} dimensions of {tuple(dims[1:])} from byte {start}")
    if kind != RGB and kind not in TYPES:
        raise ValueError(f"voxels of type {kind}; expected whole or real numbers")
    dtype = None if kind == RGB else np.dtype(f"{order}{TYPES[kind]}")
    size = math.prod(dims[1 : dims[0] + 1]) * (dtype.itemsize if dtype else 3)
    return Layout(int(start) + size, int(start), dtype)
