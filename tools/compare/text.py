"""The sections of a comparison, which the terminal and the page both show, and their numbers as text."""

from statistics import mean
from typing import Any, NamedTuple

from tools.compare.statistics import ALL_CLASSES, LEVEL
from utils.results.names import network_in_words
from utils.results.table import align, label, scale_of, with_interval

Comparison = dict[str, Any]
Table = list[list[str]]  # the first line holds the titles


class Section(NamedTuple):
    """A table with its title above and a note below; `metric` is the one that the pairs are compared by."""

    title: str
    table: Table
    note: str = ""
    metric: str | None = None


def sections(comparison: Comparison) -> list[Section]:
    """The settings, their means, and for two or more settings the pairs and ranks of each metric."""
    rows = [
        [one["name"], str(one["num_seeds"]), network_in_words(one), ", ".join(one["folders"])]
        for one in comparison["settings"]
    ]
    note = "Mean over cases, ± SD over seeds where there are several, [95 % interval]; counts per seed."
    found = [Section("Settings", [["setting", "seeds", "network", "results"], *rows])]
    found.append(Section("Means", means_table(comparison), note))
    for metric in comparison["ranks"]:
        title = f"{label(metric)}: {comparison['metrics'][metric]} is better"
        found.append(Section(title, pairs_table(comparison, metric), ranks_line(comparison["ranks"][metric]), metric))
    return found


def text_report(comparison: Comparison) -> str:
    """The sections, methods and warnings for the terminal."""
    blocks = [heading(comparison)]
    blocks += ["\n".join([one.title, *align(one.table), one.note]).rstrip() for one in sections(comparison)]
    blocks += [comparison["methods"]] if comparison["pairs"] else []
    return "\n\n".join([*blocks, "\n".join(f"warning: {one}" for one in comparison["warnings"])]).rstrip()


def heading(comparison: Comparison) -> str:
    sizes = {setting["name"]: "x".join(map(str, setting["img_size"])) for setting in comparison["settings"]}
    each = ", ".join(f"{size} ({name})" for name, size in sizes.items())
    size = each if len(set(sizes.values())) > 1 else next(iter(sizes.values()))
    data = comparison["dataset"] or comparison["recipe"] or "data not named"
    rules = f"protocol {comparison['protocol']}, {data}, {comparison['cases']} cases{of_groups(comparison)}"
    return f"{rules}, input {size}, split: {comparison['split']}"


def of_groups(comparison: Comparison) -> str:
    """` of 3 groups (videos, patients)`; nothing where no group has several cases."""
    return "" if comparison["over"] == "cases" else f" of {comparison['over']}"


def means_table(comparison: Comparison) -> Table:
    """A line for each class and setting: mean over seeds, ± SD of several, [interval]; counts per seed."""
    table = [["class", "setting", "missed", "false pos.", *map(label, comparison["metrics"])]]
    classes = comparison["classes"]
    for scope in classes if len(classes) == 1 else [ALL_CLASSES, *classes]:
        for setting in comparison["settings"]:
            counts = [f"{mean(setting['counts'][scope][kind]):.3g}" for kind in ("missed", "false_positive")]
            figures = setting["means"][scope].items()
            means = [with_interval(one["mean"], one["ci95"], scale_of(m), sd=one["sd"]) for m, one in figures]
            table.append([scope, setting["name"], *counts, *means])
    return table


def pairs_table(comparison: Comparison, metric: str) -> Table:
    """A line for each pair, all classes first; `*` marks p below 0.05 after Holm's correction."""
    table = [["class", "pair", "difference [95 %]", "effect", "p", "p (Holm)", "cases"]]
    classes = comparison["classes"]
    for row in (row for row in comparison["pairs"] if row["metric"] == metric):
        words = [classes[0] if len(classes) == 1 else row["class_name"], f"{row['first']} → {row['second']}"]
        difference = with_interval(row["difference"], row["ci95"], scale_of(metric), "+")
        effect = "-" if row["effect"] is None else f"{row['effect']:+.2f}"
        corrected = p_text(row["p_holm"]) + (" *" if is_significant(row) else "")
        table.append([*words, difference, effect, p_text(row["p"]), corrected, str(row["cases"])])
    return table


def is_significant(row: dict[str, Any]) -> bool:
    return row["p_holm"] is not None and row["p_holm"] < LEVEL


def ranks_line(ranking: dict[str, Any]) -> str:
    """Average ranks, the best first, with Friedman's test and the critical difference where there is one."""
    if not ranking["groups"]:
        return "average rank: no case has a figure in every setting"
    text = "average rank (1 is best): " + ", ".join(f"{name} {rank:.2f}" for name, rank in ordered(ranking))
    if ranking["critical_difference"] is not None:
        text += f"; Friedman p {p_text(ranking['p'])}, critical difference {ranking['critical_difference']:.2f}"
    return text


def ordered(ranking: dict[str, Any]) -> list[tuple[str, float]]:
    """Settings with their average ranks, the best first."""
    return sorted(ranking["average"].items(), key=lambda item: item[1])


def p_text(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
