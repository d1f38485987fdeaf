"""How the figures spread over the cases, drawn by matplotlib as SVG for the page.

A drawing takes the page's colour of text, so it suits light and dark, and the page's fonts.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from utils.errors import counted
from utils.results.overlay import class_color
from utils.results.page.words import is_main_figure, label_of, number
from utils.results.summary import metric_names
from utils.results.table import IN_PERCENT, scale_of
from utils.scoring.protocols import Row, kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 300  # drawn for one class; of more cases, as many spread evenly over the sorted figures
LONGEST_NAME = 22  # letters of a name in a chart
WIDTH = 5  # inches
INK = "#010203"  # stands for the page's colour of text
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color", "xtick.color", "ytick.color")
STYLE = {"svg.fonttype": "none", "text.parse_math": False, "font.size": 11, **dict.fromkeys(INKED, INK)}
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
Chart = tuple[str, str]  # title, SVG
Values = list[tuple[float, int]]  # a figure and the place of its case in the page


def spread_charts(rows: Sequence[Row], summary: Mapping[str, Any], order: Sequence[str]) -> list[Chart]:
    """A chart for every main figure that has a value: for each class its cases, quartiles, mean and interval.

    in: order: names of the cases as the page numbers them
    """
    places = {name: place for place, name in enumerate(order)}
    charts = []
    for metric in filter(is_main_figure, metric_names(rows)):
        values: dict[str, Values] = {name: [] for name in summary["classes"]}
        for row in rows:
            if not math.isnan(value := float(row.get(metric, math.nan))):
                values[str(row["class"])].append((value, places[str(row["case"])]))
        if any(values.values()):
            charts.append(_spread_chart(metric, values, summary["classes"], order))
    return charts


def _spread_chart(metric: str, values: Mapping[str, Values], classes: Mapping[str, Any], order: Sequence[str]) -> Chart:
    figure, axes = new_figure(0.6 + 0.42 * len(values))
    points: list[tuple[int, str]] = []
    spoken = []
    for y, (name, found) in enumerate(values.items()):
        spoken.append(f"{name}: {counted(len(found), 'case')}")
        if not found:
            continue
        found.sort()
        chosen = np.linspace(0, len(found) - 1, min(len(found), MOST_POINTS)).round().astype(int)
        shown = [found[i] for i in chosen]
        quartiles = _draw_row(axes, y, found, shown, len(points))
        spoken[-1] += f", quartiles {', '.join(number(metric, one) for one in quartiles)}"
        points += [(place, f"{order[place]}: {number(metric, value)}") for value, place in shown]
        mean, interval = (classes[name]["metrics"][metric][key] for key in ("mean", "ci95"))
        axes.plot(mean, y + 0.34, "D", color=INK, markersize=4)
        if interval[0] is not None:
            axes.hlines(y + 0.34, *interval, INK, linewidth=1.5)
    axes.set_yticks(range(len(values)), [short(name) for name in values])
    axes.set_ylim(len(values) - 0.45, -0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    low, high = axes.get_xlim()
    if kind_of(metric) in IN_PERCENT:  # the axis may begin below 0, but its numbers do not
        axes.set_xticks([tick for tick in axes.get_xticks().round(9) if max(low, 0) <= tick <= min(high, 1)])
        axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * scale_of(metric):g}")
    return label_of(metric), inline_svg(figure, f"{label_of(metric)}. {'; '.join(spoken)}", points)


def _draw_row(axes: "Axes", y: int, found: Values, shown: Values, link: int) -> tuple[float, float, float]:
    """Draw box and whiskers at height `y` and the points to be shown, linked from `link` on; returns the quartiles."""
    low, median, high = np.quantile([value for value, _ in found], (0.25, 0.5, 0.75))
    reach = 1.5 * (high - low)
    inside = [value for value, _ in found if low - reach <= value <= high + reach]
    color = color_of(y + 1)
    axes.hlines(y, min(inside), max(inside), INK, linewidth=1, alpha=0.5)
    axes.barh(y, high - low, 0.4, left=low, color=color, alpha=0.35, edgecolor=INK, linewidth=0.8)
    axes.vlines(median, y - 0.2, y + 0.2, INK, linewidth=2)
    # Steps of the golden ratio keep points of nearly the same value apart.
    heights = [y + (rank * 0.618 % 1 - 0.5) * 0.4 for rank in range(len(shown))]
    links = [str(link + rank) for rank in range(len(shown))]
    axes.scatter([value for value, _ in shown], heights, 18, color, edgecolors=INK, linewidths=0.5, urls=links)
    return low, median, high


def new_figure(height: float) -> tuple["Figure", "Axes"]:
    """An empty drawing of `height` inches in the style of the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure((WIDTH, height), layout="constrained")
        axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.15)
    axes.set_axisbelow(True)
    axes.use_sticky_edges = False  # room for points at the end of a box
    return figure, axes


def inline_svg(figure: "Figure", label: str, points: Sequence[tuple[int, str]] = ()) -> str:
    """The drawing as an SVG element of an HTML page; `label` describes it to screen readers.

    A point with the link "i" takes the case and the tooltip of points[i].
    """
    from matplotlib import rc_context

    file = BytesIO()
    with rc_context(STYLE | {"svg.hashsalt": label}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has letters that matplotlib lacks
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for path in (f"{SVG}metadata", f"{SVG}defs/{SVG}style"):
        root.find(path).clear()
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)  # HTML needs no namespace
        link = element.attrib.pop(LINK, None)
        if element.tag == "a":
            case, title = points[int(link)]
            element.tag, element.attrib = "g", {"data-case": str(case)}
            ElementTree.SubElement(element, "title").text = title
        elif element.tag == "g":
            element.attrib.pop("id", None)  # the same in every drawing
        elif link is not None:
            element.set("href", link)
    root.attrib = {"viewBox": root.get("viewBox"), "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode").replace(INK, "currentColor")


def short(name: str) -> str:
    """A name that fits into a drawing: printable letters, not too many."""
    name = "".join(letter for letter in name if letter.isprintable())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def color_of(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))
