"""Folders of pictures and their masks -> images/ and masks/ with a split: links to the user's files, or copies."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.files.pictures import PICTURE_SUFFIXES
from datasets.images.make_split import make_rows
from datasets.images.pairs import MASK_SUFFIX, stem_of
from datasets.images.split import DEFAULT_NAME, Row, describe
from datasets.prepare.shared.run import Case
from datasets.prepare.shared.sources import SourceFile
from utils.errors import UserError, counted, join_listed
from utils.files import csv_text

FOLDERS = ("images", "masks")
SEED = 1234


def place_pair(target: Path, image: SourceFile, mask: SourceFile, copy: bool) -> tuple[list[str], dict[str, Any]]:
    """Link an image and its mask into images/ and masks/; copy them from an archive, or where `copy` says so."""
    names = [f"images/{image.base}", f"masks/{mask.base}"]
    for file, name in zip((image, mask), names):
        if copy or file.member is not None or not _link(target / name, file.path):
            (target / name).unlink(missing_ok=True)  # a link of an earlier call
            file.copy_to(target / name)
    return names, {"image": image.base}


def _link(path: Path, to: Path) -> bool:
    """Make `path` a link; False where the system does not allow it (Windows, some network disks)."""
    new = path.with_name(f".link-{os.getpid()}-{path.name}")
    try:
        new.symlink_to(to.resolve())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        return False
    return True


def pair_sources(images: Sequence[SourceFile], masks: Sequence[SourceFile], copy: bool) -> list[Case]:
    """A case for each image with its mask, paired by name as `datasets/images/pairs.py` does.

    raises: UserError with every file without partner and every name that is there twice
    """
    by_stem, problems = {}, []
    stems = {stem_of(file.base) for file in images}
    for kind, files in (("image", images), ("mask", masks)):
        for file in files:
            stem = stem_of(file.base)
            stem = stem if kind == "image" or stem in stems else MASK_SUFFIX.sub("", stem)
            pair = by_stem.setdefault(stem, {})
            if kind in pair:
                problems.append(f"{pair[kind].where} and {file.where}: two files for one {kind}")
            pair[kind] = file
    for pair in by_stem.values():
        if len(pair) < 2:
            ((kind, file),) = pair.items()
            problems.append(f"{file.where}: no {'mask' if kind == 'image' else 'image'}")
    if problems or not by_stem:
        found = f"found {counted(len(images), 'image')} and {counted(len(masks), 'mask')}"
        unpaired = f"by name {counted(len(problems), 'file')} cannot be paired:\n  {join_listed(problems)}"
        raise UserError(f"{found}; {unpaired}")
    pairs = {stem: (pair["image"], pair["mask"]) for stem, pair in sorted(by_stem.items())}
    return [Case(stem, pair, place_pair, {"copy": copy}) for stem, pair in pairs.items()]


def split_files(rows: Sequence[Row]) -> tuple[dict[str, str], list[str]]:
    """The CSV of a split, for `Plan.finish`, and its description."""
    lines = [{name: value for name, value in row._asdict().items() if value is not None} for row in rows]
    return {DEFAULT_NAME: csv_text(lines)}, [f"{DEFAULT_NAME}: {describe(rows)}"]


def new_split(records: dict[str, Any], size: float, groups: dict[str, str] | None = None, together: bool = True):
    """`split_files` of a new split of all images, seed 1234.

    groups: image -> patient or video; whole groups are kept `together`, or else only written down: folds are by image
    """
    ids = sorted(record["facts"]["image"] for record in records.values())
    group_of = [groups[name] for name in ids] if groups else None
    rows = make_rows(ids, size, SEED, group_of if together else None)
    if group_of:
        rows = [row._replace(group=group) for row, group in zip(rows, group_of)]
    return split_files(rows)


def in_folder(files: Sequence[SourceFile], word: str) -> list[SourceFile]:
    """The pictures whose folder's name is `word`, in any case and without spaces, dashes and underscores."""
    return [file for file in files if is_picture(file) and re.sub(r"[\W_]", "", file.folder.lower()) == word]


def is_picture(file: SourceFile) -> bool:
    return PurePosixPath(file.base).suffix.lower() in PICTURE_SUFFIXES
