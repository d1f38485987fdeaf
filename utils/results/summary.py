"""The files of a test run: cases.csv and summary.json.

The CSV holds every figure in full precision, an undefined one as an empty cell. The summary says by which rules the
figures were made, and how many were left out of each mean.
"""

import csv
import json
import math
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from utils.config import Config
from utils.scoring.protocols import ABSENT, FALSE_POSITIVE, FOUND, MISSED, Row
from utils.scoring.statistics import NUM_RESAMPLES, bootstrap_means, interval

KEYS = ("case", "class", "outcome")
OUTCOMES = (FOUND, MISSED, FALSE_POSITIVE, ABSENT)
REQUIRED_META = ("protocol", "split", "selection", "checkpoints", "img_size")


def describe_result(cfg: Config, precision: str, origins: list[dict[str, Any]], split: str) -> dict[str, Any]:
    """The first part of summary.json: rules, data and checkpoints of a test run.

    in: cfg of the test; origin of every checkpoint, as `load_network` returns it; the split in words
    """
    return {
        "protocol": cfg.protocol,
        "dataset": dataset_of(cfg),
        "recipe": cfg.recipe,
        "split": split,
        "selection": ", ".join(dict.fromkeys(origin["selection"] for origin in origins)),
        "checkpoints": origins,
        "img_size": list(cfg.img_size),
        "ssd": cfg.ssd,
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
    """Write cases.csv and summary.json into `folder`, each whole or not at all; returns the summary.

    in: rows of `protocols`; meta: what the summary says besides, as `describe_result` gives it
    """
    summary = summarise(rows, meta)
    texts = {"cases.csv": _csv_text(rows), "summary.json": json.dumps(summary, indent=2, allow_nan=False) + "\n"}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return summary


def write_atomically(path: Path, text: str) -> None:
    """Put `text` in the place of `path` in one step: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_cases(path: str | Path) -> list[Row]:
    """The rows that `write_results` wrote; empty cells are NaN."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [
            {key: value if key in KEYS else float(value or "nan") for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Names of all figures, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in KEYS))


def _csv_text(rows: Sequence[Row]) -> str:
    out = StringIO()
    names = metric_names(rows)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*KEYS, *names])
    for row in rows:
        figures = (float(row.get(name, math.nan)) for name in names)
        writer.writerow([*(row[key] for key in KEYS), *("" if math.isnan(f) else repr(f) for f in figures)])
    return out.getvalue()


def summarise(rows: Sequence[Row], meta: dict[str, Any]) -> dict[str, Any]:
    """Mean, SD and 95 % interval of every figure, per class and overall, with everything that was left out.

    Overall is the mean over classes of their means over cases; its SD is over the cases' own means,
    its interval over resampled cases. SD divides by the number of cases under `legacy` (as the
    published scripts do), by one less otherwise.
    """
    missing = [key for key in REQUIRED_META if key not in meta]
    if missing or not rows:
        raise ValueError(
            f"a summary needs rows ({len(rows)} given) and meta with {', '.join(missing) or 'what it has'}"
        )
    cases = list(dict.fromkeys(str(row["case"]) for row in rows))
    classes = list(dict.fromkeys(str(row["class"]) for row in rows))
    names = metric_names(rows)
    values = _table(rows, cases, classes, names)
    samples = bootstrap_means(values.reshape(len(cases), -1)).reshape(NUM_RESAMPLES, len(classes), len(names))
    ddof = 0 if meta["protocol"] == "legacy" else 1
    per_class = {}
    for c, name in enumerate(classes):
        own = [row for row in rows if row["class"] == name]
        per_class[name] = _counts(own) | {
            "metrics": {m: _figures(values[:, c, i], samples[:, c, i], ddof) for i, m in enumerate(names)}
        }
    overall = {}
    for i, m in enumerate(names):
        figures = _figures(_nanmean(values[:, :, i]), _nanmean(samples[:, :, i]), ddof)
        figures["mean"] = _number(_nanmean(_nanmean(values[:, :, i].T)[None])[0])
        figures["left_out"] = int(np.isnan(values[:, :, i]).sum())
        overall[m] = figures
    return {
        **meta,
        "unit": _unit(names),
        "num_cases": len(cases),
        "interval": f"bootstrap over cases, 95 %, {NUM_RESAMPLES} resamples",
        "overall": _counts(rows) | {"metrics": overall},
        "classes": per_class,
    }


def _table(rows: Sequence[Row], cases: list[str], classes: list[str], names: list[str]) -> np.ndarray:
    """Figures as (cases, classes, metrics), NaN where there is none."""
    values = np.full((len(cases), len(classes), len(names)), np.nan)
    case_at, class_at = {k: i for i, k in enumerate(cases)}, {k: i for i, k in enumerate(classes)}
    seen = set()
    for row in rows:
        key = case_at[str(row["case"])], class_at[str(row["class"])]
        if key in seen:
            raise ValueError(f"case {row['case']}, class {row['class']}: two rows; names of cases must differ")
        seen.add(key)
        values[key] = [row.get(name, np.nan) for name in names]
    return values


def _counts(rows: Sequence[Row]) -> dict[str, Any]:
    """How often each outcome occurred, and the size of all false positives together in the rows' unit."""
    counts: dict[str, Any] = {name: sum(row["outcome"] == name for row in rows) for name in OUTCOMES}
    for size in [name for name in metric_names(rows) if name.startswith("predicted_")]:
        unit = size.removeprefix("predicted_")
        wrong = [float(row.get(size, 0.0)) for row in rows if row["outcome"] == FALSE_POSITIVE]
        counts[f"false_positive_{unit}"] = float(sum(wrong))
    return counts


def _figures(values: np.ndarray, samples: np.ndarray, ddof: int) -> dict[str, Any]:
    """One figure of all cases; the interval needs two cases, as does an SD that divides by one less."""
    known = values[~np.isnan(values)]
    low, high = interval(samples) if len(known) > 1 else (math.nan, math.nan)
    return {
        "mean": _number(known.mean()) if len(known) else None,
        "sd": _number(known.std(ddof=ddof)) if len(known) > ddof else None,
        "ci95": [_number(low), _number(high)],
        "cases": len(known),
        "left_out": len(values) - len(known),
    }


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN, without a warning, where there is nothing else."""
    present = ~np.isnan(values)
    counts = present.sum(-1)
    sums = np.where(present, values, 0.0).sum(-1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _unit(names: Sequence[str]) -> str:
    """Unit of the distances: mm, px, or both where only some cases have a spacing."""
    units = {name.removeprefix("hd95_") for name in names if name.startswith("hd95_")}
    return "px" if not units else " and ".join(sorted(units))
