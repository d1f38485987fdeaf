"""What the page shows of a case: its slices (or its one image) made small, with prediction and truth.

D, H, W are a case's own size; a frame is at most `side` pixels on a side. Pictures are JPEG; the two label maps
are one map of `prediction * num_labels + truth`, as runs. Both are base64, as the page holds them.
"""

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from utils.page.runs import encode_runs
from utils.visualize import to_rgb

MARGIN = 2  # slices kept around every slice with anything in it
EMPTY_SHOWN = 8  # slices of a volume with nothing in any of them
VOLUME_SIDE = 256
VOLUME_QUALITY, IMAGE_QUALITY = 78, 82
OVERHEAD = 96  # bytes of a frame's JSON around its two texts


@dataclass(frozen=True)
class Frame:
    """One slice, or one image.

    index: its number in the volume; wrong: pixels where prediction and truth differ, at the case's own size;
    size: stored height and width; picture, labels: base64
    """

    index: int
    wrong: int
    size: tuple[int, int]
    picture: str
    labels: str

    @property
    def num_bytes(self) -> int:
        """What it takes in the page."""
        return len(self.picture) + len(self.labels) + OVERHEAD


@dataclass(frozen=True)
class CaseFrames:
    """The frames of one case, in order. depth: slices of the volume, 0 for an image; shape: own height and width."""

    name: str
    depth: int
    shape: tuple[int, int]
    frames: tuple[Frame, ...]

    @property
    def num_bytes(self) -> int:
        return sum(frame.num_bytes for frame in self.frames)


def volume_frames(
    name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray, num_labels: int, side: int = VOLUME_SIDE
) -> CaseFrames:
    """Frames of every slice with anything in it, and a few around; grey values stretched for the eye.

    in: (D, H, W) each, image float in [0, 1] or uint8, label maps below num_labels
    """
    used = ((prediction != 0) | (target != 0)).any(axis=(1, 2))
    kept = np.flatnonzero(np.convolve(used, np.ones(2 * MARGIN + 1, int), "full")[MARGIN : len(used) + MARGIN])
    if not len(kept):
        kept = np.unique(np.linspace(0, len(image) - 1, min(EMPTY_SHOWN, len(image))).round().astype(int))
    low, high = np.percentile(image[::4, ::4, ::4], (0.5, 99.5))
    scale = 255 / max(float(high - low), 1e-6)
    frames = []
    for index in kept:
        grey = np.clip((image[index].astype(np.float32) - low) * scale, 0, 255).astype(np.uint8)
        frames.append(_frame(int(index), grey, prediction[index], target[index], num_labels, side, VOLUME_QUALITY))
    return CaseFrames(name, len(image), image.shape[1:], tuple(frames))


def image_frames(
    name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray, num_labels: int, side: int
) -> CaseFrames:
    """The one frame of an image. in: image (H, W) or (H, W, 3), float in [0, 1] or uint8; label maps (H, W)"""
    frame = _frame(0, to_rgb(image), prediction, target, num_labels, side, IMAGE_QUALITY)
    return CaseFrames(name, 0, image.shape[:2], (frame,))


def _frame(
    index: int,
    picture: np.ndarray,
    prediction: np.ndarray,
    target: np.ndarray,
    num_labels: int,
    side: int,
    quality: int,
) -> Frame:
    own = picture.shape[:2]
    factor = min(1.0, side / max(own))
    size = tuple(max(1, round(n * factor)) for n in own)
    joint = prediction.astype(np.int64) * num_labels + target
    if size != own:
        picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, own))
        joint = joint[rows[:, None], columns]
    if picture.ndim == 3:
        picture = np.ascontiguousarray(picture[..., ::-1])
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    wrong = int((prediction != target).sum())
    return Frame(index, wrong, size, _base64(jpeg), _base64(encode_runs(joint)))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
