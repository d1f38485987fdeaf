"""Where the slices of DICOM files lie: what is no regular stack of them is refused, or said, or put in order."""

import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.files.image import read_image, save_mask
from utils.errors import UserError
from utils.inference.components import measure

N, GAP, PIXELS = 5, 7.5, (1.25, 1.5)
ARRAY = np.random.default_rng(0).integers(0, 1000, (N, 8, 10), dtype=np.uint16)
AXIAL, CORONAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1)
TILT = (1, 0, 0, 0, math.cos(math.radians(20)), math.sin(math.radians(20)))  # rows stay, columns lean back
MR, ENHANCED, CAPTURE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.7.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("utils.log.LOGGER.info", lambda form, line: lines.append(line))
    return lines


def element(group: int, number: int, kind: str, value: Any, explicit: bool = True) -> bytes:
    """The bytes of one element; numbers become a DS, of US a short."""
    if kind == "US":
        value = struct.pack("<H", value)
    elif not isinstance(value, bytes):
        value = (value if isinstance(value, str) else "\\".join(f"{one:.10g}" for one in value)).encode()
    value += (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    if not explicit:
        return struct.pack("<HHI", group, number, len(value)) + value
    length = struct.pack("<2xI", len(value)) if kind in ("OB", "OW", "SQ") else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + kind.encode() + length + value


def write_dicom(
    path: Path,
    array: np.ndarray,
    position: Any = None,
    axes: Any = None,
    pixels: Any = PIXELS,
    number: int = 1,
    kind: str = MR,
    syntax: str = EXPLICIT,
    more: Any = (),
) -> None:
    """One file of the pixels (H, W) or (frames, H, W); `more` are (group, number, kind, value) of elements."""
    start = b"".join(
        element(2, at, *value)
        for at, value in ((1, ("OB", b"\0\1")), (2, ("UI", kind)), (3, ("UI", f"1.2.{number}")), (16, ("UI", syntax)))
    )
    tags = [
        *((0x08, 0x16, "UI", kind), (0x08, 0x18, "UI", f"1.2.{number}"), (0x08, 0x60, "CS", "MR")),
        *((0x20, 0x0D, "UI", "1.2"), (0x20, 0x0E, "UI", "1.2.3"), (0x20, 0x13, "IS", str(number))),
        *((0x28, 0x02, "US", 1), (0x28, 0x04, "CS", "MONOCHROME2")),
        *((0x28, 0x10, "US", array.shape[-2]), (0x28, 0x11, "US", array.shape[-1])),
        *((0x28, 0x100, "US", 16), (0x28, 0x101, "US", 16), (0x28, 0x102, "US", 15), (0x28, 0x103, "US", 0)),
        *more,
    ]
    known = ((0x20, 0x32, position), (0x20, 0x37, axes), (0x28, 0x30, pixels))
    tags += [(group, at, "DS", value) for group, at, value in known if value is not None]
    if array.ndim == 3:
        tags.append((0x28, 0x08, "IS", str(len(array))))
    tags = [*sorted({tag[:2]: tag for tag in tags}.values()), (0x7FE0, 0x10, "OW", array.tobytes())]
    body = b"".join(element(*tag, explicit=syntax == EXPLICIT) for tag in tags)
    length = element(2, 0, "UL", struct.pack("<I", len(start)))
    path.write_bytes(bytes(128) + b"DICM" + length + start + body)


def write_series(folder: Path, start: int = 0, **fields: Any) -> Path:
    """N axial slices GAP mm apart; a field may be a function of the slice's index."""
    folder.mkdir(exist_ok=True)
    for k in range(N):
        chosen = {"position": (-20, 30, GAP * k), "axes": AXIAL, "number": start + k + 1} | fields
        chosen = {name: value(k) if callable(value) else value for name, value in chosen.items()}
        write_dicom(folder / f"{start + k:03}.dcm", ARRAY[k], **chosen)
    return folder


def write_frames(path: Path, order: Any, syntax: str = EXPLICIT, **fields: Any) -> Path:
    """An enhanced MR file whose frames are the slices of ARRAY in this order; `fields` of index: position, axes."""

    def sequence(group: int, number: int, *items: bytes) -> tuple[int, int, str, bytes]:
        return group, number, "SQ", b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(one)) + one for one in items)

    def one(*tag: Any) -> bytes:
        return element(*tag, explicit=syntax == EXPLICIT)

    def plane(k: int) -> bytes:
        position = fields.get("position", lambda k: (-20, 30, GAP * k))(k)
        place = one(*sequence(0x20, 0x9113, one(0x20, 0x32, "DS", position)))
        return place + one(*sequence(0x20, 0x9116, one(0x20, 0x37, "DS", fields.get("axes", lambda k: AXIAL)(k))))

    measures = one(*sequence(0x28, 0x9110, one(0x18, 0x88, "DS", [GAP]) + one(0x28, 0x30, "DS", PIXELS)))
    groups = sequence(0x5200, 0x9229, measures), sequence(0x5200, 0x9230, *(plane(k) for k in order))
    write_dicom(path, ARRAY[list(order)], None, None, None, kind=ENHANCED, syntax=syntax, more=groups)
    return path


def check_regular(image: Any) -> None:
    assert image.spacing == pytest.approx((GAP, *PIXELS))
    assert image.meta["origin"] == pytest.approx((-20, 30, 0))
    assert image.meta["direction"] == pytest.approx(np.eye(3).ravel())
    assert np.array_equal(image.array, ARRAY)


def check_without_geometry(path: Path, said: list[str], missing: str) -> None:
    image = read_image(path)
    assert image.array.shape == ARRAY.shape
    assert (image.kind, image.spacing) == ("volume", None)
    assert len(said) == 1
    assert missing in said[0]
    assert [row["volume_ml"] for row in measure(image.array > 500, image.spacing, ["organ"])] == [""]
    mask = save_mask(path.with_name("mask"), image.array > 500, image)
    assert np.array_equal(np.load(mask), image.array > 500)


def test_a_regular_series_and_the_same_as_frames(tmp_path, said):
    check_regular(read_image(write_series(tmp_path / "s")))
    for syntax in (EXPLICIT, IMPLICIT):
        check_regular(read_image(write_frames(tmp_path / "a.dcm", range(N), syntax)))
    assert said == []


def test_rounded_cosines_and_pixels_of_another_rounding_are_one_series(tmp_path, said):
    axes = lambda k: (0.99999, 0.0004 * (k % 2), 0, 0, 1, 0)  # noqa: E731
    image = read_image(write_series(tmp_path / "s", axes=axes, pixels=lambda k: (1.25, 1.5 + 0.0004 * (k % 2))))
    assert image.spacing == pytest.approx((GAP, *PIXELS))
    assert said == []


@pytest.mark.parametrize("tilted", ["tilted planes, steps along z", "axial planes, steps aside"])
def test_a_tilted_gantry_is_said_and_the_gap_is_that_along_the_normal(tmp_path, said, tilted):
    if tilted.startswith("tilted"):
        fields = {"axes": TILT}
        gap, aside = GAP * math.cos(math.radians(20)), 4 * GAP * math.sin(math.radians(20))
    else:
        fields = {"position": lambda k: (-20, 30 + 3 * k, GAP * k)}
        gap, aside = GAP, 12
    image = read_image(write_series(tmp_path / "s", **fields))
    assert image.spacing == pytest.approx((gap, *PIXELS))
    assert len(said) == 1
    assert f"up to {aside:.3g} mm" in said[0]
    of_frames = {name: value if callable(value) else lambda k: TILT for name, value in fields.items()}
    image = read_image(write_frames(tmp_path / "a.dcm", range(N), **of_frames))
    assert image.spacing == pytest.approx((gap, *PIXELS))
    assert len(said) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"axes": lambda k: AXIAL if k < 3 else CORONAL}, "ImageOrientationPatient"),
        ({"axes": lambda k: AXIAL if k < 3 else None}, "ImageOrientationPatient"),
        ({"pixels": lambda k: PIXELS if k < 3 else (0.8, 0.8)}, "PixelSpacing"),
        ({"position": lambda k: (-20, 30, GAP * k) if k < 3 else None}, "ImagePositionPatient"),
    ],
)
def test_slices_that_do_not_belong_together_are_refused(tmp_path, fields, words):
    with pytest.raises(UserError, match=rf"found {words} .* of 000\.dcm and .* of 003\.dcm, expected .*; export"):
        read_image(write_series(tmp_path / "s", **fields))


def test_frames_that_are_not_parallel_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"ImageOrientationPatient .* of frame 1 and .* of frame 4, expected"):
        read_image(write_frames(tmp_path / "a.dcm", range(N), axes=lambda k: AXIAL if k < 3 else CORONAL))


def test_several_images_at_one_place_are_refused_by_name(tmp_path):
    folder = write_series(tmp_path / "s")
    shutil.copy(folder / "002.dcm", folder / "copy.dcm")
    with pytest.raises(UserError, match=r"found 1 slice where another lies \(002\.dcm and copy\.dcm\), expected one"):
        read_image(folder)
    (folder / "copy.dcm").unlink()
    write_series(folder, start=100)
    with pytest.raises(UserError, match=r"found 5 slices where another lies \(000\.dcm and 100\.dcm, 001\.dcm and"):
        read_image(folder)
    with pytest.raises(UserError, match=r"found 5 slices where another lies \(frame 1 and frame 6, "):
        read_image(write_frames(tmp_path / "a.dcm", [*range(N), *range(N)]))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_frames_are_sorted_by_position(tmp_path, said, syntax):
    check_regular(read_image(write_frames(tmp_path / "a.dcm", [2, 0, 4, 1, 3], syntax)))
    image = read_image(write_frames(tmp_path / "a.dcm", range(N)[::-1]))  # stays as stored: its slices grow downwards
    assert np.array_equal(image.array, ARRAY[::-1])
    assert image.meta["origin"] == pytest.approx((-20, 30, GAP * (N - 1)))
    assert image.meta["direction"] == pytest.approx(np.diag([1, 1, -1]).ravel())
    assert image.spacing == pytest.approx((GAP, *PIXELS))
    assert said == []


def test_missing_frames_are_said(tmp_path, said):
    read_image(write_frames(tmp_path / "a.dcm", [0, 1, 3, 4]))
    assert "slices lie 7.5 to 15 mm apart" in said[0]


def test_several_files_of_frames_are_refused(tmp_path):
    write_frames(write_series(tmp_path / "s") / "frames.dcm", range(N))
    with pytest.raises(UserError, match=r"found 6 files of 10 frames, expected one file of frames"):
        read_image(tmp_path / "s")


@pytest.mark.parametrize("field", ["position", "axes", "pixels"])
def test_a_series_without_geometry_has_no_spacing(tmp_path, said, field):
    folder = write_series(tmp_path / "s", **{field: None})
    names = {"position": "ImagePositionPatient", "axes": "ImageOrientationPatient", "pixels": "PixelSpacing"}
    check_without_geometry(folder, said, names[field])
    assert np.array_equal(read_image(folder).array, ARRAY)
    assert read_image(folder).orientation == ("SPL" if field == "pixels" else "")


def test_frames_without_geometry_have_no_spacing(tmp_path, said):
    write_dicom(tmp_path / "a.dcm", ARRAY, kind=CAPTURE)
    check_without_geometry(tmp_path / "a.dcm", said, "ImagePositionPatient")


def test_frames_with_one_position_need_their_distance(tmp_path, said):
    write_dicom(tmp_path / "a.dcm", ARRAY, (-20, 30, 0), AXIAL, more=[(0x18, 0x88, "DS", [GAP])])
    check_regular(read_image(tmp_path / "a.dcm"))
    assert said == []
    write_dicom(tmp_path / "a.dcm", ARRAY, (-20, 30, 0), AXIAL)
    check_without_geometry(tmp_path / "a.dcm", said, "ImagePositionPatient for each slice")


def test_the_depth_of_a_single_slice_is_its_thickness(tmp_path, said):
    for more, value, depth in (((0x18, 0x50), 5.0, 5.0), ((0x18, 0x88), 7.5, 7.5), ((0x18, 0x88), -7.5, 7.5)):
        write_dicom(tmp_path / "a.dcm", ARRAY[0], (-20, 30, 0), AXIAL, more=[(*more, "DS", [value])])
        assert read_image(tmp_path / "a.dcm").spacing == (depth, *PIXELS)
    assert said == []
    write_dicom(tmp_path / "a.dcm", ARRAY[0], (-20, 30, 0), AXIAL)
    assert read_image(tmp_path / "a.dcm").spacing is None
    assert "SliceThickness" in said[0]


def test_one_image_without_a_place_is_a_picture(tmp_path, said):
    """As X-rays and ultrasound images are."""
    for pixels in (None, PIXELS):
        write_dicom(tmp_path / "a.dcm", ARRAY[0], pixels=pixels)
        image = read_image(tmp_path / "a.dcm")
        assert (image.kind, image.spacing, said) == ("picture", pixels, [])
        assert np.array_equal(image.array, ARRAY[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"axes": (1, 0, 0, 0.1, 0.995, 0)}, r"ImageOrientationPatient .* right angle"),
        ({"axes": (0, 0, 0, 0, 0, 0)}, r"ImageOrientationPatient .* right angle"),
        ({"axes": (1, 0, 0, 0, 1)}, r"ImageOrientationPatient .*expected 6 numbers"),
        ({"position": (1, 2, math.nan)}, r"ImagePositionPatient .*expected 3 numbers"),
        ({"pixels": (1.5,)}, r"PixelSpacing .*expected 2 numbers"),
    ],
)
def test_a_geometry_that_makes_no_sense_is_refused(tmp_path, fields, words):
    with pytest.raises(UserError, match=rf"000\.dcm: .*{words}"):
        read_image(write_series(tmp_path / "s", **fields))


def test_a_colour_picture_has_its_pixel_spacing_or_none(tmp_path, said):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    colours = [(0x28, 0x02, "US", 3), (0x28, 0x04, "CS", "RGB"), (0x28, 0x06, "US", 0), (0x28, 0x11, "US", 9)]
    colours += [(0x28, 0x100, "US", 8), (0x28, 0x101, "US", 8), (0x28, 0x102, "US", 7)]
    for pixels in (None, PIXELS):
        write_dicom(tmp_path / "a.dcm", picture.reshape(6, 27), pixels=pixels, more=colours, kind=CAPTURE)
        image = read_image(tmp_path / "a.dcm")
        assert np.array_equal(image.array, picture)
        assert (image.kind, image.spacing, said) == ("picture", pixels, [])
