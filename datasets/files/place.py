"""Where a volume lies in the patient: `spacing`, `affine` and `orientation` of npz and h5 files, and NIfTI files of it.

affine (4, 4): (slice, row, column, 1) -> a point in mm in the patient's space, which grows to the left, to the back and
upwards, as in DICOM. orientation: as in `utils/inference/orientation.py`. prepare_data.py writes all three.
"""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.files.arrays import PLACE, checked_spacing
from datasets.files.itk import write_nifti
from utils.errors import UserError
from utils.preprocess import ORIENTATIONS

UNIT, FORMS = 123, 252  # bytes of a NIfTI header: the unit of length and time; qform_code and sform_code
DIRECTIONS = dict(zip("LPSRAI", (*np.eye(3), *-np.eye(3))))  # unit vectors to the left, back, top and their opposites
LEAST_COSINE = 0.4  # of an axis and the patient's direction that its letter names; the nearest one is never further off
REMEDY = "prepare the data again, or store the spacing alone"


class Place(NamedTuple):
    """spacing (z, y, x) in mm, affine, orientation; None, None and "" where they are not known."""

    spacing: tuple[float, ...] | None = None
    affine: np.ndarray | None = None
    orientation: str = ""


def checked_place(path: Path, arrays: Mapping[str, Any]) -> Place:
    """The place of a volume from the arrays of its file; affine and orientation count only beside each other.

    raises: UserError for what is no spacing, affine or orientation, and where they contradict each other
    """
    spacing = checked_spacing(path, arrays["spacing"], 3) if "spacing" in arrays else None
    if not set(PLACE) <= arrays.keys():
        return Place(spacing)
    affine, word = np.asarray(arrays["affine"]), np.asarray(arrays["orientation"]).item()
    orientation = word.decode("ascii", "replace") if isinstance(word, bytes) else str(word)
    if orientation not in ORIENTATIONS[1:]:
        raise UserError(f"{path}: `orientation` is {orientation}; expected three letters such as SPL; {REMEDY}")
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf" or not np.isfinite(affine).all():
        found = f"{affine.dtype} values of shape {affine.shape}"
        raise UserError(f"{path}: `affine` has {found}; expected finite numbers of shape (4, 4); {REMEDY}")
    steps, expected = affine[:3, :3] / spacing, ""
    if not np.allclose(steps.T @ steps, np.eye(3), atol=1e-3):
        expected = f"ones at right angles, as long as `spacing` {spacing} says"
    elif min(along @ DIRECTIONS[letter] for along, letter in zip(steps.T, orientation)) < LEAST_COSINE:
        expected = f"those of `orientation` {orientation}"
    if expected:
        found = f"`affine` has the steps {affine[:3, :3].T.tolist()} to the left, back and top"
        raise UserError(f"{path}: {found}; expected {expected}; {REMEDY}")
    return Place(spacing, affine.astype(float), orientation)


def meta_of(spacing: Sequence[float] | None, affine: np.ndarray | None) -> dict[str, Any]:
    """origin, direction (x first) and dimension of a place, as `read_itk` gives them; empty where it is not known."""
    if affine is None:
        return {}
    direction = (affine[:3, :3] / spacing)[:, ::-1]
    return {"origin": tuple(affine[:3, 3].tolist()), "direction": tuple(direction.ravel().tolist()), "dimension": 3}


def write_placed(path: Path, array: np.ndarray, spacing: Sequence[float] | None, meta: Mapping[str, Any]) -> None:
    """Write (D, H, W) as NAME.nii.gz with the `meta` of `read_itk` or `meta_of`.

    Without one, or one that means nothing, the file says so: its qform_code and sform_code are 0. Without a spacing it
    has no unit of length.
    raises: OSError as `write_nifti`
    """
    write_nifti(path, array, spacing or (1.0, 1.0, 1.0), meta)
    if meta and meta.get("oriented", True):
        return
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[FORMS : FORMS + 4] = bytes(4)  # the library always writes 1 and mm
    if spacing is None:
        data[UNIT] = 0
    path.write_bytes(gzip.compress(data, 6, mtime=0))  # without a time: the same masks give the same bytes
