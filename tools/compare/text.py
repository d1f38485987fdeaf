"""The comparison as text for the terminal, and the words and numbers that the page shares with it."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from tools.compare.statistics import ALL_CLASSES, LEVEL, kind_of
from utils.results.table import IN_PERCENT

Comparison = dict[str, Any]


def text_report(comparison: Comparison) -> str:
    """Rules, means of every setting, and for two or more settings the pairs and ranks of each metric."""
    width = max(len(setting["name"]) for setting in comparison["settings"])
    lines = [heading(comparison), ""]
    for setting in comparison["settings"]:
        lines.append(f"  {setting['name']:<{width}}  {', '.join(setting['folders'])}")
    lines += ["", *align(means_table(comparison)), ""]
    if len(comparison["classes"]) > 1:
        for name in comparison["classes"]:
            lines += [*align(means_table(comparison, name)), ""]
    for metric in comparison["ranks"]:
        lines += [
            f"{label(metric)}, {comparison['metrics'][metric]} is better",
            *align(pairs_table(comparison, metric)),
        ]
        lines += [f"  {ranks_line(comparison, metric)}", ""]
    if comparison["pairs"]:
        lines += [comparison["methods"], ""]
    return "\n".join([*lines, *(f"warning: {text}" for text in comparison["warnings"])]).rstrip()


def heading(comparison: Comparison) -> str:
    size = "x".join(map(str, comparison["img_size"]))
    data = comparison["dataset"] or comparison["recipe"] or "data not named"
    return (
        f"protocol {comparison['protocol']}, {data}, {comparison['cases']} cases, input {size}, "
        f"split: {comparison['split']}"
    )


def means_table(comparison: Comparison, scope: str = ALL_CLASSES) -> list[list[str]]:
    """A line for each setting: mean, ± SD over several seeds, interval over cases; counts per seed."""
    single = len(comparison["classes"]) == 1
    title = comparison["classes"][0] if single and scope == ALL_CLASSES else scope
    table = [[title, "seeds", "missed", "false pos.", *(label(metric) for metric in comparison["metrics"])]]
    for setting in comparison["settings"]:
        cells = [mean_text(metric, setting["means"][scope][metric]) for metric in comparison["metrics"]]
        counts = [f"{mean(setting['counts'][scope][kind]):.3g}" for kind in ("missed", "false_positive")]
        table.append([setting["name"], str(setting["num_seeds"]), *counts, *cells])
    return table


def pairs_table(comparison: Comparison, metric: str) -> list[list[str]]:
    """A line for each pair, all classes first; `*` marks p below 0.05 after Holm's correction."""
    table = [["class", "pair", "difference [95 %]", "effect", "p", "p (Holm)", "cases"]]
    for row in comparison["pairs"]:
        if row["metric"] != metric:
            continue
        name = comparison["classes"][0] if len(comparison["classes"]) == 1 else row["class_name"]
        star = " *" if row["p_holm"] is not None and row["p_holm"] < LEVEL else ""
        table.append(
            [
                *(name, f"{row['first']} → {row['second']}"),
                with_interval(row["difference"], row["ci95"], scale(metric), sign="+"),
                "-" if row["effect"] is None else f"{row['effect']:+.2f}",
                *(p_text(row["p"]), p_text(row["p_holm"]) + star, str(row["cases"])),
            ]
        )
    return table


def ranks_line(comparison: Comparison, metric: str) -> str:
    """Average ranks, the best first, with Friedman's test and the critical difference where there is one."""
    ranking = comparison["ranks"][metric]
    if not ranking["cases"]:
        return "average rank: no case has a figure in every setting"
    order = sorted(ranking["average"], key=ranking["average"].__getitem__)
    text = "average rank: " + ", ".join(f"{name} {ranking['average'][name]:.2f}" for name in order)
    if ranking["critical_difference"] is not None:
        text += f"; Friedman p {p_text(ranking['p'])}, critical difference {ranking['critical_difference']:.2f}"
    return text


# --- numbers and columns -----------------------------------------------------------------------


def scale(metric: str) -> float:
    return 100.0 if kind_of(metric) in IN_PERCENT else 1.0


def label(metric: str) -> str:
    return f"{metric} %" if kind_of(metric) in IN_PERCENT else metric


def mean_text(metric: str, figures: dict[str, Any]) -> str:
    if figures["mean"] is None:
        return "-"
    factor = scale(metric)
    text = with_interval(figures["mean"], figures["ci95"], factor)
    return text if figures["sd"] is None else text.replace(" [", f" ± {figures['sd'] * factor:.2f} [")


def with_interval(value: float | None, ci95: Sequence[float | None], factor: float, sign: str = "") -> str:
    if value is None:
        return "-"
    text = f"{value * factor:{sign}.2f}"
    return text if ci95[0] is None else f"{text} [{ci95[0] * factor:{sign}.2f}, {ci95[1] * factor:{sign}.2f}]"


def p_text(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, two spaces apart: words to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    words = [i == 0 or title == "pair" for i, title in enumerate(table[0])]
    return [
        "  " + "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(line, widths, words)).rstrip()
        for line in table
    ]
