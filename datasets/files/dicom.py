"""DICOM files before the library sees them: which of a folder are one series, in which order, whether each is whole.

The library leaves damaged slices out without a word, and takes as much memory for a value as its length says.
"""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError, counted
from utils.files import reading
from utils.log import log_once

UNEVEN = 0.01  # slices of a series may lie this far from even spacing, as a share of it (positions are rounded)
SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # length of 2 bytes (PS3.5, 7.1.2)
LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # of 4 bytes
IMPLICIT, DEFLATED, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"  # transfer syntaxes
UNDEFINED = 0xFFFFFFFF
POSITION, ORIENTATION, SERIES, NUMBER = "0020|0032", "0020|0037", "0020|000e", "0020|0013"


def quiet_itk() -> Any:
    """The module SimpleITK, its own warnings off: they show a file's name with whatever characters it has."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does; it often has no ending, or the last part of a number in its place."""
    with reading(path), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def series_files(folder: Path) -> list[str]:
    """The DICOM files of a folder in the order of their positions; warns where slices are missing.

    They are those that begin as DICOM does, end in .dcm, or have no ending as others of the series; not a DICOMDIR.
    raises: UserError unless they are one series, and for one that cannot be read
    """
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and not path.is_dir()]
    begun = {path for path in there if is_dicom(path)}
    endings = {".dcm"} | ({""} & {path.suffix for path in begun if path.name != "DICOMDIR"})
    files = [path for path in there if path in begun or path.suffix.lower() in endings if path.name != "DICOMDIR"]
    tags = {path: _read_tags(path) for path in files}
    series: dict[str, list[Path]] = {}
    for path in files:
        series.setdefault(tags[path].get(SERIES, ""), []).append(path)
    if len(series) != 1:
        found = "; ".join(f"{counted(len(paths), 'file')} such as {paths[0].name}" for paths in series.values())
        found = f"found {len(series)} DICOM series ({found or 'no DICOM file'}), expected one"
        raise UserError(f"{folder}: {found}; give a folder for each series")
    places = {path: _place(path, tags[path]) for path in files}
    files.sort(key=lambda path: places[path])
    gaps = [after[0] - before[0] for before, after in pairwise(places[path] for path in files)]
    if gaps and max(gaps) - min(gaps) > UNEVEN * min(gaps):
        found = f"slices lie {min(gaps):g} to {max(gaps):g} mm apart (some missing, or twice?)"
        log_once(f"warning: {folder}: {found}; the volume is read as if evenly spaced")
    return [str(path) for path in files]


def _read_tags(path: Path) -> dict[str, str]:
    """The tags that order a series. raises: UserError for a file that is no DICOM image"""
    sitk = quiet_itk()
    with reading(path, "copy it again, or move what does not belong to the series elsewhere", as_what=" as DICOM"):
        check_elements(path)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        names = [name for name in (POSITION, ORIENTATION, SERIES, NUMBER) if reader.HasMetaDataKey(name)]
        return {name: reader.GetMetaData(name).strip("\0 ") for name in names}


def _place(path: Path, tags: dict[str, str]) -> tuple[float, float, str]:
    """Where a slice comes in its series: its distance along the normal in mm, its number, its name."""
    with reading(path, as_what=" as DICOM"):
        number = float(tags.get(NUMBER) or 0)
        if POSITION not in tags or ORIENTATION not in tags:
            return number, number, path.name
        position, axes = (np.array(tags[name].split("\\"), float) for name in (POSITION, ORIENTATION))
        return float(position @ np.cross(axes[:3], axes[3:])), number, path.name


def check_elements(path: Path) -> None:
    """Walk over the elements of a DICOM file, those of sequences included, by their lengths.

    raises: ValueError for a length beyond the end of the file, and for a file that does not say how it is encoded
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 132 if file.read(132)[128:] == b"DICM" else 0
        explicit, order, syntax, in_pixels = at > 0, "<", "", False
        while at < size:
            file.seek(at)
            head = file.read(12)
            if syntax and head[:2] != b"\2\0":  # the first element after those that describe the file
                explicit, order, syntax = syntax != IMPLICIT, ">" if syntax == BIG else "<", ""
            tag, length, start = _element(head, explicit, order)
            describes = tag[0] == 2 and head[4:6] in (*SHORT, *LONG)
            if explicit and not describes and (at == 132 or tag[0] == 2):  # the library then guesses: up to gigabytes
                raise ValueError("the elements that describe a DICOM file are not at its beginning")
            if length != UNDEFINED and at + start + length > size:
                raise ValueError(f"found {size:,} bytes where an element ends at {at + start + length:,}")
            if tag == (2, 0x10):
                file.seek(at + start)
                syntax = file.read(min(length, 64)).strip(b"\0 ").decode("ascii")
                if syntax == DEFLATED:
                    raise ValueError("a deflated transfer syntax, which is not read")
            in_pixels = in_pixels or (tag == (0x7FE0, 0x10) and length == UNDEFINED)  # then items hold no elements
            enters = length == UNDEFINED or head[4:6] == b"SQ" or (tag == (0xFFFE, 0xE000) and not in_pixels)
            at += start + (0 if enters else length)


def _element(head: bytes, explicit: bool, order: str) -> tuple[tuple[int, int], int, int]:
    """Tag, length of the value, and where the value starts, by the first bytes of an element."""
    if len(head) < 8:
        raise ValueError("it ends within an element")
    tag = struct.unpack_from(f"{order}HH", head)
    if explicit and tag[0] != 0xFFFE and head[4:6] in SHORT:
        return tag, struct.unpack_from(f"{order}H", head, 6)[0], 8
    if explicit and tag[0] != 0xFFFE and head[4:6] in LONG and len(head) == 12:
        return tag, struct.unpack_from(f"{order}I", head, 8)[0], 12
    return tag, struct.unpack_from(f"{order}I", head, 4)[0], 8
