"""Training curves from the history.csv beside a checkpoint, as fluid SVG."""

import csv
from collections.abc import Iterable
from html import escape
from pathlib import Path

from utils.results.overlay import class_color
from utils.results.page.plots import nice_ticks

HEIGHT = 170
DICE = "dice "
Points = list[tuple[float, float]]


def read_history(path: Path) -> dict[str, Points]:
    """Column -> (epoch, value) where there is a value; empty for a file that is none of ours."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, Points] = {}
    for row in rows:
        x = _number(row.get("epoch"))
        for name, text in row.items():
            y = _number(text) if name not in (None, "epoch") else None
            if x is not None and y is not None:
                found.setdefault(name, []).append((x, y))
    return found


def read_histories(checkpoints: Iterable[Path]) -> dict[str, dict[str, Points]]:
    """Name of each training folder that has a history.csv -> its columns; released weights have none."""
    files = dict.fromkeys(path.resolve().parent / "history.csv" for path in checkpoints)
    return {file.parent.name: read_history(file) for file in files if file.is_file()}


def curves(histories: dict[str, dict[str, Points]]) -> str:
    """Loss, validation Dice and learning rate over the epochs; a line a run, classes too where there is one run.

    in: name of a run -> its columns, as `read_history` gives them
    """
    single = len(histories) == 1
    loss = {name: one["loss"] for name, one in histories.items() if "loss" in one}
    rate = {name: one["lr"] for name, one in histories.items() if "lr" in one}
    dice = {name: one["mean_dice"] for name, one in histories.items() if "mean_dice" in one}
    classes = {}
    if single:
        columns = next(iter(histories.values()))
        classes = {name.removeprefix(DICE): p for name, p in columns.items() if name.startswith(DICE)}
        classes = classes if len(classes) > 1 else {}
    return (
        _panel("Training loss", loss, {}, single)
        + _panel("Validation Dice, %", dice, classes, single, scale=100)
        + _panel("Learning rate", rate, {}, single)
    )


def _panel(title: str, lines: dict[str, Points], classes: dict[str, Points], single: bool, scale: float = 1) -> str:
    every = [point for points in (*lines.values(), *classes.values()) for point in points]
    if not every:
        return ""
    ticks = nice_ticks(min(y for _, y in every), max(y for _, y in every))
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    last += first == last
    grid, words, drawn = [], [], []
    for tick in ticks:
        y = 100 * (1 - _part(tick, ticks[0], ticks[-1]))
        grid.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/>')
        words.append(f'<text x="100%" y="{y:.2f}%" dy="4">{tick * scale:.4g}</text>')
    styles = [(name, points, "thin", class_color(i)) for i, (name, points) in enumerate(classes.items(), 1)]
    styles += [(n, p, "main", None if single else class_color(i)) for i, (n, p) in enumerate(lines.items(), 1)]
    for name, points, look, color in styles:
        points = points * 2 if len(points) == 1 else points  # one epoch is a dot
        path = " ".join(
            f"{100 * _part(x, first, last):.2f},{100 * (1 - _part(y, ticks[0], ticks[-1])):.2f}" for x, y in points
        )
        stroke = f' style="stroke:rgb{color}"' if color else ""
        drawn.append(f'<polyline class="{look}"{stroke} points="{path}"><title>{escape(name)}</title></polyline>')
    key = ""
    if classes or not single:
        marks = [(n, c) for n, _, _, c in styles if c]
        key = "".join(f'<li><span class="swatch" style="background:rgb{c}"></span>{escape(n)}</li>' for n, c in marks)
        key = f'<ul class="key">{"<li><span class=line></span>mean</li>" if single else ""}{key}</ul>'
    ends = ", ".join(f"{name} ends at {points[-1][1] * scale:.4g}" for name, points in lines.items() if points)
    spoken = escape(f"{title} over epochs; {ends}")
    return (
        f'<figure class="curve"><figcaption><b>{escape(title)}</b></figcaption><div class="curve-grid">'
        f'<svg class="ticks" height="{HEIGHT}" aria-hidden="true">{"".join(words)}</svg>'
        f'<svg class="frame" height="{HEIGHT}" role="img" aria-label="{spoken}">{"".join(grid)}'
        f'<svg width="100%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none">{"".join(drawn)}</svg></svg>'
        f'<div></div><div class="epochs"><span>epoch {first:g}</span><span>{last:g}</span></div></div>{key}</figure>'
    )


def _part(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return None if value != value or abs(value) == float("inf") else value
