"""Pictures of the cases of a test run, collected while they are evaluated, and kept to the size of the page."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utils.results.page.frames import CaseFrames, image_frames, volume_frames

BUDGET = 24_000_000  # bytes of a page
IMAGE_SIDES = ((60_000, 384), (24_000, 256), (0, 192))  # (least bytes for a case, longer side of its picture)
AT_ONCE = 4  # a volume may take this many times its share of the page when it is added


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

    def add_volume(self, name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> None:
        """in: (D, H, W) each; image floats in [0, 1], label maps"""
        case = volume_frames(name, image, prediction, target)
        self.cases += fit([case], int(AT_ONCE * self.share))

    def add_image(self, name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> None:
        """in: image (H, W) or (H, W, 3), uint8 or floats in [0, 1]; label maps or masks (H, W)"""
        side = next(side for least, side in IMAGE_SIDES if self.share >= least)
        self.cases.append(image_frames(name, image, prediction, target, side))


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
