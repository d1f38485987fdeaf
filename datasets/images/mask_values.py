"""What masks seem to hold: one foreground, or several classes, by the areas of one value in them.

A published binary mask may hold more than two values: noise of JPEG, grey 5 to 15 in the background, soft edges. None
of these makes an area of one exact value far from black and white. A class does, so areas tell the two apart.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from datasets.files.pictures import is_lossy, is_zero_one, read_mask_picture, type_range
from datasets.images.classes import LOSSY, ClassTable, colour_codes, palette_indices
from datasets.summary import try_each
from utils.errors import counted, join_listed

LEAST_AREA = 9  # pixels whose 8 neighbours are all equal to them, summed over a mask
LEAST_SHARE = 0.002  # of all pixels, where noise or soft edges make areas, too
DARK, BRIGHT = 31 / 255, 224 / 255  # up to and from these shares of the range: noise of black and white
FEW_VALUES, LOW_LABELS = 6, 4  # 0, 1, 2, 255 are labels; 0, 1, 2, 3, 7, 9, 130, 255 are noise
PHOTO_SHARE = 0.1  # of `share_of_shades`; edges and noise of a mask have less
MOST_VALUES = 64  # beyond, values are shades
BLACK = "#000000"


def foreground_areas(stored: np.ndarray, path: Path) -> set[int | str]:
    """The values that fill areas of a mask, black and its noise left out: 85, or "#ff0000" where it has colours.

    Values near white count as white, and so does 1 in a mask of 0 and 1.
    in: the mask as `read_mask_picture` gives it
    """
    if stored.dtype.kind not in "bu":  # shades in [0, 1]
        return set()
    channels, lossy = stored.astype(np.uint8) if stored.dtype.kind == "b" else stored, is_lossy(path)
    white = type_range(stored, path)
    if channels.ndim == 3 and has_colours(channels):
        share = channels / white
        snapped = np.where(share <= DARK, 0, np.where(share >= BRIGHT, 255, np.rint(share * 255))).astype(np.uint8)
        codes = colour_codes(np.rint(snapped / 51).astype(np.uint8) * np.uint8(51) if lossy else snapped, path)
        return {f"#{code:06x}" for code in _areas(snapped, codes, lossy)} - {BLACK}
    grey = channels if channels.ndim == 2 else channels.max(axis=2)
    if white == 1 or is_zero_one(grey, path):
        return {255} if grey.any() else set()
    areas = _areas(grey, (grey.astype(int) + 8) // 16 * 16 if lossy else grey, lossy)
    found = {255 if value >= BRIGHT * white else value for value in areas if value > DARK * white}
    if not lossy and len(np.unique(grey)) <= FEW_VALUES:
        found |= {value for value in areas if 0 < value <= LOW_LABELS}
    return found


def share_of_shades(stored: np.ndarray, path: Path) -> float:
    """The share of pixels that are neither dark nor bright, nor near (16 of 255) the commonest level between them.

    A mask may have its foreground there, and noise of JPEG around it.
    in: the mask as `read_mask_picture` gives it. raises: UserError as `type_range`
    """
    levels = stored if stored.ndim == 2 else stored.max(axis=2)
    if levels.dtype != np.uint8:
        levels = np.rint(levels * (255 / type_range(levels, path))).astype(np.uint8)
    counts = np.bincount(levels.ravel(), minlength=256)[round(DARK * 255) + 1 : round(BRIGHT * 255)]
    commonest = int(counts.argmax())
    counts[max(commonest - 16, 0) : commonest + 17] = 0
    return int(counts.sum()) / levels.size


def has_colours(stored: np.ndarray) -> bool:
    """Whether any pixel (H, W, 3) is clearly no grey; JPEG gives greys a tint."""
    return bool((np.ptp(stored, axis=2) > DARK * np.iinfo(stored.dtype).max).any())


def _areas(channels: np.ndarray, codes: np.ndarray, lossy: bool) -> list[int]:
    """The codes (H, W) of the pixels whose neighbours equal them in all `channels`, if these are enough."""
    window = np.ones((3, 3), np.uint8)
    flat = cv2.dilate(channels, window) == cv2.erode(channels, window)
    values, counts = np.unique(codes[flat if flat.ndim == 2 else flat.all(axis=2)], return_counts=True)
    shades = lossy or len(np.unique(codes)) > MOST_VALUES
    return values[counts >= max(LEAST_AREA, LEAST_SHARE * codes.size * shades)].tolist()


class Guess(NamedTuple):
    """What a set of masks seems to hold.

    kind: binary, labels (0..K-1), greys, palette, colours or unclear
    table: names background, class 1, ...; None for binary masks and unclear ones
    words: the finding for a message
    photos: of binary masks, how many look like photographs (`share_of_shades`)
    """

    kind: str
    table: ClassTable | None
    words: str
    photos: int = 0


class _Look(NamedTuple):
    """One mask: areas as `foreground_areas`; pixels of each level (or index), and of each colour where it has any.

    dark: values with areas, but black, in a mask of whole numbers without any above DARK; None in any other mask
    shows: whether it has foreground where it is read as binary; changed: whether it is a JPEG of several values;
    photo: whether it looks like a photograph
    """

    areas: set[int | str]
    dark: set[int] | None
    shows: bool
    levels: Counter[int]
    colours: Counter[int]
    indexed: bool
    changed: bool
    photo: bool


def guess_classes(masks: Sequence[Path]) -> Guess:
    """Look at every mask and say what the set seems to hold. raises: UserError as `read_mask_picture` and `type_range`

    One value is a class, too, where all are at or below half the range: read as binary, the set would be empty.
    """
    looks = try_each(_look, masks, 8, "masks", "masks cannot be used:")
    areas = Counter(value for look in looks for value in look.areas)
    if len(areas) < 2 and all(look.dark is not None for look in looks):  # no white that these could be the noise of
        areas = Counter(value for look in looks for value in look.dark)
    shows = any(look.shows for look in looks)
    words = f"areas of {listed(areas, len(looks))}"
    if len(areas) < 2 and shows:
        return Guess("binary", None, words, sum(look.photo for look in looks))
    words = words if areas else f"no value above half the range in {counted(len(looks), 'mask')}"
    if any(look.changed for look in looks):
        return Guess("unclear", None, f"{words}; {LOSSY}")
    indexed = all(look.indexed for look in looks)
    coloured = any(look.colours for look in looks) and not indexed
    values = [_as_colours(look) if coloured else look.levels for look in looks]
    pixels: Counter[int] = Counter()
    for value in values:
        pixels.update(value)
    mixed = (not indexed and any(look.indexed for look in looks)) or any(isinstance(value, float) for value in pixels)
    if mixed or len(pixels) > MOST_VALUES or (len(areas) < 2 and len(pixels) != 2):
        return Guess("unclear", None, f"{words}, among {counted(len(pixels), 'different value')}")
    background = 0 if 0 in pixels else pixels.most_common(1)[0][0]
    ordered = (background, *sorted(pixels.keys() - {background}))
    names = ("background", *(f"class {k}" for k in range(1, len(ordered))))
    kind = "palette" if indexed else "labels" if ordered == tuple(range(len(ordered))) else "greys"
    stored = tuple(f"#{code:06x}" for code in ordered) if coloured else ordered
    table = ClassTable(names, stored)
    shown = {value: sum(code in mask for mask in values) for value, code in zip(stored[1:], ordered[1:])}
    return Guess("colours" if coloured else kind, table, f"values {listed(shown, len(looks))}")


def listed(counts: Mapping[int | str, int], num_masks: int) -> str:
    """`85 in 3, 255 in 12 of 20 masks`"""
    ordered = sorted(counts, key=lambda value: (isinstance(value, str), value))
    words = join_listed([f"{value} in {counts[value]}" for value in ordered], 12, ", ")
    return f"{words or 'no value'} of {counted(num_masks, 'mask')}"


def _look(path: Path) -> _Look:
    stored, indices = read_mask_picture(path), palette_indices(path)
    codes = stored.ndim == 3 and indices is None and has_colours(stored)
    levels = indices if indices is not None else stored if stored.ndim == 2 else stored[..., 0]
    colours = _pixels(colour_codes(stored, path)) if codes else Counter()
    white, lossy = type_range(stored, path), is_lossy(path)
    is_dark = stored.dtype.kind == "u" and stored.ndim == 2 and stored.max() <= DARK * white
    dark = set(_areas(stored, stored, lossy)) - {0} if is_dark else None
    shows = bool(stored.max() > white / 2) or is_zero_one(stored, path)
    changed = lossy and stored.min() < stored.max()
    areas, photo = foreground_areas(stored, path), share_of_shades(stored, path) > PHOTO_SHARE
    return _Look(areas, dark, shows, _pixels(levels), colours, indices is not None, changed, photo)


def _as_colours(look: _Look) -> Counter[int]:
    return look.colours or Counter({level * 0x010101: count for level, count in look.levels.items()})


def _pixels(values: np.ndarray) -> Counter[int]:
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist())))
