"""What a test run leaves: cases.csv, summary.json, a table in the log, and report.html made of all its data.

The page loads nothing: style, script and pictures are in it, and its content security policy lets the browser run no
other script and fetch nothing. The template escapes whatever comes from files.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import write_atomically
from utils.log import log, log_lines
from utils.results.overlay import class_color
from utils.results.page import words
from utils.results.page.charts import spread_charts
from utils.results.page.curves import Points, read_histories, training_charts
from utils.results.page.frames import BUDGET, CaseFrames, fit
from utils.results.summary import figures_table, metric_names, names_of, write_results
from utils.results.table import format_table
from utils.scoring.protocols import Row, kind_of
from utils.scoring.statistics import mean_over

PAGE = "report.html"
FOLDER = Path(__file__).parent
SCRIPTS = ("paint.js", "viewer.js", "page.js")
TILES = ("dice", "hd95", "iou", "nsd")  # figures at the head of the page, if the run has them
SENTENCE = 200  # most bytes that the sentence on what was left out may grow by


def write_report(
    out: Path, rows: Sequence[Row], meta: dict[str, Any], cases: Sequence[CaseFrames] | None, networks: Iterable[Path]
) -> dict[str, Any]:
    """Write the results of a test run into the folder `out` and log their table; returns the summary.

    in: meta: as `describe_result` gives it; cases: frames of every case, or None for no page; networks: the checkpoints
    """
    summary = write_results(out, rows, meta)
    log_lines(format_table(summary))
    if cases is not None:
        write_page(out / PAGE, summary, rows, cases, read_histories(networks))
        log(f"the page to look at: {(out / PAGE).resolve()}")
    return summary


def write_page(
    path: str | Path,
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    cases: Sequence[CaseFrames],
    histories: Mapping[str, dict[str, Points]] | None = None,
    budget: int = BUDGET,
) -> None:
    """Write the page of one test run, whole or not at all.

    The page leaves out slices to keep to `budget` bytes, and says so; its tables alone may take more.
    in: the summary that `summary.write_results` returned and the rows it was made of; frames of the same cases,
        in any order; name of a training run -> its curves
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    order = worst_first(rows)
    by_name = {case.name: case for case in cases}
    wanted = [by_name[name] for name in order]
    jinja = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    jinja.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    jinja.filters["number"] = lambda value, metric: words.number(metric, value)
    template, known = jinja.get_template("page.html"), context(summary, rows, order, histories or {})

    def render(kept: Sequence[CaseFrames]) -> str:
        data = [case_data(case, known["rows"][case.name], known["means"]["dice"][case.name]) for case in kept]
        return template.render(known, cases=data, left_out=left_out(kept, wanted))

    bare = render([replace(case, frames=()) for case in wanted])
    kept = fit(wanted, budget - len(bare.encode()) - SENTENCE)
    write_atomically(path, render(kept))


def context(
    summary: Mapping[str, Any], rows: Sequence[Row], order: Sequence[str], histories: Mapping[str, dict[str, Points]]
) -> dict[str, Any]:
    """What the template shows, but for the pictures."""
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    metrics = summary["overall"]["metrics"]
    by_case: dict[str, dict[str, Row]] = {name: {} for name in order}
    for row in rows:
        by_case[str(row["case"])][str(row["class"])] = row
    return {
        "summary": summary,
        "words": words,
        "name": words.data_name(summary),
        "tiles": sorted((m for m in metrics if kind_of(m) in TILES), key=lambda m: TILES.index(kind_of(m))),
        "colors": dict(zip(summary["classes"], map(class_color, range(1, len(summary["classes"]) + 1)))),
        "rows": by_case,
        "means": {m: case_means(rows, m) for m in metrics if words.is_main_figure(m)},
        "spread": spread_charts(rows, summary, order),
        "training": training_charts(histories),
        "style": (FOLDER / "page.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def case_data(case: CaseFrames, rows: Mapping[str, Row], dice: float | None) -> dict[str, Any]:
    """What the script shows of one case. in: rows by class; mean Dice"""
    figures = [
        [words.label_of(metric), *(words.number(metric, row.get(metric)) for row in rows.values())]
        for metric in metric_names(list(rows.values()))
    ]
    return {
        "name": case.name,
        "dice": dice,
        "depth": case.depth,
        "size": f"{case.shape[1]} × {case.shape[0]}",
        "figures": [["Outcome", *(str(row["outcome"]).replace("_", " ") for row in rows.values())], *figures],
        "frames": [asdict(frame) for frame in case.frames],
    }


def case_means(rows: Sequence[Row], metric: str) -> dict[str, float | None]:
    """Mean over the classes of each case, NaN left out; None where nothing is left."""
    cases = names_of(rows, "case")
    means = mean_over(figures_table(rows, cases, names_of(rows, "class"), [metric])[..., 0], 1)
    return {case: None if np.isnan(mean) else float(mean) for case, mean in zip(cases, means)}


def worst_first(rows: Sequence[Row]) -> list[str]:
    """Names of the cases by rising mean Dice, then by name; cases without a Dice last."""
    means = case_means(rows, "dice")
    return sorted(means, key=lambda case: (means[case] is None, means[case] or 0.0, case))


def left_out(cases: Sequence[CaseFrames], wanted: Sequence[CaseFrames]) -> str:
    """Which pictures the page does not have, in one sentence; nothing for a gallery that has all."""
    held, whole = (sum(len(case.frames) for case in every) for every in (cases, wanted))
    depth, without = sum(case.depth for case in cases), sum(not case.frames for case in cases)
    found = []
    if depth:
        far = "; those far from any prediction or label are not" * (whole < depth)
        found.append(f"{held} of {depth} slices are shown{far}.")
    if depth and held < whole:
        found.append(f"{whole - held} more were left out to keep the page small.")
    if without:
        found.append(f"{without} of {len(cases)} cases are without pictures, the best ones, to keep the page small.")
    return " ".join(found)
