"""Arrays of npy, npz and h5 files. Sizes are checked before memory is taken; only the file itself is read."""

import itertools
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from utils.errors import UserError
from utils.files import check_bytes, reading

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
PLACE = ("spacing", "affine", "orientation")  # they say together where a volume lies (`datasets/files/place.py`)
MAX_HEADER = 2**16  # bytes of the header of an npy file
DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000  # filters of HDF5
MOST_TIMES = 1032  # deflate makes data at most so many times smaller


def read_arrays(path: Path, choose: Callable[[list[str]], Sequence[str]]) -> dict[str, np.ndarray]:
    """The arrays of an npz or h5 file that `choose` picks from all names; that of an npy file is called `image`.

    Those of PLACE may be attributes of an h5 file, and are then among the result.
    raises: UserError for a damaged file, for values that lie in other files, and for more bytes than allowed
    """
    suffix = path.suffix.lower()
    with reading(path):
        if suffix == ".npy":
            with path.open("rb") as file:
                return {"image": _read_npy(path, file)}
        if suffix != ".npz":
            with h5py.File(path, "r") as file:
                arrays = {name: _read_h5(path, file, name) for name in choose(list(file))}
                attributes = [name for name in PLACE if name in file.attrs and name not in arrays]
                return arrays | {name: np.asarray(file.attrs[name]) for name in attributes}
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path}: not a complete npz file (truncated, or another format); copy or convert it again")
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive)
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            arrays = {}
            for name in choose(names):
                with archive.open(f"{name}.npy") as stream:
                    arrays[name] = _read_npy(path, stream)
            return arrays


def checked_spacing(path: Path, spacing: Any, num_axes: int) -> tuple[float, ...]:
    """A spacing as numbers. raises: UserError unless they are `num_axes` positive ones"""
    values = np.asarray(spacing)
    if values.shape != (num_axes,) or values.dtype.kind not in "iuf" or not (np.isfinite(values) & (values > 0)).all():
        expected = f"expected {num_axes} positive numbers in mm, z first"
        raise UserError(f"{path}: `spacing` is {values.tolist()}; {expected}")
    return tuple(values.astype(float).tolist())


def _check_directory(archive: zipfile.ZipFile) -> None:
    """Refuse a directory that lost a member or changed its name: no checksum tells of it."""
    archive.fp.seek(-22 - len(archive.comment), 2)  # the record at the end, which counts the members
    if (count := int.from_bytes(archive.fp.read(22)[10:12], "little")) != len(archive.namelist()):
        raise ValueError(f"its directory has {count} members, found {len(archive.namelist())}")
    for member in archive.infolist():
        archive.open(member).close()  # fails where its name at its place is another


def _read_npy(path: Path, stream: BinaryIO) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the npy format")
    if int.from_bytes(stream.read(2 * version[0]), "little") > MAX_HEADER:
        raise ValueError("its header is too long")
    stream.seek(8)
    shape, _, dtype = HEADERS[version](stream)
    _check_array(path, shape, dtype)
    stream.seek(0)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):
        raise ValueError("it holds more than its header says")
    return array


def _read_h5(path: Path, file: h5py.File, name: str) -> np.ndarray:
    """The data set `name`, whose values must lie in the file itself."""
    link = file.get(name, getlink=True)
    data = file[name] if isinstance(link, h5py.HardLink) else None
    if data is None or (isinstance(data, h5py.Dataset) and (data.external or data.is_virtual)):
        raise UserError(f"{path}: `{name}` lies elsewhere (a link, or external storage); store its values in the file")
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise ValueError(f"`{name}` is no array")
    _check_array(path, data.shape, data.dtype)
    if data.chunks:
        _check_array(path, data.chunks, data.dtype)
        _check_chunks(path, data)
    return np.asarray(data[()])


def _check_chunks(path: Path, data: h5py.Dataset) -> None:
    """Refuse missing chunks, which would be read as 0, and filters that could make more of a chunk than its size."""
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    packed = [code for code in filters if code in (DEFLATE, LZF)]
    if set(filters) - {DEFLATE, SHUFFLE, FLETCHER32, LZF} or len(packed) > 1:
        raise ValueError(f"compressed by the filters {filters} of HDF5; expected gzip, lzf, shuffle, fletcher32")
    expected = math.prod(-(-length // chunk) for length, chunk in zip(data.shape, data.chunks))
    if data.id.get_num_chunks() != expected:
        raise ValueError("chunks of it are missing")
    plain = math.prod(data.chunks) * data.dtype.itemsize
    for start in itertools.product(*map(range, itertools.repeat(0), data.shape, data.chunks)):
        if (size := data.id.get_chunk_info_by_coord(start).size) > path.stat().st_size:
            raise ValueError(f"a chunk of {size:,} bytes")
        if packed:
            check_bytes(path, size * MOST_TIMES)
        skipped = data.id.read_direct_chunk(start)[0]  # fails for a chunk that is not found
        if skipped and (not packed or skipped != 1 << filters.index(packed[0]) or size - plain not in (0, 4)):
            raise ValueError("a chunk is marked as stored without its filters")


def _check_array(path: Path, shape: Sequence[int], dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise ValueError("it holds no plain array")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {tuple(shape)}")
    check_bytes(path, math.prod(shape) * dtype.itemsize)
