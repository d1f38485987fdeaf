"""Figures as text: the summary of a test run for the terminal, and what other tables share with it."""

from collections.abc import Sequence
from typing import Any

from utils.scoring.protocols import kind_of

SHOWN = ("dice", "iou", "hd95", "nsd", "precision", "recall", "f1", "boundary_f1")
IN_PERCENT = ("dice", "iou", "nsd", "precision", "recall", "f1", "boundary_f1", "accuracy", "specificity")
WORDS = ("class", "setting", "network", "pair", "results")  # titles of columns of words; the others hold numbers


def scale_of(metric: str) -> int:
    """What a figure is multiplied by to be shown: 100 for a score in percent."""
    return 100 if kind_of(metric) in IN_PERCENT else 1


def label(metric: str) -> str:
    return f"{metric} %" if kind_of(metric) in IN_PERCENT else metric


def format_table(summary: dict[str, Any]) -> str:
    """One line a class and the mean over classes: mean [95 % interval], scores in percent, distances with unit.

    `n` is the number of cases that have the class or a prediction of it.
    """
    names = [name for name in summary["overall"]["metrics"] if kind_of(name) in SHOWN]
    header = ["class", "n", "missed", "false pos.", *map(label, names)]
    lines = [_line(name, entry, names) for name, entry in summary["classes"].items()]
    if len(lines) > 1:
        lines.append(_line("mean", summary["overall"], names))
    texts = align([header, *lines])
    texts.insert(1, "-" * len(texts[0]))
    if len(lines) > 1:
        texts.insert(-1, texts[1])
    rules = f"protocol {summary['protocol']}, {summary['num_cases']} cases"
    resampled = summary["interval"].removeprefix("bootstrap over ").partition(", 95 %")[0]
    chosen = f"checkpoint chosen by: {summary['selection']}; mean [95 % interval over {resampled}]"
    return "\n".join([rules, chosen, "", *texts])


def _line(name: str, entry: dict[str, Any], names: list[str]) -> list[str]:
    involved = entry["found"] + entry["missed"] + entry["false_positive"]
    figures = [(metric, entry["metrics"][metric]) for metric in names]
    means = [with_interval(one["mean"], one["ci95"], scale_of(metric)) for metric, one in figures]
    return [name, str(involved), str(entry["missed"]), str(entry["false_positive"]), *means]


def with_interval(value: float | None, ci95: Sequence, factor: float, sign: str = "", sd: float | None = None) -> str:
    """`86.51 ± 1.02 [84.48, 88.46]`, without the parts that are None; a dash for no value."""
    if value is None:
        return "-"
    text = f"{value * factor:{sign}.2f}" + ("" if sd is None else f" ± {sd * factor:.2f}")
    return text if ci95[0] is None else f"{text} [{ci95[0] * factor:{sign}.2f}, {ci95[1] * factor:{sign}.2f}]"


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, two spaces apart: words to the left, numbers to the right; titles in the first line."""
    widths = [max(map(len, column)) for column in zip(*table)]
    sides = ["<" if title in WORDS else ">" for title in table[0]]
    return ["  ".join(f"{cell:{s}{w}}" for cell, s, w in zip(line, sides, widths)).rstrip() for line in table]
