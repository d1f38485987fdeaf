"""One reader for pictures and volumes, and one writer for their masks, which keeps the geometry.

Shapes: a picture is (H, W) or (H, W, 3) RGB; a volume is (D, H, W), one 2-D slice after the other.
Spacing is in mm in the order of the array, (z, y, x) or (y, x); None where it is not known.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from datasets.files.itk import read_itk, series_files, write_nifti
from datasets.files.pictures import PICTURE_SUFFIXES, read_picture
from utils.errors import UserError
from utils.files import reading, replacing
from utils.results.overlay import class_color

ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
SUFFIXES = (*PICTURE_SUFFIXES, *ARRAY_SUFFIXES, ".nii.gz", ".nii", ".dcm")


@dataclass(frozen=True)
class Image:
    """An image in its stored type (HU for CT) and where it lies in space.

    kind: "picture" (H, W[, 3]) or "volume" (D, H, W); meta: origin, direction (x first, as in SimpleITK), dimension
    and oriented (whether origin and direction mean anything) of a NIfTI or DICOM file, empty of others.
    """

    array: np.ndarray
    spacing: tuple[float, ...] | None
    kind: Literal["picture", "volume"]
    path: Path
    meta: dict[str, Any] = field(default_factory=dict)


def suffix_of(path: str | Path) -> str:
    """The ending that names the format, in lower case, `.nii.gz` as a whole; "" when it is none we know."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def read_image(path: str | Path) -> Image:
    """Read a picture, an array file, a NIfTI or DICOM file, or a folder that holds one DICOM series.

    An .npz or .h5 file gives its array `image`, and `spacing` where it has one.
    raises: UserError for what is missing, damaged or of no known kind
    """
    path = Path(path)
    suffix = suffix_of(path)
    if path.is_dir():
        return _image(path, *read_itk(path, series_files(path)))
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an image ({', '.join(SUFFIXES)}) or a folder of DICOM files")
    if suffix in PICTURE_SUFFIXES:
        return Image(read_picture(path), None, "picture", path)
    if suffix in ARRAY_SUFFIXES:
        return _image(path, *_read_array(path, suffix), {})
    if suffix or _is_dicom(path):
        return _image(path, *read_itk(path, [str(path)]))
    raise UserError(f"{path}: of no known kind, expected DICOM or one of {', '.join(SUFFIXES)}; convert it")


def _is_dicom(path: Path) -> bool:
    """DICOM files often have no ending, or the last part of a number in its place."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_array(path: Path, suffix: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The array `image` (or the only one) of the file, and its `spacing` if there is one."""
    with reading(path):
        if suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return file[_key(path, file.files)], file.get("spacing")
        with h5py.File(path, "r") as file:
            spacing = file["spacing"][()] if "spacing" in file else file.attrs.get("spacing")
            return file[_key(path, list(file))][()], spacing


def _key(path: Path, keys: list[str]) -> str:
    if "image" in keys:
        return "image"
    others = [key for key in keys if key not in ("label", "spacing")]
    if len(others) != 1:
        raise UserError(f"{path}: found the arrays {keys}, expected one named image")
    return others[0]


def _image(path: Path, array: np.ndarray, spacing: Any, meta: dict[str, Any]) -> Image:
    """Tell a picture from a volume by its shape. raises: UserError for neither, and for a spacing that does not fit"""
    if array.ndim == 3 and array.shape[2] in (1, 3, 4) and not meta:
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
        kind: Literal["picture", "volume"] = "picture"
    elif array.ndim in (2, 3):
        kind = "picture" if array.ndim == 2 else "volume"
    else:
        raise UserError(f"{path}: found an array of shape {array.shape}, expected (H, W), (H, W, 3) or (D, H, W)")
    if array.dtype.kind not in "buif" or array.size == 0:
        raise UserError(f"{path}: found {array.dtype} values of shape {array.shape}, expected one or more real numbers")
    if spacing is not None:
        spacing = tuple(float(value) for value in np.asarray(spacing).ravel())
        expected = 2 if kind == "picture" else 3
        if len(spacing) != expected or min(spacing) <= 0:
            raise UserError(f"{path}: found the spacing {spacing}, expected {expected} positive numbers in mm, z first")
    return Image(array, spacing, kind, path, meta)


def save_mask(path: Path, mask: np.ndarray, like: Image) -> Path:
    """Write a mask of the size of `like`; add the suffix of its kind to `path`; return the file written.

    A picture's mask is a .png. A volume's is a .nii.gz with the origin, direction and spacing of `like`, or a .npy
    where the spacing is not known. Labels are uint8; a bool mask of a picture becomes 0 and 255, and a picture's
    labels have a palette, so that a viewer shows them in colours.
    mask: bool or uint8
    raises: UserError when the file cannot be written; then nothing is left behind
    """
    suffix = ".png" if like.kind == "picture" else ".npy" if like.spacing is None else ".nii.gz"
    path, labels = path.with_name(path.name + suffix), mask.astype(np.uint8)
    with replacing(path) as part:
        if like.kind == "picture":
            _write_png(part, labels * np.uint8(255) if mask.dtype == bool else labels, palette=mask.dtype != bool)
        elif like.spacing is None:
            np.save(part, labels)
        else:
            write_nifti(part, labels, like.spacing, like.meta)
    return path


def _write_png(path: Path, values: np.ndarray, palette: bool) -> None:
    """Write uint8 (H, W); with a palette the values are its indices: black, then the colours of the overlays."""
    from PIL import Image as Picture

    picture = Picture.fromarray(values)
    if palette:
        picture.putpalette(bytes(v for label in range(1, 256) for v in class_color(label)).rjust(768, b"\0"))
    picture.save(path, "PNG")
