"""The page's tables as HTML: figures per class with their intervals, and every case, worst first.

A cell's `data-value` is what the page sorts by, in full precision; cells without one go last.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from utils.results.overlay import class_color
from utils.results.page.words import NOTHING, OUTCOMES, is_main_figure, label_of, number
from utils.results.summary import metric_names
from utils.scoring.protocols import ABSENT, FOUND, Row


def swatch(label: int) -> str:
    """The colour of class 1, 2, … as a small square."""
    return f'<span class="swatch" style="background:rgb{class_color(label)}"></span>'


def figures_table(summary: dict[str, Any]) -> str:
    """One row a class, sortable, and their mean below: mean over cases and its 95 % interval."""
    names = list(summary["overall"]["metrics"])
    heads = [_head("Class", is_text=True), _head("n"), _head("Missed"), _head("False positives")]
    heads += [_head(label_of(name), more=not is_main_figure(name)) for name in names]
    rows = [_figures_row(swatch(i), name, one, names) for i, (name, one) in enumerate(summary["classes"].items(), 1)]
    foot = ""
    if len(rows) > 1:
        foot = f"<tfoot>{_figures_row('', 'Mean over classes', summary['overall'], names)}</tfoot>"
    return (
        f'<table class="figures" id="figures-table"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>{foot}</table>"
    )


def _head(text: str, is_text: bool = False, more: bool = False, start: str = "") -> str:
    look = " ".join((["more"] if more else []) + (["text"] if is_text else []))
    order = f' aria-sort="{start}"' if start else ""
    return f'<th scope="col" class="{look}"{order}><button type="button" class="sort">{escape(text)}</button></th>'


def _figures_row(mark: str, name: str, entry: dict[str, Any], names: Sequence[str]) -> str:
    involved = entry["found"] + entry["missed"] + entry["false_positive"]
    cells = [f'<th scope="row" data-value="{escape(name)}">{mark}{escape(name)}</th>']
    cells += [f'<td data-value="{n}">{n}</td>' for n in (involved, entry["missed"], entry["false_positive"])]
    for metric in names:
        figures = entry["metrics"][metric]
        look = "" if is_main_figure(metric) else ' class="more"'
        if figures["mean"] is None:
            cells.append(f"<td{look}>{NOTHING}</td>")
            continue
        low, high = figures["ci95"]
        text = number(metric, figures["mean"])
        if low is not None:
            text += f' <span class="interval">{number(metric, low)}–{number(metric, high)}</span>'
        cells.append(f'<td{look} data-value="{figures["mean"]!r}">{text}</td>')
    return f"<tr>{''.join(cells)}</tr>"


# --- cases ------------------------------------------------------------------------------------


def case_means(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """Mean over the classes of a case, NaN left out; NaN where nothing is left."""
    values: dict[str, list[float]] = {}
    for row in rows:
        known = values.setdefault(str(row["case"]), [])
        value = float(row.get(metric, math.nan))
        known += [] if math.isnan(value) else [value]
    return {case: float(np.mean(known)) if known else math.nan for case, known in values.items()}


def worst_first(rows: Sequence[Row]) -> list[str]:
    """Names of the cases by rising mean Dice, then by name; cases without a Dice last."""
    means = case_means(rows, "dice")
    return sorted(means, key=lambda case: (math.isnan(means[case]), means[case], case))


def cases_table(rows: Sequence[Row], order: Sequence[str], classes: Sequence[str]) -> str:
    """One row a case in `order`: means over classes, then Dice of every class; or all figures where there is one.

    A case's name is a button that opens it: `data-case` is its place in `order`.
    """
    by_case: dict[str, dict[str, Row]] = {name: {} for name in order}
    for row in rows:
        by_case[str(row["case"])][str(row["class"])] = row
    names = [name for name in metric_names(rows) if is_main_figure(name)]
    several = len(classes) > 1
    heads = [_head("Case", is_text=True)]
    for name in names:
        heads.append(_head(f"Mean {label_of(name)}" if several else label_of(name), start=_first(name)))
    heads += [_head(name) for name in classes] if several else [_head("Outcome", is_text=True)]
    means = {name: case_means(rows, name) for name in names}
    lines = []
    for index, case in enumerate(order):
        cells = [
            f'<th scope="row" data-value="{escape(case)}">'
            f'<button type="button" class="open" data-case="{index}">{escape(case)}</button></th>'
        ]
        cells += [_value_cell(name, means[name][case]) for name in names]
        if several:
            cells += [_class_cell(by_case[case].get(name)) for name in classes]
        else:
            outcome = OUTCOMES[str(by_case[case][classes[0]]["outcome"])]
            cells.append(f'<td class="text" data-value="{outcome}">{outcome}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<table class="cases" id="cases-table"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _first(metric: str) -> str:
    return "ascending" if metric == "dice" else ""


def _value_cell(metric: str, value: float) -> str:
    if math.isnan(value):
        return f"<td>{NOTHING}</td>"
    heat = f' class="heat" style="--v:{value:.3f}"' if metric == "dice" else ""
    return f'<td{heat} data-value="{value!r}">{number(metric, value)}</td>'


def _class_cell(row: Row | None) -> str:
    """Dice of one class of a case; what happened instead, where it was not found."""
    if row is None or row["outcome"] == ABSENT:
        return f'<td class="soft">{OUTCOMES[ABSENT]}</td>'
    dice = float(row.get("dice", math.nan))
    if row["outcome"] == FOUND:
        return _value_cell("dice", dice)
    value = "" if math.isnan(dice) else f' data-value="{dice!r}"'
    return f'<td class="heat bad" style="--v:0"{value}>{OUTCOMES[str(row["outcome"])]}</td>'
