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
    """What was found in one pair: (height, width), mask values seen, note -> file name."""

    size: tuple[int, int]
    classes: set[int]
    notes: dict[str, str]


def check_pairs(pairs: Sequence[Pair]) -> DataSummary:
    """Read every file of `pairs` and count what is in them; notes tell of masks that are empty or not binary.

    raises: one UserError with every file that cannot be read and every mask of another size than its image, or when
    no mask has foreground
    """
    level = cv2.utils.logging.setLogLevel(0)  # OpenCV's own warnings of broken files would repeat the errors below
    try:
        with ThreadPoolExecutor(8) as pool:
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
    notes = []
    for text in (EMPTY, FAINT, SHADES, ZERO_ONE, DEEP):
        if names := [facts.notes[text] for facts in found if text in facts.notes]:
            mixed = text == ZERO_ONE and len(names) < classes[1]
            notes.append(f"{len(names)} {MIXED if mixed else text}; the first is {names[0]}")
    sizes = Counter(facts.size for facts in found)
    return DataSummary(len(pairs), len(pairs), dict(sizes), dict(classes), tuple(notes))


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
    (image, _), (stored, mask) = pictures
    try:
        check_sizes(pair, image, mask)
    except UserError as error:
        return [str(error)]
    zero_one = is_zero_one(stored, pair.mask)
    unusual = {
        EMPTY: not mask.any(),
        FAINT: stored.any() and not mask.any(),
        ZERO_ONE: zero_one,
        # every JPEG mask has more than two values
        SHADES: not zero_one and pair.mask.suffix.lower() not in LOSSY_SUFFIXES and len(np.unique(stored)) > 2,
    }
    notes = {text: pair.mask.name for text, is_so in unusual.items() if is_so}
    if image.dtype == np.uint16:
        notes[DEEP] = pair.image.name
    return Facts(mask.shape, set(map(int, np.unique(mask))), notes)
