"""What the page shows of the cases: slices or images made small, with prediction and truth, in an album of its size.

D, H, W are the case's own size; a frame has at most `side` pixels on a side, and where the spacing is known its aspect
in mm. Pictures are JPEG. The label maps are
bytes, prediction before truth, deflated. Both are base64, as the page holds them.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from utils.distributed import gather
from utils.results.overlay import resize, sides, to_rgb

MARGIN = 2  # slices kept on both sides of a slice with anything in it
EMPTY_SHOWN = 8  # slices shown of a volume with nothing in it
VOLUME_SIDE = 256
VOLUME_QUALITY, IMAGE_QUALITY = 78, 82
OVERHEAD = 96  # bytes of a frame's JSON around its two texts
BUDGET = 24_000_000  # bytes of a page
IMAGE_SIDES = ((60_000, 384), (24_000, 256), (0, 192))  # (least bytes for a case, longer side of its picture)
AT_ONCE = 4  # a volume may take this many times its share of the page when it is added


@dataclass(frozen=True)
class Frame:
    """One slice, or one image.

    index: its number in the volume, from 0; wrong: pixels where prediction and truth differ, at the case's own size;
    size: stored height and width; picture, labels: base64
    """

    index: int
    wrong: int
    size: tuple[int, int]
    picture: str
    labels: str

    @property
    def num_bytes(self) -> int:
        """Bytes that the frame takes in the page."""
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


class Album:
    """The frames of every case added so far, in `cases`; several threads may add cases.

    budget: bytes that all cases together may take in the page
    """

    def __init__(self, *, budget: int = BUDGET) -> None:
        self.budget = budget
        self.share = float(budget)
        self.cases: list[CaseFrames] = []

    def expect(self, num_cases: int) -> None:
        """Tell the album how many cases will come: the more cases, the smaller their pictures."""
        self.share = self.budget / max(num_cases, 1)

    def add_volume(
        self,
        name: str,
        image: np.ndarray,
        prediction: np.ndarray,
        target: np.ndarray,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """in: (D, H, W) each; image floats in [0, 1], label maps; spacing (z, y, x)"""
        case = volume_frames(name, image, prediction, target, spacing)
        self.cases += fit([case], int(AT_ONCE * self.share))

    def add_image(self, name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> None:
        """in: image (H, W) or (H, W, 3), uint8 or floats in [0, 1]; label maps or masks (H, W)"""
        side = next(side for least, side in IMAGE_SIDES if self.share >= least)
        self.cases.append(image_frames(name, image, prediction, target, side))

    def gather(self, group: Any) -> None:
        """Take in the cases of all ranks. in: `utils.distributed.patient_group()`"""
        self.cases = [case for cases in gather([self.cases], group) for case in cases]


def thin(case: CaseFrames, most: int) -> CaseFrames:
    """Keep at most `most` frames: the one with most wrong pixels, and others spread evenly over the rest."""
    if len(case.frames) <= most:
        return case
    if most < 1:
        return replace(case, frames=())
    worst = max(range(len(case.frames)), key=lambda i: case.frames[i].wrong)
    rest = [i for i in range(len(case.frames)) if i != worst]
    chosen = np.linspace(0, len(rest) - 1, most - 1).round().astype(int)
    kept = sorted({worst, *(rest[i] for i in chosen)})
    return replace(case, frames=tuple(case.frames[i] for i in kept))


def fit(cases: Sequence[CaseFrames], budget: int) -> list[CaseFrames]:
    """Make the cases fit into `budget` bytes.

    Each case gets fewer slices. If even one slice each is too much, the last cases get none.
    """
    largest = max((len(case.frames) for case in cases), default=0)
    for most in range(largest, 0, -1):
        thinned = [thin(case, most) for case in cases]
        if sum(case.num_bytes for case in thinned) <= budget:
            return thinned
    kept = []
    for case in cases:
        one = thin(case, 1)
        budget -= one.num_bytes
        kept.append(one if budget >= 0 else thin(case, 0))
    return kept


def volume_frames(
    name: str,
    image: np.ndarray,
    prediction: np.ndarray,
    target: np.ndarray,
    spacing: Sequence[float] | None = None,
) -> CaseFrames:
    """Frames of every slice with anything in it, and of a few around; grey values stretched for the eye.

    in: (D, H, W) each, image float in [0, 1] or uint8, label maps of labels below 256; spacing (z, y, x)
    """
    used = ((prediction != 0) | (target != 0)).any(axis=(1, 2))
    kept = np.flatnonzero(np.convolve(used, np.ones(2 * MARGIN + 1, int), "full")[MARGIN : len(used) + MARGIN])
    if not len(kept):
        kept = np.unique(np.linspace(0, len(image) - 1, min(EMPTY_SHOWN, len(image))).round().astype(int))
    low, high = np.percentile(image[::4, ::4, ::4], (0.5, 99.5))
    scale = 255 / max(float(high - low), 1e-6)

    def frame(index: int) -> Frame:
        grey = (shrink(image[index].astype(np.float32), VOLUME_SIDE, spacing and spacing[1:]) - low) * scale
        grey = np.clip(grey, 0, 255).astype(np.uint8)
        return _frame(index, grey, prediction[index], target[index], VOLUME_QUALITY)

    return CaseFrames(name, len(image), image.shape[1:], tuple(frame(int(index)) for index in kept))


def image_frames(name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray, side: int) -> CaseFrames:
    """The one frame of an image. in: image (H, W) or (H, W, 3), float in [0, 1] or uint8; label maps (H, W)"""
    frame = _frame(0, shrink(to_rgb(image), side)[..., ::-1], prediction, target, IMAGE_QUALITY)
    return CaseFrames(name, 0, image.shape[:2], (frame,))


def shrink(picture: np.ndarray, side: int, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Make the longer side `side` by area averaging; a smaller picture of square pixels stays as it is.

    spacing: (y, x) of pixels that are to become square
    """
    height, width = sides(picture.shape, spacing)
    factor = min(1, side / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return picture if size == picture.shape[:2] else resize(picture, size, cv2.INTER_LINEAR)


def _frame(index: int, picture: np.ndarray, prediction: np.ndarray, target: np.ndarray, quality: int) -> Frame:
    """in: picture (h, w) or (h, w, BGR) as stored; label maps (H, W), which are made as small as the picture"""
    size = picture.shape[:2]
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, target.shape, strict=True))
    maps = np.stack([prediction, target])[:, rows[:, None], columns].astype(np.uint8)
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    wrong = int((prediction != target).sum())
    return Frame(index, wrong, size, _base64(jpeg), _base64(zlib.compress(maps.tobytes(), 9)))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
