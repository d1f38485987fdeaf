"""Checking images/ + masks/ with their split: files, sizes, classes, groups, and images that both parts hold."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.files.pictures import is_lossy, read_mask_picture, read_picture, silent_opencv, to_rgb8
from datasets.images.classes import LOSSY, ClassTable, find_classes, read_mask
from datasets.images.mask_values import PHOTO_SHARE, foreground_areas, guess_classes, share_of_shades
from datasets.images.pairs import TURN, Pair, check_sizes, data_root, may_lie_otherwise, pair_files, stem_of
from datasets.images.split import DEFAULT_NAME, Row, cut_groups, describe, read_split
from datasets.prepare.verify.checksums import check_manifest
from datasets.prepare.verify.duplicates import alike, sketch
from datasets.prepare.verify.findings import Report, thumbnail
from utils.errors import UserError, counted

# Of the pairs that this finds among the frames of CVC-ClinicDB, 420 are of one video and 2 of different ones.
MOST_BITS, LEAST_CORRELATION = 10, 0.97


class Look(NamedTuple):
    """What is in one pair: problems and notes as (kind, file, text), pixels of each class, size, small pictures."""

    problems: list[tuple[str, str, str]]
    notes: list[tuple[str, str, str]]
    pixels: np.ndarray
    size: tuple[int, int] | None
    small: np.ndarray | None
    sketch: np.ndarray | None


def verify_pictures(data: Path, csvfile: Path | None) -> Report:
    """Everything that is wrong with a folder of pictures and its split."""
    report, root = Report("pictures"), data_root(data)
    try:
        pairs, table = pair_files(root), find_classes(root)
    except UserError as error:
        head, *lines = str(error).split("\n  ")
        for line in lines or [head]:
            report.error("files that do not pair" if lines else "unreadable", str(root), line)
        return report
    with silent_opencv(), ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda pair: look_at(pair, table), pairs)
        looks = list(tqdm(found, "images", len(pairs), leave=False, disable=None))
    for look in looks:
        pictures = () if look.small is None else (look.small,)
        for finding in look.problems:
            report.error(*finding, *pictures)
        for finding in look.notes:
            report.note(*finding, *pictures)
    shown = [(pair, look) for pair, look in zip(pairs, looks) if look.pixels.any()]
    if table is None and not any(look.pixels[1:].any() for _, look in shown):
        guess = guess_classes([pair.mask for pair, _ in shown])
        if guess.table:
            text = f"{guess.words}; name the classes in classes.json"
            report.error("masks that are not binary", "masks", text)
    parts = check_split(report, root, csvfile, pairs)
    tabulate(report, table, looks, parts)
    find_duplicates(report, pairs, looks, parts)
    check_manifest(report, root, parts)
    return report


def look_at(pair: Pair, table: ClassTable | None) -> Look:
    """Read one pair and list what is wrong and what is unusual."""
    problems, notes, image, mask = [], [], None, None
    try:
        stored = read_picture(pair.image)
        if stored.dtype.kind == "f" and not np.isfinite(stored).all():
            problems.append(("values that are not finite", pair.image.name, "the image holds NaN or infinity"))
        else:
            image = to_rgb8(stored, pair.image)
            if image.min() == image.max():
                problems.append(("constant images", pair.image.name, f"every pixel is {image.min()}"))
    except UserError as error:
        problems.append(("unreadable", pair.image.name, str(error)))
    try:
        mask = read_mask(pair.mask, table)
        if table is None:
            stored = read_mask_picture(pair.mask)
            areas = foreground_areas(stored, pair.mask)
            if len(areas) > 1:
                remedy = LOSSY if is_lossy(pair.mask) else "name the classes in classes.json"
                text = f"areas of {', '.join(map(str, sorted(areas, key=str)))}; {remedy}"
                problems.append(("masks that are not binary", pair.mask.name, text))
            elif (share := share_of_shades(stored, pair.mask)) > PHOTO_SHARE:
                text = f"{share:.0%} of the pixels are grey; are images/ and masks/ swapped?"
                notes.append(("masks like photographs", pair.mask.name, text))
            elif len(np.unique(stored)) > 2:
                text = f"{len(np.unique(stored))} values; cut at half the range"
                notes.append(("masks of more than two values", pair.mask.name, text))
        if not mask.any():
            notes.append(("masks without foreground", pair.mask.name, "the whole mask is background"))
        if image is not None:
            check_sizes(pair, image, mask)
            if may_lie_otherwise(pair, mask.shape):
                text = f"the mask lacks it, and it is not applied: does the mask fit the image as stored? {TURN}"
                notes.append(("images with an EXIF orientation", pair.image.name, text))
    except UserError as error:
        problems.append(("unreadable" if mask is None else "sizes that differ", pair.mask.name, str(error)))
    pixels = np.zeros(256, np.int64) if mask is None else np.bincount(mask.ravel().astype(np.uint8), minlength=256)
    if image is None:
        return Look(problems, notes, pixels, None, None, None)
    fits = mask is not None and mask.shape == image.shape[:2]
    small = thumbnail(image, mask if fits else None)
    return Look(problems, notes, pixels, image.shape[:2], small, sketch(image))


def check_split(report: Report, root: Path, csvfile: Path | None, pairs: list[Pair]) -> dict[str, str]:
    """Check the CSV against the images; return stem -> part."""
    path = csvfile or root / DEFAULT_NAME
    if not path.exists():
        text = "no split; make one with data_split_csv.py, such as --size 0.9, and --group-by for patients"
        report.error("the split", path.name, text)
        return {}
    try:
        rows = read_split(path)
    except UserError as error:
        report.error("the split", path.name, str(error))
        return {}
    stems = {stem_of(pair.image_id) for pair in pairs}
    listed = {stem_of(row.image_id): row.category for row in rows}
    for row in rows:
        if stem_of(row.image_id) not in stems:
            report.error("the split", row.image_id, f"is in {path.name}, but there is no such image")
    for part in ("train", "test"):
        if part not in listed.values():
            report.error("the split", path.name, f"no image has the category {part}")
    if left := sorted(stems - listed.keys()):
        report.note("images in no part", ", ".join(left[:5]), f"{counted(len(left), 'image')} not in {path.name}")
    report.tables["split"] = [[path.name], [describe(rows)]]
    check_groups(report, rows)
    return listed


def check_groups(report: Report, rows: list[Row]) -> None:
    """An error for each patient or video that has images in several parts, or training images in several folds."""
    if rows[0].group is None:
        text = "the split names no patients or videos: whether they are in both parts is not known"
        report.note("no groups", "", text)
        return
    for column, kind, word in (("category", "parts", ""), ("fold", "folds", "fold ")):
        for group, counts in cut_groups(rows, column).items():
            text = " and ".join(f"{counted(count, 'image')} in {word}{k}" for k, count in sorted(counts.items()))
            report.error(f"patients or videos in several {kind}", group, text)


def tabulate(report: Report, table: ClassTable | None, looks: list[Look], parts: dict[str, str]) -> None:
    """Tables of sizes and of the classes; an error for classes that no mask shows."""
    sizes = Counter(look.size for look in looks if look.size).most_common()
    rows: list[list[Any]] = [[f"{h}x{w}", count] for (h, w), count in sizes[:10]]
    if sizes[10:]:
        rows.append([f"{counted(len(sizes) - 10, 'other size')}", sum(count for _, count in sizes[10:])])
    report.tables["sizes"] = [["height x width", "images"], *rows]
    pixels = np.stack([look.pixels for look in looks])
    names = table.names if table else ("background", "foreground")
    report.tables["classes"] = [["class", "pixels", "share of pixels", "images that show it"]]
    for label, name in enumerate(names):
        total, shown = int(pixels[:, label].sum()), int((pixels[:, label] > 0).sum())
        report.tables["classes"].append([name, f"{total:,}", f"{total / max(pixels.sum(), 1):.3%}", shown])
        if label and not shown:
            report.error("classes that no mask shows", name, "no mask shows this class")
    report.tables["parts"] = [["part", "images"], *map(list, sorted(Counter(parts.values()).items()))]


def find_duplicates(report: Report, pairs: list[Pair], looks: list[Look], parts: dict[str, str]) -> None:
    """An error for each two images that look alike and are in different parts, the most alike first."""
    seen = [k for k, look in enumerate(looks) if look.sketch is not None and stem_of(pairs[k].image_id) in parts]
    if not seen:
        return
    part = np.array([sorted(set(parts.values())).index(parts[stem_of(pairs[k].image_id)]) for k in seen])
    sketches = np.stack([looks[k].sketch for k in seen])
    found = sorted(alike(sketches, part, MOST_BITS, LEAST_CORRELATION), key=lambda pair: -pair[2])
    for i, j, correlation in found:
        first, second = (pairs[seen[k]].image_id for k in (i, j))
        where = f"{first} ({parts[stem_of(first)]}), {second} ({parts[stem_of(second)]})"
        pictures = looks[seen[i]].small, looks[seen[j]].small
        report.error("images alike in different parts", where, f"correlation {correlation:.3f}", *pictures)
    tested = {seen[k] for i, j, _ in found for k in (i, j) if parts[stem_of(pairs[seen[k]].image_id)] == "test"}
    rows = [["pairs", len(found)], ["test images with one alike in another part", len(tested)]]
    report.tables["alike"] = [["images alike in different parts", ""], *rows]
