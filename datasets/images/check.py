"""The check before a run: read every image and mask once, count, and name all that is wrong."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from datasets.files.pictures import LOSSY_SUFFIXES, is_zero_one, read_picture, to_mask, to_rgb8
from datasets.images.pairs import Pair, check_sizes
from datasets.summary import DataSummary
from utils.errors import UserError

EMPTY = "masks without foreground"
FAINT = "masks with grey values, but none above half the range: read as empty"
SHADES = "masks of more than two values, cut at half the range"
ZERO_ONE = "masks stored as 0 and 1"
MIXED = "masks stored as 0 and 1 beside others of a full range; make them alike"
DEEP = "images of 16 bits, scaled by the whole range of the type"


class Facts(NamedTuple):
    """What was found in one pair: (height, width), mask values seen, notes."""

    size: tuple[int, int]
    classes: set[int]
    notes: set[str]


def check_pairs(pairs: Sequence[Pair], num_threads: int = 8) -> DataSummary:
    """Read every file of `pairs` and count what is in them.

    Masks that are empty or not binary are counted in the notes. Raises one UserError listing every
    file that cannot be read and every mask of another size than its image, or when no mask at all
    has foreground.
    """
    level = cv2.utils.logging.setLogLevel(0)  # what OpenCV would print of a broken file is said below, once
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            found = list(pool.map(_inspect, pairs))
    finally:
        cv2.utils.logging.setLogLevel(level)
    problems = [problem for item in found if isinstance(item, list) for problem in item]
    if problems:
        raise UserError(f"{len(problems)} problems in {len(pairs)} pairs:\n  " + "\n  ".join(problems))
    classes = Counter(value for facts in found for value in facts.classes)
    if pairs and not classes[1]:
        raise UserError(
            f"{pairs[0].mask.parent}: no mask has a value above half the range of its type (127 of 255); "
            "expected foreground in 255, or in 1 of masks of 0 and 1"
        )
    return DataSummary(
        num_cases=len(pairs),
        num_images=len(pairs),
        sizes=dict(Counter(facts.size for facts in found)),
        classes=dict(classes),
        notes=tuple(_notes(pairs, found)),
    )


def _inspect(pair: Pair) -> Facts | list[str]:
    """The facts of one pair, or what is wrong with it."""
    pictures, problems = [], []
    for path, convert in ((pair.image, to_rgb8), (pair.mask, to_mask)):
        try:
            stored = read_picture(path)
            pictures.append((stored, convert(stored, path)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        return problems
    (stored_image, _), (stored_mask, mask) = pictures
    try:
        check_sizes(pair, stored_image, stored_mask)
    except UserError as error:
        return [str(error)]
    return Facts(mask.shape, {int(value) for value in np.unique(mask)}, _unusual(pair, stored_image, stored_mask, mask))


def _unusual(pair: Pair, image: np.ndarray, stored: np.ndarray, mask: np.ndarray) -> set[str]:
    notes = {DEEP} if image.dtype == np.uint16 else set()
    if not mask.any():
        notes |= {EMPTY, FAINT} if stored.any() else {EMPTY}
    if is_zero_one(stored, pair.mask):
        notes.add(ZERO_ONE)
    # In JPEG every mask has shades; elsewhere a third value is worth a word.
    elif pair.mask.suffix.lower() not in LOSSY_SUFFIXES and len(np.unique(stored)) > 2:
        notes.add(SHADES)
    return notes


def _notes(pairs: Sequence[Pair], found: Sequence[Facts]) -> list[str]:
    """One line a kind of note: what, how many, and the first file."""
    lines = []
    num_with_foreground = sum(1 in facts.classes for facts in found)
    for text in (EMPTY, FAINT, SHADES, ZERO_ONE, DEEP):
        names = [
            pair.mask.name if text != DEEP else pair.image.name for pair, f in zip(pairs, found) if text in f.notes
        ]
        if names:
            mixed = text == ZERO_ONE and len(names) < num_with_foreground
            lines.append(f"{len(names)} {MIXED if mixed else text}; the first is {names[0]}")
    return lines
