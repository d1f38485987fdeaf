"""The files of a test run: cases.csv and summary.json.

The CSV holds every figure in full precision, an undefined one as an empty cell. The summary says by which rules the
figures were made, and how many were left out of each mean.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.config import Config
from utils.errors import counted
from utils.files import csv_text, parse_csv, read_text, reading, write_atomically
from utils.results.names import OURS
from utils.scoring.protocols import ABSENT, FALSE_POSITIVE, FOUND, MISSED, Row
from utils.scoring.statistics import NUM_RESAMPLES, bootstrap_means, index_groups, interval, mean_over

KEYS = ("case", "group", "class", "outcome")
OUTCOMES = (FOUND, MISSED, FALSE_POSITIVE, ABSENT)
SUMMARY, CASES = "summary.json", "cases.csv"
DAMAGED = f"expected {SUMMARY} and {CASES} of one test run; run test.py again"


def describe_result(cfg: Config, precision: str, origins: list[dict[str, Any]], split: str) -> dict[str, Any]:
    """The first part of summary.json: rules, data and checkpoints of a test run.

    in: cfg of the test; origin of every checkpoint, as `load_network` returns it; the split in words
    """
    networks, forms = (
        list(dict.fromkeys(origin.get(name, getattr(cfg, name)) for origin in origins or [{}]))
        for name in ("network", "ssd")
    )
    return {
        "protocol": cfg.protocol,
        "dataset": dataset_of(cfg),
        "recipe": cfg.recipe,
        "split": split,
        "selection": ", ".join(dict.fromkeys(origin["selection"] for origin in origins)),
        "checkpoints": origins,
        "img_size": list(cfg.img_size),
        "network": ", ".join(networks),
        **({"ssd": ", ".join(forms)} if networks == [OURS] else {}),
        "fit": cfg.preprocess.fit,
        "precision": precision,
        "tta": cfg.tta,
        "tta_scales": list(cfg.tta_scales),
        "tolerance": cfg.tolerance,
    }


def dataset_of(cfg: Config) -> str:
    """The data set of a run: the name of its recipe, or the folder of data that has lists of its own."""
    if not (cfg.list_dir and cfg.root_path):
        return cfg.dataset
    folder = Path(cfg.root_path)
    return str(folder.parent if folder.name in ("train_npz", "test_vol_h5") else folder)


def write_results(folder: str | Path, rows: Sequence[Row], meta: dict[str, Any]) -> dict[str, Any]:
    """Write cases.csv and summary.json into `folder`, each in one step; returns the summary.

    in: rows of `protocols`; meta: what the summary says besides, as `describe_result` gives it
    """
    summary = summarise(rows, meta)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    cells = [row | {name: _number(row[name]) for name in metric_names([row])} for row in rows]
    write_atomically(Path(folder) / CASES, csv_text(cells))
    write_atomically(Path(folder) / SUMMARY, text)
    return summary


def read_cases(path: str | Path) -> list[Row]:
    """The rows that `write_results` wrote; empty cells are NaN. raises: UserError for a file that it did not write"""
    path = Path(path)
    text = read_text(path, DAMAGED)
    with reading(path, DAMAGED):
        header, *lines = parse_csv(text)
        rows = [dict(zip(header, line, strict=True)) for line in lines]
        return [{key: value if key in KEYS else float(value or "nan") for key, value in row.items()} for row in rows]


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Names of all figures, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in KEYS))


def names_of(rows: Sequence[Row], key: str) -> list[str]:
    """Names of the cases, or of the classes, in the order of `rows`. in: "case" or "class" as `key`"""
    return list(dict.fromkeys(str(row[key]) for row in rows))


def groups_of(rows: Sequence[Row], cases: list[str]) -> np.ndarray:
    """(cases,) the group of each case as a number; a case without one is its own."""
    known = {str(row["case"]): str(row["group"]) for row in rows if row.get("group")}
    return index_groups([known.get(case, case) for case in cases])


def count_units(groups: np.ndarray) -> str:
    """What is resampled, in words: `3 groups (videos, patients)`, or `cases` where no group has several."""
    num = len(set(groups.tolist()))
    return "cases" if num == len(groups) else f"{counted(num, 'group')} (videos, patients)"


def figures_table(rows: Sequence[Row], cases: list[str], classes: list[str], names: list[str]) -> np.ndarray:
    """Figures as float64 (cases, classes, names), NaN where there is none."""
    found = {(str(row["case"]), str(row["class"])): row for row in rows}
    each = [[found.get((case, name), {}) for name in classes] for case in cases]
    return np.array([[[row.get(name, np.nan) for name in names] for row in line] for line in each], float)


def summarise(rows: Sequence[Row], meta: dict[str, Any]) -> dict[str, Any]:
    """Mean, SD and 95 % interval of every figure, per class and overall, and how many cases were left out.

    The overall mean is the mean over classes of their means over cases. Its SD is over the cases' own means, its
    interval over resampled cases, or groups where several cases are of one. The SD divides by the number of cases
    under `legacy`, as the published scripts do, and by one less under `standard`.
    """
    cases, classes, names = names_of(rows, "case"), names_of(rows, "class"), metric_names(rows)
    if not rows:
        raise ValueError("a summary needs at least one row")
    for (case, name), count in Counter((row["case"], row["class"]) for row in rows).items():
        if count > 1:
            raise ValueError(f"case {case}, class {name}: {count} rows; names of cases must differ")
    values = figures_table(rows, cases, classes, names)
    groups = groups_of(rows, cases)
    samples = bootstrap_means(values.reshape(len(cases), -1), groups=groups).reshape(NUM_RESAMPLES, *values.shape[1:])
    ddof = 0 if meta["protocol"] == "legacy" else 1
    per_class = {}
    for c, name in enumerate(classes):
        figures = {m: _figures(values[:, c, i], samples[:, c, i], ddof, groups) for i, m in enumerate(names)}
        per_class[name] = _counts([row for row in rows if row["class"] == name]) | {"metrics": figures}
    overall = {}
    for i, m in enumerate(names):
        overall[m] = _figures(mean_over(values[:, :, i], 1), mean_over(samples[:, :, i], 1), ddof, groups)
        overall[m]["mean"] = _number(mean_over(mean_over(values[:, :, i], 0), 0))
        overall[m]["left_out"] = int(np.isnan(values[:, :, i]).sum())
    units = sorted({name.removeprefix("hd95_") for name in names if name.startswith("hd95_")})
    return {
        **meta,
        "unit": " and ".join(units) or "px",  # of distances; mm and px where only some cases have a spacing
        "num_cases": len(cases),
        "interval": f"bootstrap over {count_units(groups)}, 95 %, {NUM_RESAMPLES} resamples",
        "overall": _counts(rows) | {"metrics": overall},
        "classes": per_class,
    }


def _counts(rows: Sequence[Row]) -> dict[str, Any]:
    """How often each outcome occurred, and the size of all false positives together in the rows' unit."""
    counts: dict[str, Any] = {name: sum(row["outcome"] == name for row in rows) for name in OUTCOMES}
    for size in [name for name in metric_names(rows) if name.startswith("predicted_")]:
        wrong = (float(row.get(size, 0)) for row in rows if row["outcome"] == FALSE_POSITIVE)
        counts[size.replace("predicted", "false_positive")] = sum(wrong, 0.0)
    return counts


def _figures(values: np.ndarray, samples: np.ndarray, ddof: int, groups: np.ndarray) -> dict[str, Any]:
    """One figure of all cases; the interval needs two groups, an SD that divides by one less two cases."""
    known = values[~np.isnan(values)]
    low, high = interval(samples) if len(set(groups[~np.isnan(values)])) > 1 else (math.nan, math.nan)
    return {
        "mean": _number(known.mean()) if len(known) else None,
        "sd": _number(known.std(ddof=ddof)) if len(known) > ddof else None,
        "ci95": [_number(low), _number(high)],
        "cases": len(known),
        "left_out": len(values) - len(known),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
