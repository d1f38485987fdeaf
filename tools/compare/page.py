"""The comparison as charts (matplotlib) and as one HTML page that loads nothing (Jinja2, `page.html`).

A chart holds, for each metric, the average ranks with their critical difference and the paired differences with
their intervals. It is narrow enough for a phone. The tables of the page give every figure in full.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.compare import text
from tools.compare.statistics import ALL_CLASSES, LEVEL
from tools.compare.text import Comparison
from tools.output import fill, svg_of
from utils.results.table import WORDS, label, scale_of, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, MARK, PAPER = "#1b1f24", "#59636e", "#d1d9e0", "#0b61a4", "#ffffff"
COLOURS = {"ink": INK, "soft": SOFT, "line": LINE, "mark": MARK, "paper": PAPER}
STYLE = {"font.size": 8.5, "text.color": INK, "axes.edgecolor": SOFT, "text.parse_math": False}
WIDTH, LETTERS = 4.4, 56  # of a chart, in inches; letters that fit into it
MOST_PAIRS = 3  # with more pairs, single classes are left to the tables

Point = tuple[str, float, Sequence[float | None], bool, str]  # name, value, interval, whether filled, figures as text


def html_page(comparison: Comparison) -> str:
    """The page; its charts take its colours, which may be dark, and their groups have no names."""
    charts = {}
    for metric in comparison["ranks"]:
        svg = draw(comparison, [metric])
        for name, colour in COLOURS.items():
            svg = svg.replace(colour, f"var(--{name})")
        charts[metric] = re.sub(r'<g id="\w+">', "<g>", svg[svg.index("<svg") :])
    facts = {"comparison": comparison, "text": text, "words": WORDS, "charts": charts, "colours": COLOURS}
    return fill(Path(__file__).with_name("page.html"), facts, autoescape=True)


def draw(comparison: Comparison, metrics: Sequence[str]) -> str:
    """The chart of these metrics as the text of an SVG file."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        return svg_of(chart(comparison, metrics))


def chart(comparison: Comparison, metrics: Sequence[str]) -> "Figure":
    """For each metric two panels: the ranks of the settings, and under it the differences of the pairs."""
    from matplotlib.figure import Figure

    panels = [panel for metric in metrics for panel in (_ranks(comparison, metric), _differences(comparison, metric))]
    heights = [len(points) + 1.2 for points, *_ in panels]
    figure = Figure(figsize=(WIDTH, sum(0.4 * height + 0.45 for height in heights)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.2)  # inches, room for titles and notes, which may be wider than a panel
    for ax, panel in zip(figure.subplots(len(heights), height_ratios=heights), panels):
        _draw_panel(ax, *panel)
    return figure


def _ranks(comparison: Comparison, metric: str) -> tuple[list[Point], str, str, float]:
    """Points, title, note and reference of the settings' ranks. Bars that do not overlap: they differ (Nemenyi)."""
    ranking = comparison["ranks"][metric]
    critical = ranking["critical_difference"] or 0
    order = text.ordered(ranking) if ranking["groups"] else []
    units = "cases" if comparison["over"] == "cases" else "groups"
    points = [(name, rank, (rank - critical / 2, rank + critical / 2), True, f"{rank:.2f}") for name, rank in order]
    note = f"bars of two settings that differ do not overlap (critical difference {critical:.2f})" if critical else ""
    return points, f"{label(metric)}: average rank over {ranking['groups']} {units} (1 is best)", note, 1


def _differences(comparison: Comparison, metric: str) -> tuple[list[Point], str, str, float]:
    """Points, title, note and reference of the pairs' differences."""
    rows = [row for row in comparison["pairs"] if row["metric"] == metric and row["difference"] is not None]
    overall = [row for row in rows if row["class_name"] == ALL_CLASSES]
    points, factor = [], scale_of(metric)
    for row in rows if len(overall) <= MOST_PAIRS else overall:
        prefix = "" if row["class_name"] == ALL_CLASSES else f"{row['class_name']}: "
        ends = [None if end is None else end * factor for end in row["ci95"]]
        figures = f"{with_interval(row['difference'], row['ci95'], factor, '+')}, p {text.p_text(row['p_holm'])}"
        name = f"{prefix}{row['first']} → {row['second']}"
        points.append((name, row["difference"] * factor, ends, text.is_significant(row), figures))
    side = "right" if comparison["metrics"][metric] == "higher" else "left"
    note = f"{side}: the second is better; filled: p (Holm) < {LEVEL}"
    return points, "difference, second minus first, with its 95 % interval", note, 0


def _draw_panel(ax: "Axes", points: Sequence[Point], title: str, note: str, reference: float) -> None:
    """Draw the points from top to bottom: the name above its interval, the figures to the right."""
    ax.set_title(title, loc="left", fontsize=9, fontweight="bold").set_in_layout(False)
    ax.set_xlabel(note, loc="left", color=SOFT).set_in_layout(False)
    ax.set(ylim=(len(points) - 0.6, -0.8), yticks=[])
    ax.patch.set_visible(False)
    ax.spines[["left", "top", "right"]].set_visible(False)
    ax.tick_params(color=SOFT, labelcolor=SOFT)
    ax.axvline(reference, color=LINE, zorder=0)
    side = ax.get_yaxis_transform()  # x from 0 at the left edge to 1 at the right edge, y as the points
    for y, (name, value, ends, filled, figures) in enumerate(points):
        if ends[0] is not None:
            ax.plot(ends, (y, y), color=MARK, linewidth=1.5)
        ax.plot(value, y, "o", color=MARK, markerfacecolor=MARK if filled else PAPER, markersize=5)
        short = name if len(name) <= LETTERS else f"{name[: LETTERS // 2 - 1]}…{name[-LETTERS // 2 :]}"
        behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 0}
        ax.text(0, y - 0.42, short, transform=side, va="center", bbox=behind).set_in_layout(False)
        ax.text(1.03, y, figures, transform=side, va="center", color=SOFT)
