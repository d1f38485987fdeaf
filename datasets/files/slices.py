"""Where the slices of DICOM files lie: whether they are one stack of parallel slices, in which order, how far apart.

A slice is a file, or a frame of a file. Positions are in mm, x first, as in DICOM (PS3.3, C.7.6.2).
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from datasets.files.dicom import AXES, BETWEEN, NUMBER, PIXELS, POSITION, THICKNESS, Header
from utils.errors import UserError, counted, join_listed
from utils.files import reading
from utils.log import log_once

UNEVEN = 0.01  # slices of a series may lie this far from even spacing, as a share of it (positions are rounded)
# Cosines, and pixel spacings as a share, may differ by this within a series: files round them, and over 512 pixels it
# is half of one. Slices less than this apart, in mm, lie at one place.
ALIKE = 1e-3
ASIDE = 0.5  # slices may lie this far beside the normal through the first one, in pixels
FIELDS = {POSITION: ("ImagePositionPatient", 3), AXES: ("ImageOrientationPatient", 6), PIXELS: ("PixelSpacing", 2)}


@dataclass(frozen=True)
class Slice:
    """file, frame (0 where it is the only one), name (what messages call it), InstanceNumber, and FIELDS by tag."""

    file: Path
    frame: int
    name: str
    number: float
    fields: dict[str, np.ndarray | None]


@dataclass(frozen=True)
class Stack:
    """Slices in the order in which they lie; what is not known of their geometry is None.

    spacing: mm (z, y, x); pixels: mm (y, x); normal: unit vector in which the slices grow
    missing: names of the fields without which the spacing is not known
    """

    slices: list[Slice]
    spacing: tuple[float, ...] | None
    pixels: tuple[float, ...] | None
    normal: np.ndarray | None
    missing: list[str]


def stack_slices(path: Path, headers: dict[Path, Header]) -> Stack:
    """The slices of one series, which are all files of `headers`, or the frames of one; messages name `path`.

    Warns of missing slices, and of slices that shift, as with a tilted gantry.
    raises: UserError for slices that are not parallel or not of one pixel spacing, and for several at one place
    """
    slices = [one for file, header in headers.items() for one in _slices(file, header)]
    if 1 < len(headers) < len(slices):
        found = f"found {len(headers)} files of {len(slices)} frames"
        raise UserError(f"{path}: {found}, expected one file of frames, or files of one slice; give them one by one")
    for tag in FIELDS:
        _check_alike(path, tag, slices)
    position, axes, pixels = slices[0].fields.values()
    missing = [FIELDS[tag][0] for tag, value in slices[0].fields.items() if value is None]
    normal, depth = None, 0.0
    if position is None or axes is None:
        slices.sort(key=lambda one: one.number)
    else:
        normal = _unit(np.cross(axes[:3], axes[3:]))
        if len(headers) == 1 and (slices[-1].fields[POSITION] - position) @ normal < 0:
            normal = -normal  # frames that are stored downwards stay so
        slices.sort(key=lambda one: (one.fields[POSITION] @ normal, one.number))
        depth = _distance(path, slices, normal) if len(slices) > 1 else _thickness(*headers.items())
        missing += [] if depth else ["SliceThickness"]
    pair = None if pixels is None else tuple(pixels.tolist())
    return Stack(slices, None if missing else (depth, *pair), pair, normal, missing)


def _slices(file: Path, header: Header) -> list[Slice]:
    """One slice, or those of all frames. raises: UserError for fields that make no sense"""
    with reading(file, "export it again", as_what=" as DICOM"):
        fields = {tag: _numbers(header, tag) for tag in FIELDS}
        for axes in fields[AXES]:
            if axes is not None and abs(_unit(axes[:3]) @ _unit(axes[3:])) > ALIKE:
                found = f"{FIELDS[AXES][0]} is {_text(axes)}"
                raise ValueError(f"{found}, expected rows and columns at a right angle")
        number = float(header.first(NUMBER) or 0)
        return [
            Slice(file, k, f"frame {k + 1}" if header.frames > 1 else file.name, number, dict(zip(FIELDS, values)))
            for k, values in enumerate(zip(*fields.values(), strict=True))
        ]


def _numbers(header: Header, tag: str) -> list[np.ndarray | None]:
    """A field of every frame; of a single position those that follow it at SpacingBetweenSlices."""
    word, count = FIELDS[tag]
    values: list[np.ndarray | None] = []
    for text in header.tags.get(tag, []):
        values.append(np.array(text.split("\\"), float))
        if len(values[-1]) != count or not np.isfinite(values[-1]).all():
            raise ValueError(f"{word} is {text}, expected {count} numbers")
    if len(values) == header.frames:
        return values
    if len(values) != 1:
        return [None] * header.frames
    if tag != POSITION:
        return values * header.frames
    gap, (axes, *_) = float(header.first(BETWEEN) or 0), _numbers(header, AXES)
    if not gap or axes is None:
        return [None] * header.frames
    return [values[0] + k * gap * _unit(np.cross(axes[:3], axes[3:])) for k in range(header.frames)]


def _thickness(item: tuple[Path, Header]) -> float:
    """How far a single slice reaches along its normal in mm; 0 where that is not known."""
    with reading(item[0], "export it again", as_what=" as DICOM"):
        return abs(float(item[1].first(BETWEEN) or item[1].first(THICKNESS) or 0))  # of NM files it may be negative


def _check_alike(path: Path, tag: str, slices: list[Slice]) -> None:
    """raises: UserError where slices differ in a field; positions only in having one"""
    first, word = slices[0].fields[tag], FIELDS[tag][0]
    for one in slices[1:]:
        value = one.fields[tag]
        same = (value is None) == (first is None)
        if same and value is not None and tag != POSITION:
            same = np.abs(value - first).max() <= ALIKE * np.abs(first).max()
        if not same:
            found = f"{word} {_text(first)} of {slices[0].name} and {_text(value)} of {one.name}"
            remedy = "export each stack of parallel slices as a series of its own"
            raise UserError(f"{path}: found {found}, expected one for all slices; {remedy}")


def _distance(path: Path, slices: list[Slice], normal: np.ndarray) -> float:
    """Mean distance along the normal of sorted slices in mm. raises: UserError for slices at one place"""
    steps = np.array([one.fields[POSITION] - slices[0].fields[POSITION] for one in slices])
    places = steps @ normal
    gaps = np.diff(places)
    if twice := [f"{a.name} and {b.name}" for (a, b), gap in zip(pairwise(slices), gaps) if gap < ALIKE]:
        found = f"found {counted(len(twice), 'slice')} where another lies ({join_listed(twice, 5, ', ')})"
        remedy = "remove copies; export each phase, echo or b-value as a series of its own"
        raise UserError(f"{path}: {found}, expected one at each place; {remedy}")
    if gaps.max() - gaps.min() > UNEVEN * gaps.min():
        found = f"slices lie {gaps.min():g} to {gaps.max():g} mm apart (some missing, or twice?)"
        log_once(f"warning: {path}: {found}; the volume is read as if evenly spaced")
    aside = np.linalg.norm(steps - np.outer(places, normal), axis=1).max()
    pixels = slices[0].fields[PIXELS]
    if pixels is not None and aside > ASIDE * pixels.min():
        found = f"slices lie up to {aside:.3g} mm beside the normal through the first one (a tilted gantry?)"
        text = "the mask fits them slice by slice, and volumes are right, but in space it lies off by as much"
        log_once(f"warning: {path}: {found}; {text}")
    return float(places[-1]) / (len(slices) - 1)


def _unit(vector: np.ndarray) -> np.ndarray:
    """The vector of length 1. raises: ValueError for one without a length"""
    length = np.linalg.norm(vector)
    if not length:
        raise ValueError("ImageOrientationPatient holds zeros, expected rows and columns at a right angle")
    return vector / length


def _text(values: np.ndarray | None) -> str:
    return "none" if values is None else "\\".join(f"{value:g}" for value in values)
