"""Several classes in pictures: the table classes.json, and masks read by it.

    {"classes": [{"name": "background", "value": 0}, {"name": "nucleus", "value": 85}, ...]}

The file lies beside images/ and masks/. Background comes first. A value is a number or a colour "#rrggbb". A number is
the index in a mask with a palette, and the grey level in any other mask. Without the file a set is binary.
Shapes: masks are (H, W) or (H, W, 3) as stored, labels (H, W) uint8: 0 the background, k the class number k.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.files.pictures import is_lossy, read_mask_picture, to_mask
from utils.errors import UserError, join_listed
from utils.files import read_json, reading

CLASSES_FILE = "classes.json"
COLOUR = re.compile(r"#[0-9a-f]{6}")
MOST_CLASSES, LARGEST_LEVEL = 255, 65535
LOSSY = "JPEG changes values: export the masks as PNG"
SHAPE = '{"classes": [{"name": "background", "value": 0}, {"name": "nucleus", "value": 85}]}'


@dataclass(frozen=True)
class ClassTable:
    """Names of the classes, background first, and the value of each in a mask: all numbers or all "#rrggbb"."""

    names: tuple[str, ...]
    values: tuple[int, ...] | tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """As Config counts them: 1 for background and one class, which a sigmoid tells apart."""
        return 1 if len(self.names) == 2 else len(self.names)

    @property
    def is_colours(self) -> bool:
        return isinstance(self.values[0], str)

    def to_json(self) -> str:
        """The text of classes.json."""
        lines = (json.dumps({"name": n, "value": v}, ensure_ascii=False) for n, v in zip(self.names, self.values))
        return '{"classes": [\n  ' + ",\n  ".join(lines) + "\n]}\n"

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in zip(self.names, self.values))


def find_classes(root: Path) -> ClassTable | None:
    """The table in the data folder `root`; None where it has none, which means a binary set."""
    path = root / CLASSES_FILE
    return read_classes(path) if path.exists() else None


def read_classes(path: Path) -> ClassTable:
    """Read a table. raises: UserError for a file that cannot be read and for every entry that is wrong"""
    content = read_json(path, f"expected {SHAPE}", as_what=" as JSON")
    entries = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: found no list of classes, expected {SHAPE}")
    return make_table([(entry.get("name"), entry.get("value")) for entry in entries], str(path))


def parse_label_colours(text: str) -> ClassTable:
    """The table that --label_colours means: a JSON file, or `background:#000000,nucleus:#ff0000,...`.

    A JSON file is a classes.json, or maps each name to its colour.
    raises: UserError as `read_classes`
    """
    source = f"--label_colours {text}"
    if not text.lower().endswith(".json"):
        return make_table([tuple(entry.rpartition(":")[::2]) for entry in text.split(",")], source)
    path = Path(text)
    content = read_json(path, 'expected {"background": "#000000", "nucleus": "#ff0000"}', as_what=" as JSON")
    if not isinstance(content, Mapping) or "classes" in content:
        return read_classes(path)
    return make_table(list(content.items()), source)


def make_table(entries: Sequence[tuple[Any, Any]], source: str) -> ClassTable:
    """The table of (name, value) pairs. raises: one UserError with everything that is wrong in `source`"""
    problems = [] if 2 <= len(entries) <= MOST_CLASSES else [f"{len(entries)} classes, expected 2 to {MOST_CLASSES}"]
    names = [name.strip() if isinstance(name, str) else name for name, _ in entries]
    values = [value.strip().lower() if isinstance(value, str) else value for _, value in entries]
    for name, value in zip(names, values):
        if not isinstance(name, str) or not name or "," in name or not name.isprintable():
            problems.append(f"the name {name!r}, expected printable text without commas")
        is_level = type(value) is int and 0 <= value <= LARGEST_LEVEL  # True and False are no numbers here
        if not is_level and not (isinstance(value, str) and COLOUR.fullmatch(value)):
            problems.append(f'the value {value!r} of {name}, expected 0 to {LARGEST_LEVEL} or "#rrggbb"')
    if not problems:
        twice = {item for items in (names, values) for item in items if items.count(item) > 1}
        problems += [f"{item} twice" for item in sorted(map(str, twice))]
        if len({isinstance(value, str) for value in values}) > 1:
            problems.append("numbers and colours mixed, expected one kind")
    if problems:
        raise UserError(f"{source}: found {join_listed(problems, separator='; ')}")
    return ClassTable(tuple(names), tuple(values))


def read_mask(path: Path, table: ClassTable | None) -> np.ndarray:
    """The mask in a file, (H, W): bool where it is binary, that is without a table or of two classes, else labels.

    raises: UserError as `read_mask_picture`, `to_mask` and `to_labels`
    """
    stored = read_mask_picture(path)
    if table is None:
        return to_mask(stored, path)
    indices = None if table.is_colours else palette_indices(path)
    labels = to_labels(stored if indices is None else indices, table, path)
    return labels > 0 if table.num_classes == 1 else labels


def palette_indices(path: Path) -> np.ndarray | None:
    """Indices (H, W) uint8 of a picture that has a palette, else None; OpenCV gives its colours alone."""
    from PIL import Image

    with reading(path, "restore the file"), Image.open(path) as picture:
        return np.asarray(picture) if picture.mode == "P" else None


def to_labels(mask: np.ndarray, table: ClassTable, path: Path) -> np.ndarray:
    """Labels of a decoded mask.

    raises: UserError with every value that is not in the table, and its pixels; for several classes in a JPEG file
    """
    levels = table.values
    if table.is_colours:
        levels = [int(value[1:], 16) for value in table.values]
        mask = colour_codes(mask, path)
    elif mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            found = listed_values(colour_codes(mask, path), colours=True)
            expected = f'expected the numbers of {CLASSES_FILE}: {table}; give it the colours as "#rrggbb"'
            raise UserError(f"{path}: found colours ({found}), {expected}")
        mask = mask[..., 0]
    order = np.argsort(levels)
    known = np.asarray(levels)[order]
    place = np.searchsorted(known, mask).clip(max=len(known) - 1)
    if (wrong := known[place] != mask).any():
        found = listed_values(mask[wrong], table.is_colours)
        lossy = f"; {LOSSY}" * is_lossy(path)
        remedy = f"add them there, or correct the mask{lossy}"
        raise UserError(f"{path}: found values that {CLASSES_FILE} does not have: {found}; it has {table}; {remedy}")
    if is_lossy(path) and table.num_classes > 1 and np.ptp(place):
        raise UserError(f"{path}: found several classes in a JPEG file, whose values are noise, too; {LOSSY}")
    return order.astype(np.uint8)[place]


def colour_codes(mask: np.ndarray, path: Path) -> np.ndarray:
    """0xrrggbb of every pixel, int64 (H, W); grey is a colour, too. raises: UserError unless the mask has 8 bits"""
    if mask.dtype != np.uint8:
        raise UserError(f"{path}: found a mask of {mask.dtype}, expected colours of 8 bits; export it again")
    channels = mask if mask.ndim == 3 else np.repeat(mask[..., None], 3, axis=2)
    return channels.astype(np.int64) @ np.array((65536, 256, 1))


def listed_values(values: np.ndarray, colours: bool) -> str:
    """`17 (1,204 pixels), 85 (3 pixels)`, the most frequent first; codes as "#rrggbb"."""
    found, counts = np.unique(values, return_counts=True)
    words = []
    for i in np.argsort(-counts, kind="stable"):
        word = f"#{found[i]:06x}" if colours else f"{found[i]:g}"
        words.append(f"{word} ({counts[i]:,} pixel{'s' if counts[i] > 1 else ''})")
    return join_listed(words, 8, ", ")
