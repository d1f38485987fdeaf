"""The CSV that says which images train and which test: reading it, writing it, making one.

Columns: image_id, category (train, val or test), and where wanted group (a patient, a video) and fold (of a training
image). Images of the category val are for validation, in place of folds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets.images.classes import ClassTable
from datasets.images.folds import assign_folds
from datasets.images.pairs import Pair, stem_of
from utils.errors import UserError, counted
from utils.files import csv_text, parse_csv, read_text, reading, write_atomically

DEFAULT_NAME = "test_train_data.csv"
CATEGORIES = ("train", "val", "test")


class Row(NamedTuple):
    """One line of a split; fold and group are None where the file has none."""

    image_id: str
    category: str
    fold: int | None = None
    group: str | None = None


@dataclass(frozen=True)
class Split:
    """The pairs of a data set by part; a part may be empty.

    folds: the fold of each training pair, if folds were asked for and there is no part for validation
    table: the classes; None for binary masks
    """

    train: list[Pair]
    val: list[Pair]
    test: list[Pair]
    folds: list[int] | None
    description: str
    table: ClassTable | None = None

    def fold(self, index: int) -> tuple[list[Pair], list[Pair]]:
        """(training pairs, validation pairs) when fold `index` validates."""
        inside = [pair for pair, fold in zip(self.train, self.folds) if fold == index]
        if not inside:
            raise UserError(f"--fold {index}: expected 0 to {max(self.folds)}, or all")
        return [pair for pair, fold in zip(self.train, self.folds) if fold != index], inside


def load_split(path: str | Path, pairs: Sequence[Pair], num_folds: int | None = None, seed: int = 1234) -> Split:
    """Find the files of every line of the CSV and divide its training part into folds.

    A part `val` and a `fold` column win over `num_folds`. Images that the CSV leaves out are in no part.
    raises: UserError as `read_split` does, for ids without a file (all listed) and for both a part `val` and folds
    """
    rows = read_split(path)
    by_stem = {stem_of(pair.image_id): pair for pair in pairs}
    if missing := [row.image_id for row in rows if stem_of(row.image_id) not in by_stem]:
        found = f"no image for {len(missing)} of {len(rows)} ids"
        raise UserError(f"{path}: {found}; is it the CSV of this folder?\n  " + "\n  ".join(missing))
    listed = [(row.category, replace(by_stem[stem_of(row.image_id)], group=row.group or "")) for row in rows]
    parts = {name: [pair for category, pair in listed if category == name] for name in CATEGORIES}
    if parts["val"] and any(row.fold is not None for row in rows):
        raise UserError(f"{path}: found the category val and the column fold, expected one of them for validation")
    folds = None if parts["val"] or not parts["train"] else _training_folds(path, rows, num_folds, seed)
    fold_of = iter(folds or ())
    rows = [row._replace(fold=next(fold_of, None)) if row.category == "train" else row for row in rows]
    description = describe(rows)
    if unlisted := len(pairs) - len(rows):
        description += f"; not in the CSV and so not used: {counted(unlisted, 'image')} of the folder"
    return Split(**parts, folds=folds, description=description)


def _training_folds(path: str | Path, rows: Sequence[Row], num_folds: int | None, seed: int) -> list[int] | None:
    """The fold of each training image: the one given, or drawn.

    Whole groups are drawn where none is in several parts. Else the split is by image, and so are its folds.
    """
    training = [row for row in rows if row.category == "train"]
    given = [row.fold for row in training]
    if seen := set(given) - {None}:
        if None in given or seen != set(range(len(seen))) or len(seen) < 2:
            found = f"column fold: found {sorted(seen)} and {given.count(None)} training images without one"
            expected = "expected folds numbered from 0 without a gap, two or more, for every training image"
            raise UserError(f"{path}: {found}; {expected}")
        return given
    if num_folds is None:
        return None
    whole = rows[0].group is not None and not cut_groups(rows, "category")
    groups = [row.group for row in training] if whole else None
    return assign_folds([row.image_id for row in training], num_folds, seed, groups)


def cut_groups(rows: Sequence[Row], column: str) -> dict[str, Counter[Any]]:
    """Groups with images in several categories or, of those that train, folds, sorted: group -> how many in each."""
    counts: dict[str, Counter[Any]] = {}
    for row in rows if column == "category" else (row for row in rows if row.category == "train"):
        value = getattr(row, column)
        if row.group is not None and value is not None:
            counts.setdefault(row.group, Counter())[value] += 1
    return {group: found for group, found in sorted(counts.items()) if len(found) > 1}


def describe(rows: Sequence[Row]) -> str:
    """How parts and folds were kept apart, for reports: images of one patient or video look alike."""
    counts = Counter(row.category for row in rows)
    parts = [name for name in CATEGORIES if counts[name]]
    text = " + ".join(f"{counts[name]} {name}" for name in parts) + (" image" if len(rows) == 1 else " images")
    grouped = rows[0].group is not None
    if len(parts) > 1:
        several = "both" if len(parts) == 2 else "several"
        if not grouped:
            text += f", split by image: patients or videos may be in {several} parts"
        elif cut := cut_groups(rows, "category"):
            text += f", split by image: {counted(len(cut), 'group')} in {several} parts"
        else:
            numbers = [str(len({row.group for row in rows if row.category == name})) for name in parts]
            text += f", split by group: {' + '.join(numbers)} groups, none in {several} parts"
    if any(row.fold is not None for row in rows if row.category == "train"):
        cut = cut_groups(rows, "fold")
        text += "; folds by group" if grouped and not cut else "; folds by image"
        text += f": {counted(len(cut), 'group')} in several folds" if cut else ""
    return text


def read_split(path: str | Path) -> list[Row]:
    """The lines of a CSV, whatever its separator (, ; or tab), line ends, column order and further columns.

    raises: UserError for a file that is missing or empty and for missing columns; one for all lines with an empty id,
    an unknown category, a fold that is no number, an id that was there before, or no group where others have one
    """
    path = Path(path)
    text = read_text(path, "save it as CSV UTF-8, or make one with data_split_csv.py")
    header = text.lstrip().partition("\n")[0]
    with reading(path, "save it as CSV UTF-8, or make one with data_split_csv.py", as_what=" as CSV"):
        lines = parse_csv(text, max(",;\t", key=header.count))
    table = [[value.strip() for value in line] for line in lines if any(value.strip() for value in line)]
    names = [name.lower() for name in table[0]] if table else []
    for name in ("image_id", "category"):
        if names.count(name) != 1:
            raise UserError(f"{path}: found the columns {names}, expected image_id and category, once each")
    if len(table) == 1:
        raise UserError(f"{path}: found no line below the header, expected one for each image")
    rows, problems, seen = [], [], {}
    for line in table[1:]:
        row, problem = _parse(dict(zip(names, line)))
        first = seen.setdefault(stem_of(row.image_id), row)
        if not problem and first is not row:
            same = first.category == row.category
            problem = f"{row.image_id}: {'twice in' if same else f'in {first.category} and'} {row.category}"
        rows.append(row)
        problems += [problem] if problem else []
    without = [row.image_id for row in rows if not row.group]
    if len(without) < len(rows):
        problems += [f"{name}: no group, expected one in every line or in none" for name in without]
    if problems:
        found = f"found {counted(len(problems), 'line')} that cannot be used"
        raise UserError("\n  ".join([f"{path}: {found}:", *problems]))
    return rows


def _parse(values: dict[str, str]) -> tuple[Row, str]:
    """The row of one line and what is wrong with it, if anything."""
    image_id, fold = values.get("image_id", ""), values.get("fold", "")
    category = values.get("category", "").lower()
    row = Row(image_id, category, int(fold) if _is_number(fold) else None, values.get("group") or None)
    if not stem_of(image_id):
        return row, f"a line of category {category!r} without an image_id"
    if category not in CATEGORIES:
        return row, f"{image_id}: category {category!r}, expected train, val or test"
    if fold and not _is_number(fold):
        return row, f"{image_id}: fold {fold!r}, expected a number from 0"
    return row, ""


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def write_split(path: Path, rows: Sequence[Row]) -> None:
    """Write the CSV in one step, with the columns group and fold where rows have them."""
    columns = ["image_id", "category"]
    columns += [name for name in ("group", "fold") if any(getattr(row, name) is not None for row in rows)]
    write_atomically(path, csv_text([{name: getattr(row, name) for name in columns} for row in rows]))


def check_output(path: Path, force: bool) -> None:
    """Raise UserError when a new file cannot be written to `path`: it exists without `force`, or has no folder."""
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder, expected the name of a CSV file in it")
    if path.exists() and not force:
        raise UserError(f"{path}: exists already; give --force to replace it, or --output for another file")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.absolute().parent}; create it first")
