"""Reading every listed slice and volume, and counting what is in each case.

Letters: D slices, H rows, W columns.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from datasets.prepare.verify.duplicates import sketch
from datasets.prepare.verify.findings import Report, thumbnail
from datasets.volumes.files import read_slice, read_volume
from datasets.volumes.lists import INNER_FOLDERS, find_root, strip_suffix
from utils.errors import UserError, counted
from utils.files import reading

LISTS = {"train": "train.txt", "val": "val_vol.txt", "test": "test_vol.txt"}
INNER = {"train": "train_npz", "val": "test_vol_h5", "test": "test_vol_h5"}


@dataclass
class Case:
    """What is known of one patient's scan: its part, label counts, centres of classes, sketches of its slices."""

    part: str
    sizes: set[tuple[int, int]] = field(default_factory=set)
    spacing: tuple[float, ...] | None = None
    orientation: str = ""
    voxels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    slices: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    sums: np.ndarray = field(default_factory=lambda: np.zeros((256, 3)))
    sketches: list[np.ndarray] = field(default_factory=list)
    thumbnails: list[np.ndarray] = field(default_factory=list)

    def add(self, number: int, image: np.ndarray, label: np.ndarray) -> None:
        """Count slice `number` of the case."""
        counts = np.bincount(label.ravel(), minlength=256)
        self.sizes.add(label.shape)
        self.voxels += counts
        self.slices += counts > 0
        for value in np.flatnonzero(counts[1:]) + 1:
            rows, columns = np.nonzero(label == value)
            self.sums[value] += (number * len(rows), rows.sum(), columns.sum())
        self.sketches.append(sketch(image))
        self.thumbnails.append(thumbnail(image, label))

    def centres(self) -> np.ndarray:
        """The centre (slice, row, column) of each label, float (256, 3); NaN for labels that the case does not show."""
        voxels = np.where(self.voxels > 0, self.voxels, np.nan)
        return self.sums / voxels[:, None]


def look_at_files(report: Report, data: Path, names: dict[str, list[str]], num_classes: int | None) -> dict[str, Case]:
    """Read every listed file; case -> what is in it."""
    cases: dict[str, Case] = {}
    for part, listed in names.items():
        inner = INNER[part]
        suffixes = INNER_FOLDERS[inner]
        try:
            folder = find_root(data, inner)
        except UserError as error:
            report.error("files", inner, str(error))
            continue
        paths = (path for path in sorted(folder.iterdir()) if path.name.endswith(suffixes))
        files = {strip_suffix(path.name, suffixes): path for path in paths}
        for name in listed:
            if name not in files:
                report.error("files", name, f"is in {LISTS[part]}, but {inner}/ has no such file")
        there = [name for name in listed if name in files]
        known = {name for other, place in INNER.items() if place == inner for name in names.get(other, ())}
        if part != "val" and (left := sorted(files.keys() - known)):
            text = f"in no list: {counted(len(left), 'file')} of {inner}/"
            report.note("files in no list", ", ".join(left[:5]), text)
        with ThreadPoolExecutor(4 if part == "train" else 1) as pool:
            found = pool.map(partial(_read, part, num_classes), (files[name] for name in there))
            for name, content in zip(there, tqdm(found, part, len(there), leave=False, disable=None)):
                if isinstance(content, str):
                    report.error("unreadable", name, content)
                else:
                    _count(report, cases, part, name, content)
    return cases


Content = tuple[np.ndarray, np.ndarray, tuple[float, ...] | None, str]  # image, label, spacing, orientation


def _read(part: str, num_classes: int | None, path: Path) -> Content | str:
    """What a file holds, or what is wrong with it."""
    try:
        if part == "train":
            image, label = read_slice(path, num_classes)
            return image[None], label[None], None, ""
        volume = read_volume(path, path.name, num_classes)
        with reading(path), h5py.File(path, "r") as file:
            orientation = str(file.attrs.get("orientation", ""))
    except UserError as error:
        return str(error)
    if volume.label is None:
        return "holds no label; expected one to evaluate against"
    return volume.image, volume.label, volume.spacing, orientation


def _count(report: Report, cases: dict[str, Case], part: str, name: str, content: Content) -> None:
    """Add one file to its case; findings for constant slices and for a case of two lists."""
    image, label, spacing, orientation = content
    case_name, _, number = name.partition("_slice")
    case = cases.setdefault(case_name, Case(part))
    if case.part != part:
        report.error("cases in two lists", case_name, f"is in {LISTS[case.part]} and {LISTS[part]}")
    if part != "train":
        case.spacing, case.orientation = spacing, orientation
    first = int(re.sub(r"\D", "", number) or 0)
    for k, (pixels, classes) in enumerate(zip(image, label)):
        case.add(first + k, pixels, classes)
        if pixels.min() == pixels.max():
            where = name if part == "train" else f"{name}, slice {k}"
            text = f"every pixel is {pixels.min():g}"
            if classes.any():
                report.error("constant slices with a label", where, text, case.thumbnails[-1])
            else:
                report.note("constant slices", where, text)
