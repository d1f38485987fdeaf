"""report.html from a summary, its rows, the frames of its cases and the curves of its training.

Nothing is loaded from anywhere: the style, the script and every picture are in the page, and its content security
policy lets the browser run no other script and fetch nothing. Whatever comes from files is escaped.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from utils.results.overlay import class_color
from utils.results.page.album import BUDGET, fit
from utils.results.page.curves import Points, curves
from utils.results.page.frames import CaseFrames
from utils.results.page.plots import box_plots
from utils.results.page.tables import case_means, cases_table, figures_table, worst_first
from utils.results.page.words import (
    data_name,
    digits_of,
    facts,
    is_main_figure,
    kind_of,
    label_of,
    number,
    scale_of,
    warnings,
)
from utils.results.summary import metric_names, write_atomically
from utils.scoring.protocols import Row

PAGE = "report.html"
STYLES = ("page.css", "viewer.css")
SCRIPTS = ("decode.js", "paint.js", "viewer.js", "cases.js", "page.js")
TILES = ("dice", "hd95", "iou", "nsd")  # figures at the head of the page, those that the run has
GALLERY = """<div class="gallery-controls"><label>Order <select id="order"><option value="worst">worst Dice first
</option><option value="best">best Dice first</option><option value="name">by name</option></select></label>
<label>Find <input type="search" id="find"></label><output id="found" class="soft"></output></div>
<div class="gallery" id="gallery"></div><dialog id="dialog" aria-labelledby="viewer-name">$viewer</dialog>"""
CASE_FIGURES = (
    '<div class="scroll" tabindex="0" role="region" aria-label="Figures of this case">'
    '<table class="case-figures" id="case-figures"></table></div>'
)
VOLUMES = '<div class="volumes"><ol class="case-list" id="case-list" aria-label="Cases"></ol>$viewer</div>'


def write_page(
    path: str | Path,
    summary: dict[str, Any],
    rows: Sequence[Row],
    cases: Sequence[CaseFrames],
    histories: Mapping[str, dict[str, Points]] | None = None,
    budget: int = BUDGET,
) -> None:
    """Write the page of one test run, whole or not at all.

    in: the summary that `summary.write_results` returned and the rows it was made of; frames of the same cases,
        in any order; name of a training run -> its curves; bytes that the page may take: slices are left out to keep
        to it, and the page says so (its tables alone may be larger)
    """
    write_atomically(Path(path), page(summary, rows, cases, histories or {}, budget))


def page(
    summary: dict[str, Any],
    rows: Sequence[Row],
    cases: Sequence[CaseFrames],
    histories: Mapping[str, dict[str, Points]],
    budget: int = BUDGET,
) -> str:
    """The page as text, at most `budget` bytes of UTF-8 if its tables leave it a choice."""
    order = worst_first(rows)
    by_name = {case.name: case for case in cases}
    missing = [name for name in order if name not in by_name]
    if missing:
        raise ValueError(f"no frames of {', '.join(missing[:5])}")
    wanted = [by_name[name] for name in order]
    parts = fixed_parts(summary, rows, order, wanted, histories)
    bare = _fill(parts, rows, [CaseFrames(c.name, c.depth, c.shape, ()) for c in wanted], wanted)
    kept = fit(wanted, budget - len(bare.encode()))
    return _fill(parts, rows, kept, wanted)


def _fill(parts: dict[str, str], rows: Sequence[Row], cases: Sequence[CaseFrames], wanted: Sequence[CaseFrames]) -> str:
    by_case: dict[str, list[Row]] = {case.name: [] for case in cases}
    for row in rows:
        by_case[str(row["case"])].append(row)
    names = metric_names(rows)
    texts = []
    for place, case in enumerate(cases):
        text = embed(case_data(case, by_case[case.name], names))
        texts.append(f'<script type="application/json" id="case-{place}">{text}</script>')
    # Padded: the sentence must not grow when slices are left out, or the budget would not hold.
    parts = parts | {"left_out": left_out(cases, wanted).ljust(200), "cases": "\n".join(texts)}
    return Template(_resource("template.html")).substitute(parts)


def fixed_parts(
    summary: dict[str, Any],
    rows: Sequence[Row],
    order: Sequence[str],
    cases: Sequence[CaseFrames],
    histories: Mapping[str, dict[str, Points]],
) -> dict[str, str]:
    """Everything of the template but the cases, which depend on the budget."""
    classes = list(summary["classes"])
    gallery = all(case.depth == 0 for case in cases)
    script = '"use strict";\n' + "\n".join(_resource(name) for name in SCRIPTS)
    drawn = curves(histories)
    training = (
        f'<section id="training" aria-labelledby="training-title"><h2 id="training-title">Training</h2>'
        f'<div class="curves">{drawn}</div></section>'
    )
    several = len(classes) > 1
    viewer = Template(_resource("viewer.html")).substitute(
        beside="" if several else CASE_FIGURES, below=CASE_FIGURES if several else ""
    )
    viewer = Template(GALLERY if gallery else VOLUMES).substitute(viewer=viewer)
    name = data_name(summary)
    return {
        "title": escape(f"{name}, {summary['protocol']} test"),
        "heading": escape(name),
        "lead": escape(
            f"HeteroMedSeg, {summary['protocol']} protocol, {summary['num_cases']} cases: {summary['split']}"
        ),
        "warnings": "".join(f'<p class="warning" role="note">{text}</p>' for text in warnings(summary)),
        "tiles": _tiles(summary),
        "facts": "".join(f"<div><dt>{term}</dt><dd>{text}</dd></div>" for term, text in facts(summary)),
        "figures_table": figures_table(summary),
        "plots": box_plots(rows, summary, order),
        "viewer": viewer,
        "cases_open": "" if gallery else "open",
        "cases_table": cases_table(rows, order, classes),
        "training": training if drawn else "",
        "training_link": '<a href="#training">Training</a>' if drawn else "",
        "summary": embed(summary | {"dataset": name}),
        "index": embed(index_data(summary, rows, order, gallery)),
        "style": "\n".join(_resource(name) for name in STYLES),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def index_data(summary: dict[str, Any], rows: Sequence[Row], order: Sequence[str], gallery: bool) -> dict[str, Any]:
    """What the script needs before a case is opened."""
    means = case_means(rows, "dice")
    return {
        "gallery": gallery,
        "num_labels": len(summary["classes"]) + 1,
        "classes": [{"name": name, "color": class_color(i)} for i, name in enumerate(summary["classes"], 1)],
        "metrics": [
            {"label": label_of(m), "scale": scale_of(m), "digits": digits_of(m), "main": is_main_figure(m)}
            for m in metric_names(rows)
        ],
        "cases": [{"name": name, "dice": means[name]} for name in order],
    }


def case_data(case: CaseFrames, rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """One case: its rows' figures in the order of `names`, and its frames."""
    return {
        "name": case.name,
        "depth": case.depth,
        "shape": case.shape,
        "rows": [
            {
                "class": row["class"],
                "outcome": str(row["outcome"]).replace("_", " "),
                "figures": [float(row.get(name, math.nan)) for name in names],
            }
            for row in rows
        ],
        "frames": [
            {"index": f.index, "wrong": f.wrong, "size": f.size, "picture": f.picture, "labels": f.labels}
            for f in case.frames
        ],
    }


def left_out(cases: Sequence[CaseFrames], wanted: Sequence[CaseFrames]) -> str:
    """Which pictures the page does not have, in one sentence; nothing for a gallery that has all."""
    without = sum(not case.frames for case in cases)
    held, whole = sum(len(case.frames) for case in cases), sum(len(case.frames) for case in wanted)
    depth = sum(case.depth for case in cases)
    words = ""
    if depth:
        words = f"{held} of {depth} slices are shown"
        words += "; those far from any prediction or label are not." if whole < depth else "."
        if held < whole:
            words += f" {whole - held} more were left out to keep the page small."
    if without:
        words += f" {without} of {len(cases)} cases are without pictures, the best ones, to keep the page small."
    return words.strip()


def embed(value: Any) -> str:
    """JSON for a script element: nothing in it can close the element; NaN becomes null."""
    text = json.dumps(_without_nan(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value


def _tiles(summary: dict[str, Any]) -> str:
    """The figures that a reader looks for first, large."""
    made = []
    for kind in TILES:
        for metric, figures in summary["overall"]["metrics"].items():
            if kind_of(metric) == kind and figures["mean"] is not None:
                low, high = figures["ci95"]
                interval = "" if low is None else f"{number(metric, low)}–{number(metric, high)}"
                made.append(_tile(label_of(metric), number(metric, figures["mean"]), interval))
    counts = summary["overall"]
    made.append(_tile("Missed", str(counts["missed"]), f"of {counts['missed'] + counts['found']} labelled"))
    made.append(
        _tile(
            "False positives", str(counts["false_positive"]), f"of {counts['absent'] + counts['false_positive']} empty"
        )
    )
    return "".join(made)


def _tile(name: str, value: str, interval: str) -> str:
    return (
        f'<div class="tile-figure"><div class="name">{escape(name)}</div><div class="value">{value}</div>'
        f'<div class="interval">{interval}</div></div>'
    )


def _resource(name: str) -> str:
    return resources.files("utils.results.page").joinpath(name).read_text(encoding="utf-8")
