"""DICOM files before the library sees them: which of a folder are one series, what they say, whether each is whole.

The library leaves damaged slices out without a word, and takes as much memory for a value as its length says.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError, counted
from utils.files import reading

SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # length of 2 bytes (PS3.5, 7.1.2)
LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # of 4 bytes
IMPLICIT, DEFLATED, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"  # transfer syntaxes
UNDEFINED = 0xFFFFFFFF
POSITION, AXES, PIXELS, BETWEEN, THICKNESS = GEOMETRY = "0020|0032", "0020|0037", "0028|0030", "0018|0088", "0018|0050"
TAGS = SERIES, NUMBER, *_ = "0020|000e", "0020|0013", *GEOMETRY
# Sequences that hold them for frames: plane position, plane orientation, pixel measures, detector information (PS3.3)
OF_FRAMES = (0x20, 0x9113), (0x20, 0x9116), (0x28, 0x9110), (0x54, 0x22)
SEQUENCES = (0x5200, 0x9229), (0x5200, 0x9230), *OF_FRAMES  # the first two hold the others, for all frames and for each


@dataclass(frozen=True)
class Header:
    """What a DICOM file says: the values of TAGS, one each or one for each frame, and how many frames it has."""

    tags: dict[str, list[str]]
    frames: int

    def first(self, tag: str) -> str:
        """The value of a tag, of the first frame where each has one; "" without."""
        return self.tags.get(tag, [""])[0]


def quiet_itk() -> Any:
    """The module SimpleITK, its own warnings off: they show a file's name with whatever characters it has."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does; it often has no ending, or the last part of a number in its place."""
    with reading(path), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_headers(path: Path) -> dict[Path, Header]:
    """What the DICOM files of one series say: those of a folder in the order of their names, or `path` alone.

    They are those that begin as DICOM does, end in .dcm, or have no ending as others of the series; not a DICOMDIR.
    raises: UserError unless they are one series, and for one that cannot be read
    """
    if not path.is_dir():
        return {path: _read_header(path)}
    there = [one for one in sorted(path.iterdir()) if not one.name.startswith(".") and not one.is_dir()]
    begun = {one for one in there if is_dicom(one)}
    endings = {".dcm"} | ({""} & {one.suffix for one in begun if one.name != "DICOMDIR"})
    files = [one for one in there if one in begun or one.suffix.lower() in endings if one.name != "DICOMDIR"]
    headers = {file: _read_header(file) for file in files}
    series: dict[str, list[Path]] = {}
    for file, header in headers.items():
        series.setdefault(header.first(SERIES), []).append(file)
    if len(series) != 1:
        found = "; ".join(f"{counted(len(paths), 'file')} such as {paths[0].name}" for paths in series.values())
        found = f"found {len(series)} DICOM series ({found or 'no DICOM file'}), expected one"
        raise UserError(f"{path}: {found}; give a folder for each series")
    return headers


def _read_header(path: Path) -> Header:
    """raises: UserError for a file that is no DICOM image"""
    sitk = quiet_itk()
    with reading(path, "copy it again, or move what does not belong to the series elsewhere", as_what=" as DICOM"):
        of_frames = check_elements(path)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        tags = {name: [reader.GetMetaData(name).strip("\0 ")] for name in TAGS if reader.HasMetaDataKey(name)}
        tags = {name: texts for name, texts in (tags | of_frames).items() if any(texts)}
        return Header(tags, math.prod(reader.GetSize()[2:]))


def check_elements(path: Path) -> dict[str, list[str]]:
    """Walk over the elements of a DICOM file, those of sequences included, by their lengths.

    out: the values of GEOMETRY in OF_FRAMES, in their order, which the library does not give
    raises: ValueError for a length beyond the end of the file, and for a file that does not say how it is encoded
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 132 if file.read(132)[128:] == b"DICM" else 0
        explicit, order, syntax, in_pixels, within = at > 0, "<", "", False, (0, 0)
        found: dict[str, list[str]] = {}
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
            item = tag == (0xFFFE, 0xE000)
            enters = length == UNDEFINED or head[4:6] == b"SQ" or tag in SEQUENCES or (item and not in_pixels)
            if enters and not item:
                within = tag
            elif within in OF_FRAMES and (name := f"{tag[0]:04x}|{tag[1]:04x}") in GEOMETRY:
                file.seek(at + start)
                found.setdefault(name, []).append(file.read(min(length, 200)).strip(b"\0 ").decode("ascii"))
            at += start + (0 if enters else length)
    return found


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
