"""The check before a run: read every image and mask once, count, and name all that is wrong."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from textwrap import indent
from typing import NamedTuple

import numpy as np

from datasets.files.pictures import is_lossy, is_zero_one, read_mask_picture, read_picture, silent_opencv, to_mask
from datasets.images.classes import CLASSES_FILE, ClassTable, read_mask
from datasets.images.mask_values import PHOTO_SHARE, Guess, foreground_areas, guess_classes, share_of_shades
from datasets.images.pairs import TURN, Pair, check_sizes, may_lie_otherwise, read_image
from datasets.summary import DataSummary
from utils.errors import UserError, counted

# of masks
EMPTY = "without foreground"
FAINT = "with grey values, but none above half the range: read as empty"
SHADES = "of more than two values, cut at half the range"
PHOTO = "grey in more than a tenth of the pixels, as photographs are (are images/ and masks/ swapped?)"
ZERO_ONE = "stored as 0 and 1"
MIXED = "stored as 0 and 1 beside others of a full range; make them alike"
NO_FOREGROUND = "no mask has a value above half the range of its type (127 of 255)"
# of images
TURNED = (
    "with an EXIF orientation that the mask lacks and that is not applied: a mask drawn in a viewer lies otherwise "
    f"({TURN})"
)
DEEP = "of 16 bits, scaled by the whole range of the type (dark? --intensity percentile)"


class Facts(NamedTuple):
    """What was found in one pair: (height, width), labels seen, values with areas, note -> file name."""

    size: tuple[int, int]
    classes: set[int]
    areas: set[int | str]
    notes: dict[str, str]


def check_pairs(
    pairs: Sequence[Pair], table: ClassTable | None = None, training: bool = True, intensity: str = "auto"
) -> DataSummary:
    """Read every file of `pairs` and count what is in them; notes tell of masks that are empty or not binary.

    table: the classes of the masks; None for binary masks; intensity: as `read_image`
    raises: one UserError with every file that cannot be read, every mask of another size than its image and every
    value that is not in `table`; without a table, when masks show several classes; when no mask to train on has
    foreground
    """
    with silent_opencv(), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(partial(_inspect, table=table, intensity=intensity), pairs))
    if problems := [problem for item in found if isinstance(item, list) for problem in item]:
        found_in = f"{counted(len(problems), 'problem')} in {counted(len(pairs), 'pair')}"
        raise UserError("\n  ".join([f"{found_in}:", *problems]))
    classes = Counter(value for facts in found for value in facts.classes)
    areas = Counter(value for facts in found for value in facts.areas)
    shows_nothing = not classes.keys() - {0}
    if len(areas) > 1 or (shows_nothing and any(FAINT in facts.notes for facts in found)):
        guess = guess_classes([pair.mask for pair in pairs])
        one = guess.table is not None and guess.table.num_classes == 1
        if len(areas) > 1 or (guess.table and (training or areas or not one)):
            photos = 0 if guess.table else sum(PHOTO in facts.notes for facts in found)
            raise UserError(_unnamed_classes(pairs, guess, one) + f"; {counted(photos, 'mask')} {PHOTO}" * bool(photos))
    if pairs and shows_nothing and (training or areas):
        raise UserError(
            f"{pairs[0].mask.parent}: {NO_FOREGROUND}; "
            f"expected foreground in 255, or in 1 of masks of 0 and 1, or a {CLASSES_FILE} with the value of each class"
            if table is None
            else f"{pairs[0].mask.parent}: no mask shows a class but the background {table.values[0]}"
        )
    notes = []
    for text in (EMPTY, FAINT, PHOTO, SHADES, ZERO_ONE, TURNED, DEEP):
        if names := [facts.notes[text] for facts in found if text in facts.notes]:
            number = counted(len(names), "image" if text in (TURNED, DEEP) else "mask")
            mixed = text == ZERO_ONE and len(names) < classes[1]
            notes.append(f"{number} {MIXED if mixed else text}; the first is {names[0]}")
    sizes = Counter(facts.size for facts in found)
    return DataSummary(len(pairs), len(pairs), dict(sizes), dict(classes), tuple(notes))


def _unnamed_classes(pairs: Sequence[Pair], guess: Guess, one: bool) -> str:
    """What was found in masks that need a classes.json, of `one` class or several, and the one that describes them."""
    masks, path = pairs[0].mask.parent, pairs[0].mask.parent.parent / CLASSES_FILE
    if guess.table is None:
        expected = f"expected one foreground value, or a {path} with the value of each class (README.md shows one)"
        return f"{masks}: {expected}; found {guess.words}"
    expected = f"expected one foreground value; if these are classes, name them in {path}"
    if one:
        expected = f"but {NO_FOREGROUND}; if this is the foreground, name it in {path}"
    return f"{masks}: found {guess.words}, {expected}, such as:\n{indent(guess.table.to_json().strip(), '  ')}"


def _inspect(pair: Pair, table: ClassTable | None, intensity: str) -> Facts | list[str]:
    """The facts of one pair, or what is wrong with it."""
    problems, image, binary = [], None, table is None
    try:
        deep = intensity == "auto" and read_picture(pair.image).dtype == np.uint16
        image = read_image(pair.image, intensity)
    except UserError as error:
        problems.append(str(error))
    try:
        stored = read_mask_picture(pair.mask) if binary else None
        mask = to_mask(stored, pair.mask) if binary else read_mask(pair.mask, table)
        if image is not None:
            check_sizes(pair, image, mask)
    except UserError as error:
        problems.append(str(error))
    if problems:
        return problems
    zero_one = binary and is_zero_one(stored, pair.mask)
    photo = binary and share_of_shades(stored, pair.mask) > PHOTO_SHARE
    unusual = {
        EMPTY: not mask.any(),
        FAINT: binary and stored.any() and not mask.any(),
        ZERO_ONE: zero_one,
        PHOTO: photo,
        # every JPEG mask has more than two values
        SHADES: binary and not zero_one and not photo and not is_lossy(pair.mask) and len(np.unique(stored)) > 2,
    }
    notes = {text: pair.mask.name for text, is_so in unusual.items() if is_so}
    if may_lie_otherwise(pair, mask.shape):
        notes[TURNED] = pair.image.name
    if deep:
        notes[DEEP] = pair.image.name
    areas = foreground_areas(stored, pair.mask) if binary else set()
    return Facts(mask.shape, set(map(int, np.unique(mask))), areas, notes)
