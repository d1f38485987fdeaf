"""NIfTI, NRRD, MetaImage and DICOM through SimpleITK: arrays with spacing, origin and direction, and back.

SimpleITK counts x first, arrays z first: sizes and spacings are turned round here, nowhere else.
"""

import contextlib
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.files.dicom import POSITION, quiet_itk, read_headers
from datasets.files.nifti import check_whole, whole_nifti
from datasets.files.slices import Stack, stack_slices
from utils.errors import UserError
from utils.files import check_bytes, reading
from utils.log import log_once

KINDS = {".nii": "Nifti", ".gz": "Nifti", ".nrrd": "Nrrd", ".mha": "Meta"}  # by the last part of the name; else DICOM
MAX_HEADER = 2**20  # bytes of a header in text
MAX_FIELD = 800  # bytes of one field in a NRRD header: longer ones that it cannot parse crash the library


def read_itk(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None, dict[str, Any]]:
    """Array (D, H, W), or (H, W, 3) of a colour picture; its spacing in mm; origin, direction, dimension, oriented.

    Rescale slope and intercept are applied: CT comes in HU. A folder is a DICOM series. The spacing is None where
    DICOM files do not say it; SimpleITK would take 1 mm.
    raises: UserError for what is damaged, larger than allowed, or has its values in another file, and for DICOM files
        that are no stack of slices
    """
    sitk = quiet_itk()
    suffix = path.suffix.lower()
    kind = "GDCM" if path.is_dir() or suffix not in KINDS else KINDS[suffix]
    stack, files = None, [str(path)]
    with contextlib.ExitStack() as context:
        context.enter_context(reading(path, as_what=f" as {'DICOM' if kind == 'GDCM' else kind}"))
        if kind == "Nifti":
            files = [str(context.enter_context(whole_nifti(path)))]
        elif kind != "GDCM":
            check_text_header(path)
        else:
            stack = stack_slices(path, read_headers(path))
            files = list(dict.fromkeys(str(one.file) for one in stack.slices))
        check_bytes(path, _claimed_bytes(files[0], f"{kind}ImageIO") * len(files))
        image = sitk.ReadImage(files[0] if len(files) == 1 else files, imageIO=f"{kind}ImageIO")
    array, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
    meta = {"origin": image.GetOrigin(), "direction": image.GetDirection(), "dimension": image.GetDimension()}
    codes = [image.GetMetaData(key) for key in ("qform_code", "sform_code") if image.HasMetaDataKey(key)]
    meta["oriented"] = set(codes) != {"0"}  # a NIfTI file may say that its axes mean nothing, a NRRD file not say more
    if kind == "Nrrd":
        meta["oriented"] = image.HasMetaDataKey("NRRD_space")
    if image.GetNumberOfComponentsPerPixel() == 3 and array.size == 3 * array.shape[-3] * array.shape[-2]:
        return array.reshape(array.shape[-3:]), stack.pixels if stack else spacing[-2:], {}
    if image.GetNumberOfComponentsPerPixel() > 1 or image.GetDimension() > 3:
        example = "SimpleITK.WriteImage(image[..., 0], 'first.nii.gz')"
        remedy = f"save each of its volumes as a file of its own, e.g. {example}"
        raise UserError(f"{path}: found an array of shape {array.shape}, expected one volume (D, H, W); {remedy}")
    if stack:
        return _lay(path, array, meta, stack)
    if array.ndim == 2:
        return array[None], (1.0, *spacing), meta
    return array, spacing, meta


def _lay(
    path: Path, array: np.ndarray, meta: dict[str, Any], stack: Stack
) -> tuple[np.ndarray, tuple[float, ...] | None, dict[str, Any]]:
    """Give a volume, its frames in their order, the geometry of its slices; the library invents what files lack.

    One image without a place in the patient is a picture (H, W).
    """
    if len(array) == 1 and stack.normal is None:  # an X-ray or an ultrasound image lies nowhere: a picture
        return array[0], stack.pixels, {}
    if stack.missing:
        found = f"found no {' or '.join(stack.missing)} for each slice"
        log_once(f"warning: {path}: {found}; the mask has no geometry (.npy), and its volume in ml is not known")
    if sorted(frames := [one.frame for one in stack.slices]) == [*range(len(array))] != frames:
        array = array[frames]
    meta["oriented"] = stack.normal is not None
    if stack.normal is not None:
        columns = np.reshape(meta["direction"], (3, 3))[:, :2]
        meta["direction"] = tuple(np.column_stack([columns, stack.normal]).ravel().tolist())
        meta["origin"] = tuple(stack.slices[0].fields[POSITION].tolist())
    return array, stack.spacing, meta


def _claimed_bytes(file: str, image_io: str) -> int:
    """How much memory the image of a file will take, by its header."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(file)
    reader.ReadImageInformation()
    channels = reader.GetNumberOfComponents()
    pixel = sitk.Image([1, 1], reader.GetPixelID(), channels if channels > 1 else 0)
    return math.prod(reader.GetSize()) * channels * pixel.GetSizeOfPixelComponent()


def check_text_header(path: Path) -> None:
    """Check the header of a NRRD or MetaImage file.

    raises: ValueError where the values lie in another file, and for a NRRD field of more than MAX_FIELD bytes
    """
    with path.open("rb") as file:
        header = file.read(MAX_HEADER)
    if path.suffix.lower() == ".nrrd":
        header, end, _ = header.replace(b"\r", b"").partition(b"\n\n")
        fields = [line for line in header.split(b"\n") if not line.startswith(b"#") and b":=" not in line]
        if (longest := max(map(len, fields), default=0)) > MAX_FIELD:
            raise ValueError(f"a field of {longest} characters in its header, expected at most {MAX_FIELD}")
        attached = end and not re.search(rb"^\s*data\s*file", header, re.IGNORECASE | re.MULTILINE)
    else:
        attached = re.search(rb"^ElementDataFile\s*=\s*(\S+)", header, re.MULTILINE)
        attached = attached and attached[1] == b"LOCAL"
    if not attached:
        raise ValueError("its values do not lie in the file itself; save header and values as one file")


def write_nifti(path: Path, array: np.ndarray, spacing: Sequence[float], meta: dict[str, Any]) -> None:
    """Write (D, H, W) with its spacing and the `meta` of `read_itk`; an empty one means at the origin.

    raises: OSError where what is on the disk is not the whole file: the library does not tell of a full disk
    """
    import SimpleITK as sitk

    flat = meta.get("dimension") == 2
    image = sitk.GetImageFromArray(array[0] if flat else array)
    image.SetSpacing(spacing[:0:-1] if flat else spacing[::-1])
    if meta:
        image.SetOrigin(meta["origin"])
        image.SetDirection(meta["direction"])
    sitk.WriteImage(image, str(path), useCompression=True)
    try:
        check_whole(path)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise OSError(f"incomplete: {error}") from None
