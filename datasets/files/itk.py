"""NIfTI and DICOM through SimpleITK: arrays with spacing, origin and direction, and back.

SimpleITK counts x first, arrays z first: sizes and spacings are turned round here, nowhere else.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import reading
from utils.log import log_once

# Slices of a series may lie this far from even spacing, as a share of it (positions are rounded in the files).
UNEVEN = 0.01


def read_itk(path: Path, files: Sequence[str]) -> tuple[np.ndarray, tuple[float, ...], dict[str, Any]]:
    """Array (D, H, W), or (H, W, 3) of a colour picture; its spacing in mm; origin, direction, dimension, oriented.

    Rescale slope and intercept are applied: CT comes in HU. `files` are the slices of a series or one file.
    """
    import SimpleITK as sitk

    with reading(path, as_what=" as NIfTI or DICOM"):
        image = sitk.ReadImage(files[0] if len(files) == 1 else list(files))
    array, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
    meta = {"origin": image.GetOrigin(), "direction": image.GetDirection(), "dimension": image.GetDimension()}
    codes = [image.GetMetaData(key) for key in ("qform_code", "sform_code") if image.HasMetaDataKey(key)]
    meta["oriented"] = set(codes) != {"0"}  # a NIfTI file may say that its axes mean nothing, a NRRD file not say more
    if image.HasMetaDataKey("ITK_InputFilterName") and image.GetMetaData("ITK_InputFilterName") == "NrrdImageIO":
        meta["oriented"] = image.HasMetaDataKey("NRRD_space")
    if image.GetNumberOfComponentsPerPixel() == 3 and array.size == 3 * array.shape[-3] * array.shape[-2]:
        return array.reshape(array.shape[-3:]), spacing[-2:], {}
    if image.GetNumberOfComponentsPerPixel() > 1 or image.GetDimension() > 3:
        raise UserError(
            f"{path}: found an array of shape {array.shape}, expected one volume (D, H, W); "
            "save each of its volumes as a file of its own, e.g. SimpleITK.WriteImage(image[..., 0], 'first.nii.gz')"
        )
    if array.ndim == 2:
        return array[None], (1.0, *spacing), meta
    return array, spacing, meta


def series_files(folder: Path) -> list[str]:
    """The DICOM files of a folder in the order of their positions; warns where slices are missing.

    raises: UserError unless they are one series
    """
    import SimpleITK as sitk

    series = sitk.ImageSeriesReader
    files = {key: series.GetGDCMSeriesFileNames(str(folder), key) for key in series.GetGDCMSeriesIDs(str(folder))}
    if len(files) != 1:
        found = "; ".join(f"{len(names)} files such as {Path(names[0]).name}" for names in files.values())
        raise UserError(
            f"{folder}: found {len(files)} DICOM series ({found or 'no DICOM file'}), expected one; "
            "give a folder for each series"
        )
    (names,) = files.values()
    reader, origins = sitk.ImageFileReader(), []
    for name in names:
        reader.SetFileName(name)
        reader.ReadImageInformation()
        origins.append(np.array(reader.GetOrigin()))
    gaps = [float(np.linalg.norm(after - before)) for before, after in pairwise(origins)]
    if gaps and max(gaps) - min(gaps) > UNEVEN * min(gaps):
        log_once(
            f"warning: {folder}: slices lie {min(gaps):g} to {max(gaps):g} mm apart (some missing, or twice?); "
            "the volume is read as if evenly spaced"
        )
    return list(names)


def write_nifti(path: Path, labels: np.ndarray, spacing: Sequence[float], meta: dict[str, Any]) -> None:
    """Write labels (D, H, W) with their spacing and the `meta` of `read_itk`; an empty one means at the origin."""
    import SimpleITK as sitk

    flat = meta.get("dimension") == 2
    image = sitk.GetImageFromArray(labels[0] if flat else labels)
    image.SetSpacing(spacing[:0:-1] if flat else spacing[::-1])
    if meta:
        image.SetOrigin(meta["origin"])
        image.SetDirection(meta["direction"])
    sitk.WriteImage(image, str(path), useCompression=True)
