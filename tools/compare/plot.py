"""The comparison drawn as one SVG: for each metric the average ranks (after Demšar), then differences with intervals.

All lengths in pixels, y downwards. A panel is drawn from its own top; it returns its parts and its height.
"""

from collections.abc import Callable
from html import escape
from typing import Any

from tools.compare.statistics import ALL_CLASSES, LEVEL, alike
from tools.compare.text import label, p_text, scale, with_interval

WIDTH, MARGIN, LETTER = 760, 16, 6.6  # LETTER: width of a letter of 12 px, roughly
MOST_PAIRS = 3  # with more, single classes are left to the tables
STYLE = """
  .paper { fill: #ffffff } .ink { fill: #1b1f24 } .faint { fill: #59636e } .line { stroke: #1b1f24 }
  .grid { stroke: #d1d9e0 } .mark { fill: #0b61a4; stroke: #0b61a4 } .hollow { fill: #ffffff; stroke: #0b61a4 }
  .bar { stroke: #b35900 }
  text { font: 12px system-ui, "DejaVu Sans", sans-serif } .title { font-size: 14px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #14181d } .ink { fill: #e6edf3 } .faint { fill: #9aa6b2 } .line { stroke: #e6edf3 }
    .grid { stroke: #3a444f } .mark { fill: #6cb6ff; stroke: #6cb6ff } .hollow { fill: #14181d; stroke: #6cb6ff }
    .bar { stroke: #ffa657 }
  }"""


def draw(comparison: dict[str, Any]) -> str:
    """The whole picture; a note instead of panels where there is only one setting."""
    parts: list[str] = []
    y = MARGIN
    for metric in comparison["ranks"]:
        better = comparison["metrics"][metric]
        parts.append(text(MARGIN, y + 14, f"{label(metric)}, {better} is better", "ink title"))
        y += 26
        for panel in (rank_panel, difference_panel):
            more, height = panel(comparison, metric, y)
            parts += more
            y += height + 18
    if not parts:
        parts.append(text(MARGIN, y + 14, "one setting: nothing to rank", "ink"))
        y += 30
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" height="{y:.0f}" '
            'role="img" aria-label="Average ranks and paired differences of the settings compared">',
            f"<style>{STYLE}\n</style>",
            f'<rect class="paper" width="{WIDTH}" height="{y:.0f}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def rank_panel(comparison: dict[str, Any], metric: str, top: float) -> tuple[list[str], float]:
    """An axis from rank 1 to T with every setting's average; a bar joins settings that do not differ (Nemenyi)."""
    ranking = comparison["ranks"][metric]
    average, critical = ranking["average"], ranking["critical_difference"]
    if not ranking["cases"]:
        return [text(MARGIN, top + 14, "no ranks: no case has a figure in every setting", "faint")], 22
    order = sorted(average, key=average.__getitem__)
    names = max(150.0, min(250.0, max(map(len, order)) * LETTER + 60))
    x = _axis((1, len(order)), (names, WIDTH - names))
    parts = [text(WIDTH / 2, top + 10, f"average rank over {ranking['cases']} cases (1 is best)", "faint", "middle")]
    y = top + (54 if critical is not None else 38)
    if critical is not None:
        end = x(1 + min(critical, len(order) - 1))
        more = " (longer than the axis)" if critical > len(order) - 1 else ""
        parts.append(line(x(1), y - 28, end, y - 28, "bar", 3))
        parts.append(text(end + 6, y - 24, f"critical difference {critical:.2f}{more}", "faint"))
    parts.append(line(x(1), y, x(len(order)), y, "line", 1.2))
    for tick in range(1, len(order) + 1):
        parts += [line(x(tick), y - 4, x(tick), y + 4, "line"), text(x(tick), y - 9, str(tick), "faint", "middle")]
    groups = [] if critical is None else alike(average, critical)
    for i, group in enumerate(groups):
        ends = [x(average[name]) for name in (group[0], group[-1])]
        parts.append(line(ends[0] - 4, y + 12 + 6 * i, ends[1] + 4, y + 12 + 6 * i, "bar", 3))
    first, half = y + 24 + 6 * len(groups), (len(order) + 1) // 2
    for i, name in enumerate(order):
        left = i < half
        row = first + 18 * (i if left else len(order) - 1 - i)
        edge, anchor = (names - 12, "end") if left else (WIDTH - names + 12, "start")
        at = x(average[name])
        parts.append(f'<path class="grid" fill="none" d="M{at:.1f} {y:.1f} V{row:.1f} H{edge:.1f}"/>')
        parts.append(f'<circle class="mark" cx="{at:.1f}" cy="{y:.1f}" r="4"/>')
        shown = f"{shorten(name, names - 60)} · {average[name]:.2f}"
        parts.append(text(edge - 4 if left else edge + 4, row + 4, shown, "ink", anchor, name))
    return parts, first + 18 * (half - 1) + 12 - top


def difference_panel(comparison: dict[str, Any], metric: str, top: float) -> tuple[list[str], float]:
    """A row for each pair: the mean difference with its interval, filled where p < 0.05 after Holm's correction."""
    rows = [row for row in comparison["pairs"] if row["metric"] == metric and row["difference"] is not None]
    overall = [row for row in rows if row["class_name"] == ALL_CLASSES]
    rows = rows if len(overall) <= MOST_PAIRS else overall
    if not rows:
        return [text(MARGIN, top + 14, "no case has a figure in both settings of any pair", "faint")], 22
    factor = scale(metric)
    ends = [abs(v) * factor for row in rows for v in (row["difference"], *row["ci95"]) if v is not None]
    reach = max(*ends, 1e-9) * 1.08
    x = _axis((-reach, reach), (290, WIDTH - 220))
    side = "right" if comparison["metrics"][metric] == "higher" else "left"
    caption = f"difference, 95 % interval: on the {side} the second is better; filled: p (Holm) < {LEVEL}"
    parts = [text(WIDTH / 2, top + 10, caption, "faint", "middle")]
    y = top + 30
    bottom = y + 20 * len(rows) - 6
    parts.append(line(x(0), y - 10, x(0), bottom, "grid", 1.5))
    for row in rows:
        whole = row["class_name"] == ALL_CLASSES
        name = f"{row['first']} → {row['second']}"
        name = name if whole else f"{row['class_name']}: {name}"
        parts.append(text(MARGIN + (0 if whole else 12), y + 4, shorten(name, 250), "ink", "start", name))
        if row["ci95"][0] is not None:
            low, high = (x(v * factor) for v in row["ci95"])
            parts.append(line(low, y, high, y, "mark", 2))
        kind = "mark" if row["p_holm"] is not None and row["p_holm"] < LEVEL else "hollow"
        parts.append(f'<circle class="{kind}" cx="{x(row["difference"] * factor):.1f}" cy="{y:.1f}" r="4"/>')
        figures = with_interval(row["difference"], row["ci95"], factor, sign="+")
        parts.append(text(WIDTH - 210, y + 4, f"{figures} · p {p_text(row['p_holm'])}", "faint"))
        y += 20
    parts.append(line(x(-reach), bottom, x(reach), bottom, "line"))
    for value in (-reach / 1.08, 0, reach / 1.08):
        parts.append(text(x(value), bottom + 15, f"{value:+.3g}" if value else "0", "faint", "middle"))
    return parts, bottom + 20 - top


# --- marks ---------------------------------------------------------------------------------------


def _axis(values: tuple[float, float], pixels: tuple[float, float]) -> Callable[[float], float]:
    slope = (pixels[1] - pixels[0]) / (values[1] - values[0])
    return lambda value: pixels[0] + (value - values[0]) * slope


def line(x1: float, y1: float, x2: float, y2: float, kind: str, width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {ends} stroke-width="{width:g}"/>'


def text(x: float, y: float, words: str, kind: str, anchor: str = "start", full: str | None = None) -> str:
    """A line of text; `full` is shown on hover where `words` had to be shortened."""
    title = f"<title>{escape(full)}</title>" if full else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{title}{escape(words)}</text>'


def shorten(words: str, width: float) -> str:
    """As much of `words` as fits into `width` pixels, the middle left out."""
    room = max(int(width / LETTER), 5)
    if len(words) <= room:
        return words
    return f"{words[: (room - 1) // 2]}…{words[len(words) - room // 2 :]}"
