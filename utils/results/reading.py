"""Read the results of test.py: one folder, or the seeds of one setting; check whether results may be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import read_json
from utils.results.names import OURS
from utils.results.summary import CASES, DAMAGED, SUMMARY, figures_table, groups_of, metric_names, names_of, read_cases
from utils.scoring.protocols import Row
from utils.scoring.statistics import mean_over

DEFAULT_PART = "test_standard"
# Fields of summary.json that two results must share, and how the refusal calls them
MUST_AGREE = {
    "protocol": "protocol",
    "dataset": "data set",
    "split": "split",
    "tolerance": "surface tolerance",
    "unit": "unit of distances",
}
# ... and what the seeds of one setting must share besides
ONE_SETTING = {
    "recipe": "recipe",
    "img_size": "input size",
    "network": "network",
    "ssd": "SSD form",
    "fit": "way to fit images",
    "tta": "test-time augmentation",
    "tta_scales": "scales of test-time augmentation",
    "selection": "selection of the checkpoint",
}


@dataclass(frozen=True)
class Result:
    """One folder of results: its summary and the rows of its cases."""

    folder: Path
    summary: dict[str, Any]
    rows: list[Row]

    @cached_property
    def cases(self) -> list[str]:
        return sorted(names_of(self.rows, "case"))

    @cached_property
    def classes(self) -> list[str]:
        return names_of(self.rows, "class")

    @property
    def hashes(self) -> list[str]:
        return [origin["sha256"] for origin in self.summary["checkpoints"]]

    def table(self, metric: str, cases: list[str] | None = None) -> np.ndarray:
        """(N, K) figures of one metric, NaN for none; `|volume_error|` is its size.

        cases: those of the rows, of which this result may lack some; its own, sorted by name, where not given
        """
        values = figures_table(self.rows, cases or self.cases, self.classes, [metric.strip("|")])[..., 0]
        return np.abs(values) if metric.startswith("|") else values

    def metrics(self) -> list[str]:
        return ["|volume_error|" if name == "volume_error" else name for name in metric_names(self.rows)]


@dataclass(frozen=True)
class Setting:
    """What is compared: a name and the results of its seeds, one or more."""

    name: str
    results: tuple[Result, ...]

    def table(self, metric: str) -> np.ndarray:
        """(N, K) per-case means over the seeds that have a figure."""
        return mean_over(np.stack([result.table(metric) for result in self.results]), 0)


def groups_among(settings: Sequence[Setting], cases: list[str]) -> np.ndarray:
    """(N,) the group of each case as a number, as any of the results tells it."""
    return groups_of([row for setting in settings for result in setting.results for row in result.rows], cases)


def find_result(path: str | Path, part: str | None = None) -> Path:
    """The folder of results at `path`: `path` itself, or the folder `part` in the folder of a run.

    Without `part` it is the only folder of results there; of several, test_standard.
    raises: UserError that lists the folders of results found
    """
    path = Path(path)
    if (path / SUMMARY).is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected one with {SUMMARY} and {CASES}, as test.py writes it")
    there = sorted(p.parent.name for p in path.glob(f"*/{SUMMARY}"))
    if part is None:
        part = there[0] if len(there) == 1 else DEFAULT_PART
    if part not in there:
        listed = f"found the results {', '.join(there)}; choose with --part" if there else "run test.py first"
        raise UserError(f"{path}: no {part}/{SUMMARY} in it; {listed}")
    return path / part


def read_result(folder: Path) -> Result:
    """Read summary.json and cases.csv. raises: UserError for files that are missing, damaged or not of one run"""
    summary = read_json(folder / SUMMARY, DAMAGED)
    rows = read_cases(folder / CASES)
    needed = ("protocol", "split", "selection", "checkpoints", "img_size", "num_cases", "overall", "classes")
    missing = [name for name in needed if name not in summary] if isinstance(summary, dict) else needed
    if missing or not rows or not {"case", "class", "outcome"} <= rows[0].keys():
        wanted = f"the fields {', '.join(missing)}" if missing else "rows of cases"
        raise UserError(f"{folder}: not a result of test.py: {wanted} not found; run test.py again")
    if (summary.get("network") or OURS) != OURS:
        summary.pop("ssd", None)  # results of older versions name a form of SSD for networks that have none
    result = Result(folder, summary, rows)
    if summary["num_cases"] != len(result.cases) or list(summary["classes"]) != result.classes:
        raise UserError(
            f"{folder}: {SUMMARY} tells of {summary['num_cases']} cases of {', '.join(summary['classes'])}, {CASES} "
            f"of {len(result.cases)} of {', '.join(result.classes)}: not of one test run; run test.py again"
        )
    return result


def parse_settings(words: Sequence[str], part: str | None) -> list[Setting]:
    """The settings on the command line: FOLDER, NAME=FOLDER, or NAME=FOLDER,FOLDER for the seeds of one setting."""
    named = []
    for word in words:
        name, equals, rest = word.partition("=")
        plain = not equals or Path(word).is_dir()
        folders = [word] if plain else [folder for folder in rest.split(",") if folder]
        if not plain and not (name and folders):
            raise UserError(f"{word}: expected FOLDER, NAME=FOLDER, or NAME=FOLDER,FOLDER for the seeds of one setting")
        results = tuple(read_result(find_result(folder, part)) for folder in folders)
        named.append((None if plain else name, results))
    short = [_short_name(results[0].folder) for _, results in named]
    names = []
    for (name, results), own in zip(named, short):
        names.append(name or (own if short.count(own) == 1 else str(results[0].folder)))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"two settings are called {', '.join(twice)}; give each its name (NAME=FOLDER), or the seeds of one as "
            "NAME=FOLDER,FOLDER"
        )
    return [Setting(name, results) for name, (_, results) in zip(names, named)]


def _short_name(folder: Path) -> str:
    """The run's folder name: runs/a/test_standard is a."""
    folder = folder.resolve()
    inner = folder.name.startswith(("test_", "val_", "train_")) or folder.name == "out_of_fold"
    return folder.parent.name if inner else folder.name


def check_comparable(settings: Sequence[Setting]) -> None:
    """Raise UserError unless all results are of one protocol and the same labels, and seeds of one setting."""
    results = [result for setting in settings for result in setting.results]
    for other in results[1:]:
        _check_two(results[0], other)
    for setting in settings:
        first, *others = setting.results
        for other in others:
            _check_fields(first, other, ONE_SETTING, f"{setting.name}: seeds of one setting")
        hashes = [sha256 for result in setting.results for sha256 in result.hashes]
        if others and len(set(hashes)) < len(hashes):
            folders = ", ".join(str(result.folder) for result in setting.results)
            raise UserError(f"{setting.name}: one checkpoint counts as two seeds (same sha256) in {folders}")


def _check_two(first: Result, other: Result) -> None:
    _check_fields(first, other, MUST_AGREE, "results cannot be compared")
    for what in ("classes", "cases"):
        mine, theirs = getattr(first, what), getattr(other, what)
        if mine != theirs:
            only = [", ".join(sorted(set(a) - set(b))[:5]) or "none" for a, b in ((mine, theirs), (theirs, mine))]
            raise UserError(
                f"results cannot be compared: different {what}: {first.folder} has {len(mine)} (only there: {only[0]}),"
                f" {other.folder} has {len(theirs)} (only there: {only[1]}); test both on the same ones"
            )
    for metric in (name for name in first.metrics() if name.startswith("labelled_")):
        differ = ~np.isclose(first.table(metric), other.table(metric), equal_nan=True).all(1)
        if differ.any():
            raise UserError(
                f"results cannot be compared: different ground truth: {metric} of {int(differ.sum())} cases, the first "
                f"{first.cases[int(differ.argmax())]}, differs between {first.folder} and {other.folder}; "
                "test both on one data set"
            )


def _check_fields(first: Result, other: Result, fields: dict[str, str], why: str) -> None:
    for field, words in fields.items():
        mine, theirs = (_comparable(field, result.summary.get(field)) for result in (first, other))
        if mine != theirs:
            raise UserError(
                f"{why}: different {words}: {mine} in {first.folder}, {theirs} in {other.folder}; "
                "test both checkpoints under the same rules and on the same data"
            )


def _comparable(field: str, value: Any) -> Any:
    """A data set given as a folder is known by that folder's name, wherever it lies."""
    if field == "tta_scales":
        return value or []  # results of before there were any do not name them
    return Path(value).name.lower() if field == "dataset" and value else value
