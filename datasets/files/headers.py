"""Read a picture's size from its header, before OpenCV takes the memory for it.

Formats: PNG (RFC 2083), JPEG (ITU T.81, annex B), BMP (DIB headers), TIFF 6.0 and BigTIFF.
"""

import struct
from collections.abc import Iterator

TIFF_STARTS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
WIDTH, HEIGHT, BITS, COLOURS, SAMPLES = 256, 257, 258, 262, 277  # tags
NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of a tag's values
PALETTE = 3


def page_bytes(data: bytes) -> list[int]:
    """The bytes that each page takes once it is decoded, by the headers of an encoded picture.

    raises: ValueError for another format; struct.error, IndexError, KeyError for a header that is cut short
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        _check_png_chunks(data)
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


def _check_png_chunks(data: bytes) -> None:
    """OpenCV takes the memory that a chunk claims. raises: ValueError for a chunk that is longer than the file"""
    at, kind = 8, b""
    while kind != b"IEND" and at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data):
            raise ValueError(f"a PNG chunk of {length:,} bytes in a file of {len(data):,}")


def _jpeg_bytes(data: bytes) -> int:
    """Walk over the segments to the start of the frame (SOF)."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("a JPEG file without a frame")
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            depth, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return width * height * max(channels, 1) * max(depth, 8) // 8
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _tiff_pages(data: bytes, order: str) -> Iterator[int]:
    """Follow the chain of directories, one a page."""
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
            if tag in (WIDTH, HEIGHT, BITS, COLOURS, SAMPLES):
                form = order + NUMBERS[kind]
                if length * struct.calcsize(form) > size - start:
                    place = struct.unpack_from(order + offset, data, place + start)[0] - start
                most[tag] = max(most.get(tag, 0), struct.unpack_from(form, data, place + start)[0])
        samples = 3 if most.get(COLOURS) == PALETTE else most.get(SAMPLES, 1)
        yield most[WIDTH] * most[HEIGHT] * samples * max(most.get(BITS, 1), 8) // 8
        at = struct.unpack_from(order + offset, data, at + number + entries * size)[0]
