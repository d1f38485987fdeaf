"""The cases of a test run, taken as they pass by and kept to a size."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utils.results.page.frames import CaseFrames, image_frames, volume_frames

BUDGET = 24_000_000  # bytes of a page
IMAGE_SIDES = ((60_000, 384), (24_000, 256), (0, 192))  # from so many bytes a case, the longer side of its picture
AT_ONCE = 4  # a volume is thinned at once where it takes so many times its share of the page


class Album:
    """Frames of every case added so far, in `cases`; cases may be added from several threads.

    num_classes: without the background; budget: bytes that all cases together may take in the page
    """

    def __init__(self, num_classes: int, budget: int = BUDGET) -> None:
        self.num_labels = num_classes + 1
        self.budget = budget
        self.share = float(budget)
        self.cases: list[CaseFrames] = []

    def expect(self, num_cases: int) -> None:
        """Say how many cases will come: the more, the smaller are their pictures."""
        self.share = self.budget / max(num_cases, 1)

    def add_volume(self, name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> None:
        """in: (D, H, W) each; image floats in [0, 1], label maps"""
        case = volume_frames(name, image, prediction, target, self.num_labels)
        self.cases += fit([case], int(AT_ONCE * self.share))

    def add_image(self, name: str, image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> None:
        """in: image (H, W) or (H, W, 3), uint8 or floats in [0, 1]; label maps or masks (H, W)"""
        side = next(side for least, side in IMAGE_SIDES if self.share >= least)
        self.cases.append(image_frames(name, image, prediction, target, self.num_labels, side))


def thin(case: CaseFrames, most: int) -> CaseFrames:
    """At most `most` frames: the one with most wrong pixels, the others evenly over the rest."""
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
    """The cases within `budget` bytes: fewer slices of each; then, if one each is too much, none of the last cases."""
    low, high = 0, max((len(case.frames) for case in cases), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(thin(case, middle).num_bytes for case in cases) <= budget:
            low = middle
        else:
            high = middle - 1
    if low:
        return [thin(case, low) for case in cases]
    kept = []
    for case in cases:
        one = thin(case, 1)
        budget -= one.num_bytes
        kept.append(one if budget >= 0 else thin(case, 0))
    return kept
