"""NIfTI files against what their header says: the library reads a file that was cut short as if it were whole."""

import contextlib
import gzip
import math
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError
from utils.files import check_bytes

# Code of a type of voxels -> its bytes: real numbers, and RGB (128)
SIZES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
BLOCK = 2**20


@contextlib.contextmanager
def whole_nifti(path: Path) -> Iterator[Path]:
    """The path of an uncompressed file with the content of `path`, which is as long as its header says.

    It is `path` itself, or a temporary file: beside NAME.nii.gz the library would look for NAME.nii.
    raises: UserError for what is too large; ValueError, EOFError, OSError, zlib.error for what is damaged
    """
    if path.suffix.lower() != ".gz":
        check_whole(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="heteromedseg-") as folder:
        plain = Path(folder) / "image.nii"
        with plain.open("wb") as target:
            check_whole(path, target)
        yield plain


def check_whole(path: Path, target: BinaryIO | None = None) -> None:
    """Read all of `path`, write it uncompressed to `target` if there is one. raises: as `whole_nifti`"""
    with path.open("rb") as file, gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file as stream:
        block = stream.read(540)
        expected = header_says(block)
        check_bytes(path, expected)
        if target and expected > shutil.disk_usage(tempfile.gettempdir()).free:
            raise UserError(f"{path}: no room for {expected:,} bytes in {tempfile.gettempdir()}; set TMPDIR")
        found = 0
        while block and found <= expected:
            found += len(block)
            if target:
                target.write(block)
            block = stream.read(BLOCK)  # at the end of a .gz file its checksum is compared
    if found != expected:
        more = "or more " if found > expected else ""
        raise ValueError(f"found {found:,} bytes {more}where its header says {expected:,}")


def header_says(header: bytes) -> int:
    """How many bytes a NIfTI file has, by its first 540. raises: ValueError for what is no NIfTI file"""
    if len(header) < 348:
        raise ValueError("its header is cut short")
    for order in "<>":
        (version,) = struct.unpack_from(f"{order}i", header)
        if version == 348 and header[344:348] == b"n+1\0":
            dims, kind = struct.unpack_from(f"{order}8h", header, 40), struct.unpack_from(f"{order}h", header, 70)[0]
            (start,) = struct.unpack_from(f"{order}f", header, 108)
            break
        if version == 540 and header[4:8] == b"n+2\0" and len(header) == 540:
            dims, kind = struct.unpack_from(f"{order}8q", header, 16), struct.unpack_from(f"{order}h", header, 12)[0]
            (start,) = struct.unpack_from(f"{order}q", header, 168)
            break
    else:
        raise ValueError("not a NIfTI file that holds its own voxels")
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1 or not version <= start < 2**31:
        raise ValueError(f"its header says {dims[0]} dimensions of {dims[1:]} from byte {start}")
    if kind not in SIZES:
        raise ValueError(f"voxels of type {kind}; expected whole or real numbers")
    return int(start) + math.prod(dims[1 : dims[0] + 1]) * SIZES[kind]
