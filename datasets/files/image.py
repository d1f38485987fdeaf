"""One reader and one writer for pictures and volumes, keeping their geometry.

Shapes: a picture is (H, W) or (H, W, 3) RGB; a volume is (D, H, W), one 2-D slice after the other.
Spacing is in mm in the order of the array, (z, y, x) or (y, x); None where it is not known.
"""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import h5py
import numpy as np

from datasets.files.itk import read_itk, series_files, write_nifti
from datasets.files.pictures import LOSSY_SUFFIXES, PICTURE_SUFFIXES, read_picture
from utils.errors import UserError

ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
SUFFIXES = (*PICTURE_SUFFIXES, *ARRAY_SUFFIXES, *NIFTI_SUFFIXES, ".dcm")


@dataclass(frozen=True)
class Image:
    """An image in its stored type (HU for CT) and where it lies in space.

    kind: "picture" (H, W[, 3]) or "volume" (D, H, W); meta: origin, direction (x first, as in
    SimpleITK) and dimension of a NIfTI or DICOM file, empty of others.
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

    An .npz or .h5 file gives its array `image`, and `spacing` where it has one. Raises UserError
    for what is missing, damaged or of no known kind.
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
    try:
        if suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return file[_key(path, file.files)], file.get("spacing")
        with h5py.File(path, "r") as file:
            spacing = file["spacing"][()] if "spacing" in file else file.attrs.get("spacing")
            return file[_key(path, list(file))][()], spacing
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds no plain array" if "pickle" in str(error) else error
        raise UserError(f"{path}: cannot be read ({reason}); copy or convert the file again") from None


def _key(path: Path, keys: list[str]) -> str:
    others = [key for key in keys if key not in ("label", "spacing")]
    if "image" not in keys and len(others) != 1:
        raise UserError(f"{path}: found the arrays {keys}, expected one named image")
    return "image" if "image" in keys else others[0]


def _image(path: Path, array: np.ndarray, spacing: Any, meta: dict[str, Any]) -> Image:
    """Tell picture from volume by the shape; raises UserError for neither, and for a spacing that does not fit."""
    if array.ndim == 3 and array.shape[2] in (1, 3, 4) and not meta:
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
        kind: Literal["picture", "volume"] = "picture"
    elif array.ndim in (2, 3):
        kind = "picture" if array.ndim == 2 else "volume"
    else:
        raise UserError(f"{path}: found an array of shape {array.shape}, expected (H, W), (H, W, 3) or (D, H, W)")
    if array.dtype.kind not in "buif" or array.size == 0:
        raise UserError(
            f"{path}: found {array.dtype} values of shape {array.shape}, expected real numbers, some at least"
        )
    if spacing is not None:
        spacing = tuple(float(value) for value in np.asarray(spacing).ravel())
        expected = 2 if kind == "picture" else 3
        if len(spacing) != expected or min(spacing) <= 0:
            raise UserError(f"{path}: found the spacing {spacing}, expected {expected} positive numbers in mm, z first")
    return Image(array, spacing, kind, path, meta)


# --- masks --------------------------------------------------------------------------------------


def mask_suffix(like: Image) -> str:
    """The ending for a mask of `like`: .png of a picture, .nii.gz of a volume of known spacing, else .npy."""
    if like.kind == "picture":
        return ".png"
    return ".npy" if like.spacing is None else ".nii.gz"


def save_mask(path: Path, mask: np.ndarray, like: Image) -> Path:
    """`write_mask` with the ending that suits `like` added to `path`; returns the file written."""
    path = path.with_name(path.name + mask_suffix(like))
    write_mask(path, mask, like)
    return path


def write_mask(path: str | Path, mask: np.ndarray, like: Image) -> None:
    """Write labels of the size of `like` and with its geometry; the file appears whole or not at all.

    Pictures as .png, .tif or .bmp, volumes as .nii or .nii.gz with exactly the origin, direction and
    spacing of `like`, both as .npy. Labels keep their values in uint8 (uint16 above 255), but a bool
    mask of a picture becomes 0 and 255. Raises UserError for another shape or a format that does not fit.
    """
    path, suffix = Path(path), suffix_of(path)
    shape = like.array.shape[: 2 if like.kind == "picture" else 3]
    if mask.shape != shape:
        raise UserError(f"{path}: found a mask of shape {mask.shape}, expected {shape} as {like.path} has")
    fits = NIFTI_SUFFIXES if like.kind == "volume" else set(PICTURE_SUFFIXES) - set(LOSSY_SUFFIXES)
    if suffix != ".npy" and suffix not in fits:
        raise UserError(f"{path}: the mask of a {like.kind} is written as {', '.join(sorted(fits))} or .npy; rename it")
    labels = _labels(path, mask)
    if mask.dtype == bool and suffix in PICTURE_SUFFIXES:
        labels = labels * np.uint8(255)
    part = path.with_name(f".part-{path.name}")
    try:
        if suffix == ".npy":
            np.save(part, labels)
        elif like.kind == "volume":
            write_nifti(part, labels, like.spacing, like.meta)
        else:
            cv2.imencode(suffix, labels)[1].tofile(part)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


def _labels(path: Path, mask: np.ndarray) -> np.ndarray:
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    low, high = mask.min(), mask.max()
    if low < 0 or high > 65535 or (mask.dtype.kind == "f" and (mask != np.rint(mask)).any()):
        raise UserError(f"{path}: found labels from {low} to {high}, expected whole numbers from 0 to 65535")
    return mask.astype(np.uint8 if high <= 255 else np.uint16)
