"""One reader for pictures and volumes, and one writer for their masks, which keeps the geometry.

Shapes: a picture is (H, W) or (H, W, 3) RGB; a volume is (D, H, W), one 2-D slice after the other.
Spacing is in mm in the order of the array, (z, y, x) or (y, x); None where it is not known.
"""

from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from datasets.files.arrays import PLACE, checked_spacing, read_arrays
from datasets.files.dicom import is_dicom
from datasets.files.itk import read_itk
from datasets.files.pictures import PICTURE_SUFFIXES, TIFF_SUFFIXES, read_pages
from datasets.files.place import checked_place, meta_of, write_placed
from utils.errors import UserError
from utils.files import replacing
from utils.preprocess import AXES
from utils.preprocess.intensities import check_finite

SPLIT = "save each volume, such as array[0], as a file of its own"
ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
SUFFIXES = (*PICTURE_SUFFIXES, *ARRAY_SUFFIXES, ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")


@dataclass(frozen=True)
class Image:
    """An image in its stored type (HU for CT) and where it lies in space.

    kind: "picture" (H, W[, 3]) or "volume" (D, H, W); meta: origin, direction (x first, as in SimpleITK), dimension
    and oriented (whether origin and direction mean anything) of a NIfTI or DICOM file or a prepared volume, empty of
    others.
    """

    array: np.ndarray
    spacing: tuple[float, ...] | None
    kind: Literal["picture", "volume"]
    path: Path
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def orientation(self) -> str:
        """The patient's directions in which the array's axes grow (`utils.inference.orientation`), of an oblique volume
        those nearest to its own; "" where the file has no geometry, or only that of a plane.

        SimpleITK's direction matrix says where each axis of the file points, x first, in a space whose axes grow to the
        patient's left, to the back and upwards.
        """
        if len(self.meta.get("direction", ())) != 9 or not self.meta.get("oriented", True):
            return ""
        along = np.reshape(self.meta["direction"], (3, 3))[:, ::-1].T  # [axis of the array, axis of the patient]
        nearest = max(permutations(range(3)), key=lambda axes: sum(abs(along[k, axis]) for k, axis in enumerate(axes)))
        return "".join(AXES[axis][int(along[k, axis] > 0)] for k, axis in enumerate(nearest))


def suffix_of(path: str | Path) -> str:
    """The ending that names the format, in lower case, `.nii.gz` as a whole; "" when it is none we know."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def read_image(path: str | Path, upright: bool = False) -> Image:
    """Read a picture, an array file, a NIfTI, NRRD, MetaImage or DICOM file, or a folder that holds one DICOM series.

    An .npz or .h5 file gives its array `image`, and its place where it has one. A TIFF file of several pages is a
    volume. upright: turn a photograph by its EXIF orientation, as viewers show it
    raises: UserError for what is missing, damaged, larger than allowed or of no known kind, and for values that are
        not finite
    """
    path = Path(path)
    suffix = suffix_of(path)
    if path.is_dir():
        return _image(path, *read_itk(path))
    if not path.exists():
        raise UserError(f"{path}: no such file; expected an image ({', '.join(SUFFIXES)}) or a folder of DICOM files")
    if suffix in PICTURE_SUFFIXES:
        pages = read_pages(path, upright)
        return _image(path, pages[0], None, {}) if len(pages) == 1 else _stack(path, pages)
    if suffix in ARRAY_SUFFIXES:
        return _image(path, *_read_array(path))
    if suffix or is_dicom(path):
        return _image(path, *read_itk(path))
    raise UserError(f"{path}: of no known kind, expected DICOM or one of {', '.join(SUFFIXES)}; convert it")


def _stack(path: Path, pages: list[np.ndarray]) -> Image:
    """The pages of a TIFF file as the slices of a volume. raises: UserError unless they are grey and of one size"""
    kinds = {(page.shape, page.dtype.name) for page in pages}
    if len(kinds) > 1 or pages[0].ndim > 2:
        found = ", ".join(sorted(f"{'x'.join(map(str, shape))} {dtype}" for shape, dtype in kinds))
        raise UserError(f"{path}: found {len(pages)} pages of {found}, expected grey pages of one size and type")
    volume = np.stack(pages)
    check_finite(volume, str(path))
    return Image(volume, None, "volume", path)


def _read_array(path: Path) -> tuple[np.ndarray, np.ndarray | tuple[float, ...] | None, dict[str, Any]]:
    """The array `image` (or the only one) of the file, its `spacing` and `meta`; a slice's are of its volume."""

    def choose(names: list[str]) -> list[str]:
        images = {"image"} & set(names) or set(names) - {"label", *PLACE}
        if len(images) != 1:
            raise UserError(f"{path}: found the arrays {names}, expected one named image")
        return [*images, *(PLACE if set(PLACE) <= set(names) else {"spacing"} & set(names))]

    arrays = read_arrays(path, choose)
    place = {name: arrays.pop(name) for name in PLACE if name in arrays}
    (array,) = arrays.values()
    spacing = place.get("spacing")
    if len(place) < len(PLACE):
        return array, spacing, {}
    found = checked_place(path, place)
    if array.ndim == 2:
        return array, found.spacing[1:], {}
    return array, found.spacing, meta_of(found.spacing, found.affine)


def _image(path: Path, array: np.ndarray, spacing: Any, meta: dict[str, Any]) -> Image:
    """Tell a picture from a volume by its shape. raises: UserError for neither, and for a spacing that does not fit"""
    if array.ndim not in (2, 3):
        expected = "(H, W), (H, W, 3) or (D, H, W)"
        raise UserError(f"{path}: found an array of shape {array.shape}, expected {expected}; {SPLIT}")
    kind = "picture" if array.ndim == 2 else "volume"
    if array.ndim == 3 and array.shape[2] in (1, 3, 4) and not meta:
        kind = "picture"
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
    if array.dtype.kind not in "buif" or array.size == 0:
        raise UserError(f"{path}: found {array.dtype} values of shape {array.shape}, expected one or more real numbers")
    check_finite(array, str(path))
    if spacing is not None:
        spacing = checked_spacing(path, spacing, 2 if kind == "picture" else 3)
    return Image(array, spacing, kind, path, meta)


def save_mask(path: Path, mask: np.ndarray, like: Image) -> Path:
    """Write a mask of the size of `like`; add the suffix of its kind to `path`; return the file written.

    A picture's mask is a .png. A volume's is a .nii.gz with the spacing of `like`, and with its origin and direction
    where it has them; where the spacing is not known it is a .tif of as many pages as a TIFF file has, or a .npy.
    Labels are uint8; a bool mask of a picture becomes 0 and 255. A picture's labels are grey levels without a palette,
    of which OpenCV would give the colours.
    mask: bool or uint8
    raises: UserError when the file cannot be written; then nothing is left behind
    """
    suffix = ".png" if like.kind == "picture" else ".nii.gz" if like.spacing else ".npy"
    suffix = ".tif" if suffix == ".npy" and like.path.suffix.lower() in TIFF_SUFFIXES else suffix
    path, labels = path.with_name(path.name + suffix), mask.astype(np.uint8)
    with replacing(path) as part:
        if like.kind == "picture":
            cv2.imencode(suffix, labels * np.uint8(255) if mask.dtype == bool else labels)[1].tofile(part)
        elif suffix == ".tif":
            cv2.imencodemulti(suffix, list(labels))[1].tofile(part)
        elif suffix == ".npy":
            np.save(part, labels)
        else:
            write_placed(part, labels, like.spacing, like.meta)
    return path
