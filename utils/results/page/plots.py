"""Box and strip plots per class, and training curves, as HTML with small SVG drawings.

Drawings are fluid: x in percent of whatever width the page has, heights in pixels, words in HTML; so they are
legible on a phone and need no script.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from utils.results.overlay import class_color
from utils.results.page.words import is_main_figure, kind_of, label_of, number, scale_of
from utils.results.summary import metric_names
from utils.results.table import IN_PERCENT
from utils.scoring.protocols import Row

ROW_HEIGHT, MIDDLE, MEAN_AT = 46, 18, 37
MOST_POINTS = 400  # drawn in one row; of more cases, as many spread evenly over the sorted figures
EDGE = 1.5  # percent of the width left free at both ends
WHISKER = 1.5  # interquartile ranges


def box_plots(rows: Sequence[Row], summary: dict[str, Any], order: Sequence[str]) -> str:
    """A figure for every main metric: a row a class with a point a case, quartiles, mean and its interval."""
    names = [name for name in metric_names(rows) if is_main_figure(name)]
    return "".join(_box_plot(name, rows, summary, order) for name in names)


def _box_plot(metric: str, rows: Sequence[Row], summary: dict[str, Any], order: Sequence[str]) -> str:
    values = {name: [] for name in summary["classes"]}
    for row in rows:
        value = float(row.get(metric, math.nan))
        if not math.isnan(value):
            values[str(row["class"])].append((value, order.index(str(row["case"])), str(row["case"])))
    known = [value for points in values.values() for value, _, _ in points]
    if not known:
        return ""
    ticks = nice_ticks(min(known), max(known), within_one=kind_of(metric) in IN_PERCENT)
    lines = []
    for label, (name, points) in enumerate(values.items(), 1):
        mark = f'<div class="plot-label">{escape(name)}</div>'
        lines.append(mark + _box_row(metric, name, label, sorted(points), summary["classes"][name], ticks))
    axis = "".join(
        f'<text x="{_x(t, ticks)}" y="13">{t * scale_of(metric):g}</text>' for t in ticks
    )  # the last row of the grid
    lines.append(f'<div></div><svg class="axis" height="18" aria-hidden="true">{axis}</svg>')
    left_out = max(len(points) for points in values.values()) > MOST_POINTS
    note = f" Of more than {MOST_POINTS} cases, {MOST_POINTS} evenly spread ones are drawn." if left_out else ""
    return (
        f'<figure class="plot" data-name="{escape(label_of(metric))}"><figcaption><b>{escape(label_of(metric))}.</b> '
        "A point is a case; the box spans the quartiles around the median, the diamond is the mean with its "
        f'95 % interval.{note}</figcaption><div class="plot-grid">{"".join(lines)}</div></figure>'
    )


def _box_row(metric: str, name: str, label: int, points: list, entry: dict[str, Any], ticks: list[float]) -> str:
    grid = "".join(f'<line class="grid" x1="{_x(t, ticks)}" x2="{_x(t, ticks)}" y1="0" y2="100%"/>' for t in ticks)
    if not points:
        return f'<svg class="row" height="{ROW_HEIGHT}" role="img" aria-label="{escape(name)}: no case">{grid}</svg>'
    figures = np.array([value for value, _, _ in points])
    low, median, high = np.quantile(figures, (0.25, 0.5, 0.75))
    inside = figures[(figures >= low - WHISKER * (high - low)) & (figures <= high + WHISKER * (high - low))]
    middle, half = MIDDLE, 9
    x = {key: _x(v, ticks) for key, v in (("low", low), ("median", median), ("high", high))}
    start, end, mean = (_x(v, ticks) for v in (inside.min(), inside.max(), entry["metrics"][metric]["mean"]))
    width = f"{float(x['high'][:-1]) - float(x['low'][:-1]):.2f}%"
    parts = [
        grid,
        f'<line class="whisker" x1="{start}" x2="{end}" y1="{middle}" y2="{middle}"/>',
        f'<rect class="box" x="{x["low"]}" y="{middle - half}" width="{width}" height="{2 * half}" rx="2"/>',
        f'<line class="median" x1="{x["median"]}" x2="{x["median"]}" y1="{middle - half}" y2="{middle + half}"/>',
    ]
    drawn = points
    if len(points) > MOST_POINTS:
        drawn = [points[i] for i in np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)]
    for rank, (value, index, case) in enumerate(drawn):
        y = middle + (rank * 0.618 % 1 - 0.5) * 18  # spread by the golden ratio: near figures lie apart
        title = f"<title>{escape(case)}: {number(metric, value)}</title>"
        parts.append(f'<circle cx="{_x(value, ticks)}" cy="{y:.1f}" r="3.5" data-case="{index}">{title}</circle>')
    ci = entry["metrics"][metric]["ci95"]
    if ci[0] is not None:
        parts.append(
            f'<line class="ci" x1="{_x(ci[0], ticks)}" x2="{_x(ci[1], ticks)}" y1="{MEAN_AT}" y2="{MEAN_AT}"/>'
        )
    parts.append(f'<svg class="mean" x="{mean}" y="{MEAN_AT}"><path d="M0-4 4 0 0 4-4 0z"/></svg>')
    spoken = ", ".join(f"{key} {number(metric, v)}" for key, v in (("median", median), ("from", low), ("to", high)))
    return (
        f'<svg class="row" height="{ROW_HEIGHT}" style="--class:rgb{class_color(label)}" role="img" '
        f'aria-label="{escape(name)}: {spoken}, {len(points)} cases">{"".join(parts)}</svg>'
    )


def nice_ticks(low: float, high: float, within_one: bool = False) -> list[float]:
    """Three to seven round numbers around [low, high], which may be one number; not beyond 0 and 1 for a score."""
    largest = max(abs(low), abs(high))
    if high - low <= 1e-6 * largest:
        low, high = low - 0.1 * largest, high + (0.1 * largest or 1.0)
    span = high - low
    magnitude = 10 ** math.floor(math.log10(span / 5))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10, 20) if span / (m * magnitude) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last += first == last
    ticks = [round(i * step, 12) for i in range(first, last + 1)]
    return [t for t in ticks if 0 <= t <= 1] if within_one else ticks


def _x(value: float, ticks: Sequence[float]) -> str:
    return f"{EDGE + (100 - 2 * EDGE) * (value - ticks[0]) / (ticks[-1] - ticks[0]):.2f}%"
