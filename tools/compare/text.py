"""The comparison as text for the terminal, and the tables, words and numbers that the page shares with it."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from tools.compare.statistics import ALL_CLASSES, LEVEL
from utils.results.table import IN_PERCENT
from utils.scoring.protocols import kind_of

Comparison = dict[str, Any]
Table = list[list[str]]  # the first line holds the titles
WORDS = ("class", "setting", "pair", "results")  # titles of columns of words; the others hold numbers


def text_report(comparison: Comparison) -> str:
    """Rules, means of every setting, and for two or more settings the pairs and ranks of each metric."""
    blocks = [[heading(comparison)], align(settings_table(comparison)), align(means_table(comparison))]
    for metric in comparison["ranks"]:
        pairs = align(pairs_table(comparison, metric))
        blocks.append([title(comparison, metric), *pairs, ranks_line(comparison, metric)])
    if comparison["pairs"]:
        blocks.append([comparison["methods"]])
    blocks.append([f"warning: {text}" for text in comparison["warnings"]])
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def heading(comparison: Comparison) -> str:
    size = "x".join(map(str, comparison["img_size"]))
    data = comparison["dataset"] or comparison["recipe"] or "data not named"
    return (
        f"protocol {comparison['protocol']}, {data}, {comparison['cases']} cases, input {size}, "
        f"split: {comparison['split']}"
    )


def title(comparison: Comparison, metric: str) -> str:
    return f"{label(metric)}: {comparison['metrics'][metric]} is better"


def settings_table(comparison: Comparison) -> Table:
    rows = [[one["name"], str(one["num_seeds"]), ", ".join(one["folders"])] for one in comparison["settings"]]
    return [["setting", "seeds", "results"], *rows]


def means_table(comparison: Comparison) -> Table:
    """A line for each class and setting: mean over seeds, ± SD of several, [interval over cases]; counts per seed."""
    table = [["class", "setting", "missed", "false pos.", *map(label, comparison["metrics"])]]
    classes = comparison["classes"]
    for scope in classes if len(classes) == 1 else [ALL_CLASSES, *classes]:
        for setting in comparison["settings"]:
            counts = [f"{mean(setting['counts'][scope][kind]):.3g}" for kind in ("missed", "false_positive")]
            means = [
                with_interval(f["mean"], f["ci95"], scale(m), "", f["sd"]) for m, f in setting["means"][scope].items()
            ]
            table.append([scope, setting["name"], *counts, *means])
    return table


def pairs_table(comparison: Comparison, metric: str) -> Table:
    """A line for each pair, all classes first; `*` marks p below 0.05 after Holm's correction."""
    table = [["class", "pair", "difference [95 %]", "effect", "p", "p (Holm)", "cases"]]
    for row in (row for row in comparison["pairs"] if row["metric"] == metric):
        effect = "-" if row["effect"] is None else f"{row['effect']:+.2f}"
        star = " *" if is_significant(row) else ""
        difference = with_interval(row["difference"], row["ci95"], scale(metric), "+")
        name = comparison["classes"][0] if len(comparison["classes"]) == 1 else row["class_name"]
        words = [name, f"{row['first']} → {row['second']}"]
        table.append([*words, difference, effect, p_text(row["p"]), p_text(row["p_holm"]) + star, str(row["cases"])])
    return table


def is_significant(row: dict[str, Any]) -> bool:
    return row["p_holm"] is not None and row["p_holm"] < LEVEL


def ranks_line(comparison: Comparison, metric: str) -> str:
    """Average ranks, the best first, with Friedman's test and the critical difference where there is one."""
    ranking = comparison["ranks"][metric]
    if not ranking["cases"]:
        return "average rank: no case has a figure in every setting"
    order = sorted(ranking["average"].items(), key=lambda item: item[1])
    text = "average rank (1 is best): " + ", ".join(f"{name} {rank:.2f}" for name, rank in order)
    if ranking["critical_difference"] is not None:
        text += f"; Friedman p {p_text(ranking['p'])}, critical difference {ranking['critical_difference']:.2f}"
    return text


# --- numbers and columns -----------------------------------------------------------------------


def scale(metric: str) -> float:
    return 100.0 if kind_of(metric) in IN_PERCENT else 1.0


def label(metric: str) -> str:
    return f"{metric} %" if kind_of(metric) in IN_PERCENT else metric


def with_interval(value: float | None, ci95: Sequence, factor: float, sign: str = "", sd: float | None = None) -> str:
    """`86.51 ± 1.02 [84.48, 88.46]`, without the parts that are None; a dash for no value."""
    if value is None:
        return "-"
    text = f"{value * factor:{sign}.2f}" + ("" if sd is None else f" ± {sd * factor:.2f}")
    return text if ci95[0] is None else f"{text} [{ci95[0] * factor:{sign}.2f}, {ci95[1] * factor:{sign}.2f}]"


def p_text(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def align(table: Table) -> list[str]:
    """Columns of equal width, two spaces apart: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table)]
    sides = ["<" if title in WORDS else ">" for title in table[0]]
    return ["  ".join(f"{cell:{s}{w}}" for cell, s, w in zip(line, sides, widths)).rstrip() for line in table]
