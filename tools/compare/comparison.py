"""Several settings compared, as plain values: their means, every pair, ranks, and what a reader must be told."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tools.compare.statistics import ALL_CLASSES, LEVEL, PairResult, Ranking, compare_all, rank_settings, smallest_p
from utils.results.reading import Result, Setting, groups_among
from utils.results.summary import count_units
from utils.results.table import IN_PERCENT
from utils.scoring.protocols import kind_of
from utils.scoring.statistics import bootstrap_means, interval, mean_over

HIGHER = IN_PERCENT  # all scores in percent are better high
LOWER = ("hd95", "assd", "|volume_error|")
METHODS = (
    "Wilcoxon signed-rank test over cases, two-sided; Holm's correction over all pairs of one metric, for single "
    "classes over all pairs and classes; effect: matched-pairs rank-biserial correlation, above 0 where the second is "
    "larger; difference: second minus first over the cases and classes that both have, with a 95 % interval from 5000 "
    "paired bootstrap resamples of cases; ranks: averages over cases, 1 the best, Friedman's test and Nemenyi's "
    "critical difference at 5 % for three settings or more. Where several cases are of one group (a video, a patient), "
    "groups are resampled, and tests and ranks are over their means. Several metrics are not corrected for each other."
)


def compare(settings: list[Setting], metrics: list[str]) -> dict[str, Any]:
    """Everything that is reported, ready for JSON: settings, pairs, ranks, warnings, methods; None for no figure."""
    first = settings[0].results[0]
    groups = groups_among(settings, first.cases)
    pairs, ranks, warnings = [], {}, [*warn_of_results(settings), *warn_of_seeds(settings, metrics)]
    for metric in metrics if len(settings) > 1 else ():
        figures = {setting.name: setting.table(metric) for setting in settings}
        rows = compare_all(figures, first.classes, groups)
        ranking = rank_settings(figures, kind_of(metric) in HIGHER, groups)
        pairs += [{"metric": metric} | row._asdict() for row in rows]
        ranks[metric] = ranking._asdict()
        warnings += [*warn_of_pairs(metric, rows), *warn_of_ranks(metric, ranking, groups)]
    found = {
        "over": count_units(groups),
        "settings": [describe(setting, metrics, groups) for setting in settings],
        "pairs": pairs,
        "ranks": ranks,
        "warnings": list(dict.fromkeys(warnings)),
        "methods": METHODS,
    }
    return plain(describe_data(first, metrics) | found)


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON has it: None for NaN, lists for tuples."""
    return json.loads(json.dumps(found), parse_constant=lambda _: None)


def describe_data(result: Result, metrics: list[str]) -> dict[str, Any]:
    """The rules and data of a result, and of each metric whether higher or lower is better."""
    kept = ("protocol", "recipe", "dataset", "split", "img_size", "tolerance", "unit")
    return {name: result.summary.get(name) for name in kept} | {
        "dataset": Path(result.summary.get("dataset") or "").name or None,
        "cases": len(result.cases),
        "classes": result.classes,
        "metrics": {name: "higher" if kind_of(name) in HIGHER else "lower" for name in metrics},
    }


def describe(setting: Setting, metrics: list[str], groups: np.ndarray | None) -> dict[str, Any]:
    """One setting: its seeds, and for all classes together and each class its counts by seed and its means.

    groups: of the cases; None where seeds have different cases, so that means have no interval
    """
    results, summary = setting.results, setting.results[0].summary
    columns = {ALL_CLASSES: slice(None)} | {name: [k] for k, name in enumerate(results[0].classes)}
    parts = [{ALL_CLASSES: result.summary["overall"]} | result.summary["classes"] for result in results]
    kinds = ("missed", "false_positive")
    kept = ("recipe", "img_size", "network", "ssd", "fit", "tta", "tta_scales", "precision", "selection")
    return {
        "name": setting.name,
        "num_seeds": len(results),
        "folders": [str(result.folder) for result in results],
        "checkpoints": [result.hashes for result in results],
        **{field: summary.get(field) for field in kept},
        "counts": {scope: {kind: [part[scope][kind] for part in parts] for kind in kinds} for scope in columns},
        "means": {scope: {m: _means(setting, m, chosen, groups) for m in metrics} for scope, chosen in columns.items()},
    }


def _means(setting: Setting, metric: str, columns: slice | list[int], groups: np.ndarray | None) -> dict[str, Any]:
    """Mean over classes of their means over cases: of each seed, their mean and SD, and the interval over cases."""
    seeds = np.array([mean_over(mean_over(result.table(metric)[:, columns], 0), 0) for result in setting.results])
    known = seeds[~np.isnan(seeds)]
    ci95 = (math.nan, math.nan)
    if groups is not None:
        table = setting.table(metric)[:, columns]
        if len(set(groups[(~np.isnan(table)).any(1)])) > 1:
            ci95 = interval(mean_over(bootstrap_means(table, groups=groups), 1))
    return {
        "mean": float(mean_over(seeds, 0)),
        "sd": known.std(ddof=1) if len(known) > 1 else math.nan,
        "ci95": ci95,
        "seeds": seeds.tolist(),
    }


def warn_of_results(settings: list[Setting]) -> list[str]:
    warnings = []
    for setting in settings:
        for result in setting.results:
            rules = {result.summary["selection"], *(c.get("selection") for c in result.summary["checkpoints"])}
            if any(str(rule).startswith("test") for rule in rules):
                warnings.append(f"{setting.name}: a checkpoint was chosen on the test part; its figures are optimistic")
            if known := result.summary.get("trained_on"):
                total = result.summary["num_cases"]
                warnings.append(f"{setting.name}: {len(known)} of {total} cases are of its checkpoint's training part")
    counts = {setting.name: len(setting.results) for setting in settings}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        warnings.append(f"different numbers of seeds: {listed}; a mean over more seeds scatters less")
    if len(settings) > 1:
        warnings.append("the tests are over cases or their groups and do not see the scatter between trainings")
    if settings[0].results[0].summary["protocol"] == "legacy" and len(settings) > 1:
        warnings.append("legacy protocol: a missed class of a volume has distance 0, so that HD95 can reward a miss")
    return warnings


def warn_of_seeds(settings: list[Setting], metrics: list[str]) -> list[str]:
    warnings = []
    for metric in metrics:
        counts = {}
        for setting in settings:
            known = ~np.isnan(np.stack([result.table(metric) for result in setting.results]))
            counts[setting.name] = int((known.any(0) & ~known.all(0)).sum())
        if listed := ", ".join(f"{name} {count}" for name, count in counts.items() if count):
            warnings.append(
                f"{metric}: figures that only some seeds of a setting have are means over these seeds ({listed}; a "
                "structure that a seed missed or invented has no distance): read it together with the misses"
            )
    return warnings


def warn_of_pairs(metric: str, rows: list[PairResult]) -> list[str]:
    warnings = []
    overall = [row for row in rows if row.class_name == ALL_CLASSES]
    pairs, singles, fewest = len(overall), len(rows) - len(overall), min(row.groups for row in overall)
    units = "cases" if all(row.groups == row.cases for row in overall) else "groups (videos, patients)"
    if smallest_p(fewest, pairs) > LEVEL:
        warnings.append(
            f"{metric}: with {fewest} {units} and {pairs} pair(s) the smallest possible p is "
            f"{smallest_p(fewest, pairs):.3g}: no difference, however large, reaches p < {LEVEL}; the intervals are "
            "too narrow as well"
        )
    elif singles and smallest_p(fewest, singles) > LEVEL:
        warnings.append(
            f"{metric}: with {fewest} {units} and {singles} comparisons of single classes none of those can reach "
            f"p < {LEVEL} after correction; only all classes together can"
        )
    left_out = sorted(row.one_sided for row in overall if row.one_sided)
    if left_out:
        number = f"{left_out[0]}" if left_out[0] == left_out[-1] else f"{left_out[0]} to {left_out[-1]}"
        warnings.append(
            f"{metric}: figures that only one of two settings has are left out ({number} in {len(left_out)} of {pairs} "
            "pairs; a structure that the other missed or invented has no distance): read it together with the misses"
        )
    return warnings


def warn_of_ranks(metric: str, ranking: Ranking, groups: np.ndarray) -> list[str]:
    num = len(set(groups.tolist()))
    if ranking.groups == num or len(ranking.average) < 3:
        return []
    units = "cases" if num == len(groups) else "groups"
    return [f"{metric}: ranks over {ranking.groups} of {num} {units}; the others lack a figure somewhere"]
