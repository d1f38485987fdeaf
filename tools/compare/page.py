"""The comparison as charts (matplotlib) and as one HTML page that loads nothing (Jinja2, `page.html`).

A chart holds, for each metric, the average ranks with their critical difference and the paired differences with
their intervals. It is narrow enough to be read on a phone; the tables of the page give every figure in full.
"""

import re
import warnings
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.compare import text
from tools.compare.statistics import ALL_CLASSES, LEVEL
from tools.compare.text import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, MARK, PAPER = "#1b1f24", "#59636e", "#d1d9e0", "#0b61a4", "#ffffff"
COLOURS = {"ink": INK, "soft": SOFT, "line": LINE, "mark": MARK, "paper": PAPER}
STYLE = {"font.size": 8.5, "text.color": INK, "axes.edgecolor": SOFT, "text.parse_math": False}
STYLE |= {"svg.fonttype": "none", "svg.hashsalt": "0"}  # text stays text; the same figures give the same file
WIDTH, LETTERS = 4.4, 56  # of a chart, in inches; letters that fit into it
MOST_PAIRS = 3  # with more pairs, single classes are left to the tables


class Point(NamedTuple):
    """One line of a panel: a value with its interval (None for no interval), and the same as text."""

    name: str
    value: float
    ends: Sequence[float | None]
    filled: bool
    figures: str


def html_page(comparison: Comparison) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    charts = {metric: _inline(draw(comparison, [metric])) for metric in comparison["ranks"]}
    return page.get_template("page.html").render(comparison=comparison, text=text, charts=charts, colours=COLOURS)


def _inline(svg: str) -> str:
    """A chart as part of a page: its colours are the page's, which may be dark, and its groups have no names."""
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r'<g id="\w+">', "<g>", svg[svg.index("<svg") :])


def draw(comparison: Comparison, metrics: Sequence[str]) -> str:
    """The chart of these metrics as the text of an SVG file."""
    from matplotlib import rc_context

    file = StringIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # letters that matplotlib's font lacks; a browser finds another font
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        chart(comparison, metrics).savefig(file, format="svg", metadata=nothing)
    return file.getvalue()


def chart(comparison: Comparison, metrics: Sequence[str]) -> "Figure":
    """For each metric two panels: the ranks of the settings, and under it the differences of the pairs."""
    from matplotlib.figure import Figure

    points = [(m, rank_points(comparison, m), difference_points(comparison, m)) for m in metrics]
    heights = [len(panel) + 1.2 for _, *both in points for panel in both]
    figure = Figure(figsize=(WIDTH, sum(0.4 * height + 0.45 for height in heights)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.2)  # inches, room for titles and notes, which may be wider than a panel
    axes = iter(figure.subplots(len(heights), height_ratios=heights))
    for metric, ranks, differences in points:
        cases, critical = (comparison["ranks"][metric][key] for key in ("cases", "critical_difference"))
        note = f"bars of two settings that differ do not overlap (critical difference {critical or 0:.2f})"
        title = f"{text.label(metric)}: average rank over {cases} cases (1 is best)"
        _panel(next(axes), ranks, title, note if critical else "", 1)
        side = "right" if comparison["metrics"][metric] == "higher" else "left"
        note = f"{side}: the second is better; filled: p (Holm) < {LEVEL}"
        _panel(next(axes), differences, "difference, second minus first, with its 95 % interval", note, 0)
    return figure


def rank_points(comparison: Comparison, metric: str) -> list[Point]:
    """One for each setting, the best first; settings whose intervals do not overlap differ (Nemenyi)."""
    ranking = comparison["ranks"][metric]
    half = (ranking["critical_difference"] or 0) / 2
    order = sorted(ranking["average"].items(), key=lambda item: item[1]) if ranking["cases"] else []
    return [Point(name, rank, (rank - half, rank + half), True, f"{rank:.2f}") for name, rank in order]


def difference_points(comparison: Comparison, metric: str) -> list[Point]:
    """One for each pair, filled where p < 0.05 after Holm's correction."""
    rows = [row for row in comparison["pairs"] if row["metric"] == metric and row["difference"] is not None]
    overall = [row for row in rows if row["class_name"] == ALL_CLASSES]
    points, factor = [], text.scale(metric)
    for row in rows if len(overall) <= MOST_PAIRS else overall:
        prefix = "" if row["class_name"] == ALL_CLASSES else f"{row['class_name']}: "
        ends = [None if end is None else end * factor for end in row["ci95"]]
        figures = f"{text.with_interval(row['difference'], row['ci95'], factor, '+')}, p {text.p_text(row['p_holm'])}"
        name = f"{prefix}{row['first']} → {row['second']}"
        points.append(Point(name, row["difference"] * factor, ends, text.is_significant(row), figures))
    return points


def _panel(ax: "Axes", points: Sequence[Point], title: str, note: str, reference: float) -> None:
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
