"""The summary of a test run as text for the terminal."""

from typing import Any

from utils.scoring.protocols import kind_of

SHOWN = ("dice", "iou", "hd95", "nsd", "precision", "recall", "f1", "boundary_f1")
IN_PERCENT = ("dice", "iou", "nsd", "precision", "recall", "f1", "boundary_f1", "accuracy", "specificity")


def scale_of(metric: str) -> int:
    """What a figure is multiplied by to be shown: 100 for a score in percent."""
    return 100 if kind_of(metric) in IN_PERCENT else 1


def format_table(summary: dict[str, Any]) -> str:
    """One line a class and the mean over classes: mean [95 % interval], scores in percent, distances with unit.

    `n` is the number of cases that have the class or a prediction of it.
    """
    names = [name for name in summary["overall"]["metrics"] if kind_of(name) in SHOWN]
    percent = [f"{name} %" if kind_of(name) in IN_PERCENT else name for name in names]
    header = ["class", "n", "missed", "false pos.", *percent]
    lines = [_line(name, entry, names) for name, entry in summary["classes"].items()]
    if len(lines) > 1:
        lines.append(_line("mean", summary["overall"], names))
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    sides = "<" + ">" * (len(header) - 1)
    texts = ["  ".join(f"{c:{s}{w}}" for c, s, w in zip(line, sides, widths)) for line in [header, *lines]]
    texts.insert(1, "-" * len(texts[0]))
    if len(lines) > 1:
        texts.insert(-1, texts[1])
    rules = f"protocol {summary['protocol']}, {summary['num_cases']} cases"
    chosen = f"checkpoint chosen by: {summary['selection']}; mean [95 % interval over cases]"
    return "\n".join([rules, chosen, "", *texts])


def _line(name: str, entry: dict[str, Any], names: list[str]) -> list[str]:
    involved = entry["found"] + entry["missed"] + entry["false_positive"]
    cells = [name, str(involved), str(entry["missed"]), str(entry["false_positive"])]
    for metric in names:
        scale = scale_of(metric)
        figures = entry["metrics"][metric]
        if figures["mean"] is None:
            cells.append("-")
            continue
        low, high = figures["ci95"]
        text = f"{figures['mean'] * scale:.2f}"
        cells.append(text if low is None else f"{text} [{low * scale:.2f}, {high * scale:.2f}]")
    return cells
