"""Read a picture's size from its header, before OpenCV takes the memory for it, and its EXIF orientation.

Formats: PNG (RFC 2083), JPEG (ITU T.81, annex B), BMP (DIB headers), TIFF 6.0 and BigTIFF, EXIF (a TIFF directory).
"""

import struct
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
WIDTH, HEIGHT, BITS, COLOURS, ORIENTATION, SAMPLES = 256, 257, 258, 262, 274, 277  # tags
NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of a tag's values
PALETTE = 3


def page_bytes(data: bytes) -> list[int]:
    """The bytes that each page takes once it is decoded, by the headers of an encoded picture.

    raises: ValueError for another format; struct.error, IndexError, KeyError for a header that is cut short
    """
    if data[:8] == PNG:
        list(_png_chunks(data))
        width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
        return [width * height * (1 if colour == 0 else 4) * max(depth, 8) // 8]
    if data[:2] == b"\xff\xd8":
        return [_jpeg_bytes(data)]
    if data[:2] == b"BM":
        old = struct.unpack_from("<I", data, 14)[0] == 12
        width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
        return [abs(width * height) * 4]
    if data[:4] in TIFF_STARTS:
        return list(_tiff_pages(data, TIFF_STARTS[data[:4]]))
    raise ValueError("neither PNG, JPEG, TIFF nor BMP")


def exif_orientation(data: bytes) -> int:
    """The EXIF orientation of an encoded JPEG or PNG, 1 to 8; 1, upright, where there is none that can be read."""
    try:
        if data[:2] == b"\xff\xd8":
            parts = (data[at + 4 :] for marker, at in _jpeg_segments(data) if marker == 0xE1)
            exif = next(part[6:] for part in parts if part[:4] == b"Exif")
        elif data[:8] != PNG:
            return 1
        else:
            exif = next(data[at:] for kind, at in _png_chunks(data) if kind == b"eXIf")
        found = next(_tiff_directories(exif, TIFF_STARTS[exif[:4]])).get(ORIENTATION, 1)
    except (ValueError, struct.error, IndexError, KeyError, StopIteration):
        return 1
    return found if 1 <= found <= 8 else 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The kind of each chunk and where its content begins.

    raises: ValueError for a chunk that is longer than the file: OpenCV takes the memory that it claims
    """
    at, kind = 8, b""
    while kind != b"IEND" and at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8
        at += 12 + length
        if at > len(data):
            raise ValueError(f"a PNG chunk of {length:,} bytes in a file of {len(data):,}")


def _jpeg_bytes(data: bytes) -> int:
    *_, (_, at) = _jpeg_segments(data)
    depth, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
    return width * height * max(channels, 1) * max(depth, 8) // 8


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment and where it is, up to the start of the frame (SOF)."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("a JPEG file without a frame")
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        else:
            yield marker, at
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                return
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _tiff_pages(data: bytes, order: str) -> Iterator[int]:
    for tags in _tiff_directories(data, order):
        samples = 3 if tags.get(COLOURS) == PALETTE else tags.get(SAMPLES, 1)
        yield tags[WIDTH] * tags[HEIGHT] * samples * max(tags.get(BITS, 1), 8) // 8


def _tiff_directories(data: bytes, order: str) -> Iterator[dict[int, int]]:
    """Follow the chain of directories, one a page: tag -> value, of those named above."""
    big = data[2:4] in (b"+\0", b"\0+")
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    number, start = struct.calcsize(order + count), struct.calcsize(order + entry)
    size = start + struct.calcsize(order + offset)
    at, seen = struct.unpack_from(order + offset, data, 8 if big else 4)[0], set()
    while at and at not in seen:
        seen.add(at)
        entries = struct.unpack_from(order + count, data, at)[0]
        most: dict[int, int] = {}  # of a tag that is there twice, the larger value
        for index in range(entries):
            place = at + number + index * size
            tag, kind, length = struct.unpack_from(order + entry, data, place)
            if tag in (WIDTH, HEIGHT, BITS, COLOURS, ORIENTATION, SAMPLES):
                form = order + NUMBERS[kind]
                if length * struct.calcsize(form) > size - start:
                    place = struct.unpack_from(order + offset, data, place + start)[0] - start
                most[tag] = max(most.get(tag, 0), struct.unpack_from(form, data, place + start)[0])
        yield most
        at = struct.unpack_from(order + offset, data, at + number + entries * size)[0]
