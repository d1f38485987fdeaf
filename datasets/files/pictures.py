"""Pictures and picture masks: decoding, the scaling to eight bits, the threshold.

Shapes: pictures are (H, W, 3) RGB or (H, W) grey, masks (H, W) bool. Files are read as bytes and
decoded by OpenCV, so that any file name works on any system; the EXIF orientation is never
applied where a mask stands beside the image, because it does not carry the one of its image.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from datasets.files.headers import exif_orientation, page_bytes
from utils.errors import UserError
from utils.files import check_bytes, reading
from utils.log import log_once

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")


@contextlib.contextmanager
def silent_opencv() -> Iterator[None]:
    """Switch off what OpenCV itself prints of broken files; it would repeat the errors of the readers."""
    level = cv2.utils.logging.setLogLevel(0)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def read_picture(path: Path) -> np.ndarray:
    """The picture as stored, without its alpha channel: (H, W) or (H, W, 3) RGB, native type.

    raises: UserError for a file that is missing, empty, cut short, larger than allowed, of several pages or no picture
    """
    return _rgb(_only_page(path))


def read_mask_picture(path: Path) -> np.ndarray:
    """As `read_picture`, for a mask. raises: UserError, too, for one with a shape in its alpha channel alone"""
    page = _only_page(path)
    picture = _rgb(page)
    has_alpha = page.ndim == 3 and page.shape[2] in (2, 4)
    if has_alpha and np.ptp(page[..., -1]) and (picture == picture[0, 0]).all():
        found = "found the shape in the alpha channel alone, which is not read, expected it in grey values or colours"
        raise UserError(f"{path}: {found}; export the mask on a background, without transparency")
    return picture


def orientation_of(path: Path) -> int:
    """The EXIF orientation, 1 to 8, that `upright` turns by, read without decoding; 1 for none and for TIFF.

    OpenCV always turns a TIFF file.
    """
    with reading(path, "copy or download the file again"):
        return exif_orientation(path.read_bytes())


def _only_page(path: Path) -> np.ndarray:
    pages = _decode(path, upright=False)
    if len(pages) > 1:
        raise UserError(f"{path}: found {len(pages)} pages, expected one picture; store a volume as NIfTI")
    return pages[0]


def read_pages(path: Path, upright: bool = False) -> list[np.ndarray]:
    """As `read_picture`, every page of a TIFF file.

    upright: turn the picture by its EXIF orientation
    raises: UserError for a file that is missing, empty, cut short, larger than allowed or no picture
    """
    return [_rgb(page) for page in _decode(path, upright)]


def _decode(path: Path, upright: bool) -> list[np.ndarray]:
    """The pages as OpenCV gives them: (H, W) or (H, W, C), BGR, alpha last unless `upright`."""
    # IMREAD_UNCHANGED keeps OpenCV from turning the picture by its EXIF orientation
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if upright else cv2.IMREAD_UNCHANGED
    with reading(path, "copy or download the file again"):
        check_bytes(path, path.stat().st_size)
        data = path.read_bytes()
        if not data:
            raise UserError(f"{path}: found an empty file, expected a whole picture; copy or download the file again")
        sizes = page_bytes(data)
        check_bytes(path, sum(sizes))
        buffer = np.frombuffer(data, np.uint8)
        pages = cv2.imdecodemulti(buffer, flags)[1] if len(sizes) > 1 else [cv2.imdecode(buffer, flags)]
    if len(pages) != max(1, len(sizes)) or pages[0] is None:
        found = f"{len(data)} bytes that do not decode"
        raise UserError(f"{path}: found {found}, expected a whole picture; copy or download the file again")
    return pages


def _rgb(picture: np.ndarray) -> np.ndarray:
    """What OpenCV decoded, without alpha and as RGB."""
    if picture.ndim == 2:
        return picture
    if picture.shape[2] <= 2:  # grey, or grey and alpha
        return np.ascontiguousarray(picture[..., 0])
    return np.ascontiguousarray(picture[..., 2::-1])  # BGR(A) -> RGB


def type_range(array: np.ndarray, path: Path) -> float:
    """The value that stands for white: the maximum of an unsigned integer type, 1 for bool and floats."""
    if array.dtype.kind == "u":
        return float(np.iinfo(array.dtype).max)
    if array.dtype.kind == "b" or (array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1):
        return 1.0
    found = f"found {array.dtype} values from {array.min()} to {array.max()}, expected unsigned integers or fractions"
    remedy = "for images give --intensity to train.py (ct for HU, else percentile), or save unsigned 8 or 16 bits"
    raise UserError(f"{path}: {found} in [0, 1]; {remedy}")


def to_rgb8(picture: np.ndarray, path: Path) -> np.ndarray:
    """Scale by the range of the type to 0..255 and repeat grey: (H, W[, 3]) -> uint8 (H, W, 3)."""
    white = type_range(picture, path)
    if picture.dtype != np.uint8:
        picture = np.rint(picture.astype(np.float64) * (255 / white)).astype(np.uint8)
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def to_mask(picture: np.ndarray, path: Path) -> np.ndarray:
    """True above half the range of the type (> 127 of 255) in any channel: (H, W[, 3]) -> bool (H, W).

    The threshold is not 0, because published masks hold grey 5 to 15 in their background. A mask of integers whose
    largest value is 1 is read as 0 and 1, and the log says so once. In JPEG, 1 is noise.
    """
    grey = picture if picture.ndim == 2 else picture.max(axis=2)
    if is_zero_one(grey, path):
        log_once("masks whose largest value is 1 are read as 0 and 1 (not as shades of 255)")
        return grey > 0
    return grey > type_range(grey, path) / 2


def is_lossy(path: Path) -> bool:
    """Whether a file is a JPEG, whose decoders differ by a grey level."""
    return path.suffix.lower() in (".jpg", ".jpeg")


def is_zero_one(mask: np.ndarray, path: Path) -> bool:
    """Whether an integer mask stores its foreground as 1."""
    return mask.dtype.kind == "u" and not is_lossy(path) and int(mask.max()) == 1
