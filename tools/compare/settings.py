"""Several settings compared, as plain values: their means, every pair, ranks, and what a reader must be told."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tools.compare.statistics import (
    ALL_CLASSES,
    HIGHER,
    LEVEL,
    Figures,
    PairResult,
    Ranking,
    compare_all,
    kind_of,
    rank_settings,
    smallest_p,
)
from utils.results.reading import Setting
from utils.scoring.statistics import bootstrap_means, interval

COUNTED = ("missed", "false_positive")


def compare(settings: list[Setting], metrics: list[str]) -> dict[str, Any]:
    """Everything that is reported, as plain values: settings, pairs, ranks, warnings, and by which rules."""
    first = settings[0].results[0]
    pairs: list[dict[str, Any]] = []
    ranks: dict[str, Any] = {}
    warnings = warn_of_results(settings)
    for metric in metrics:
        figures = {setting.name: setting.table(metric) for setting in settings}
        if len(figures) < 2:
            continue
        found = compare_all(figures, first.classes)
        pairs += [{"metric": metric} | _plain(row._asdict()) for row in found]
        ranking = rank_settings(figures, kind_of(metric) in HIGHER)
        ranks[metric] = _plain(ranking._asdict())
        warnings += warn_of_figures(metric, found, ranking, figures)
    kept = ("protocol", "recipe", "dataset", "split", "img_size", "tolerance", "unit")
    return {
        **{name: first.summary.get(name) for name in kept},
        "dataset": Path(first.summary.get("dataset") or "").name or None,
        "cases": len(first.cases),
        "classes": first.classes,
        "metrics": {name: "higher" if kind_of(name) in HIGHER else "lower" for name in metrics},
        "settings": [describe_setting(setting, metrics) for setting in settings],
        "pairs": pairs,
        "ranks": ranks,
        "warnings": list(dict.fromkeys(warnings)),
        "methods": METHODS,
    }


METHODS = (
    "Wilcoxon signed-rank test over cases, two-sided; Holm's correction over all pairs of one metric, for single "
    "classes over all pairs and classes; effect: matched-pairs rank-biserial correlation, above 0 where the second is "
    "larger; difference: second minus first over the cases and classes that both have, with a 95 % interval from 5000 "
    "paired bootstrap resamples of cases; ranks: averages over cases, 1 the best, Friedman's test and Nemenyi's "
    "critical difference at 5 % for three settings or more. Several metrics are not corrected for each other."
)


def describe_setting(setting: Setting, metrics: list[str]) -> dict[str, Any]:
    """Its means as the results state them: over seeds with their SD, else of the one result with its interval."""
    results = setting.results
    summary = results[0].summary
    scopes = {ALL_CLASSES: [result.summary["overall"] for result in results]}
    scopes |= {name: [result.summary["classes"][name] for result in results] for name in results[0].classes}
    return {
        "name": setting.name,
        "num_seeds": len(results),
        "folders": [str(result.folder) for result in results],
        "checkpoints": [result.hashes for result in results],
        **{field: summary.get(field) for field in ("ssd", "tta", "tta_scales", "precision", "selection")},
        "counts": {
            scope: {kind: [part[kind] for part in parts] for kind in COUNTED} for scope, parts in scopes.items()
        },
        "means": {scope: {m: _means(m, scope, setting, parts) for m in metrics} for scope, parts in scopes.items()},
    }


def _means(metric: str, scope: str, setting: Setting, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """{mean, sd over seeds, ci95 over cases, seeds}; of several seeds the interval is that of their mean per case."""
    results = setting.results
    if metric == "|volume_error|":  # the summary holds the mean of the signed figure
        columns = [slice(None) if scope == ALL_CLASSES else [r.classes.index(scope)] for r in results]
        means = [float(np.nanmean(r.table(metric)[:, c])) for r, c in zip(results, columns)]
    else:
        means = [part["metrics"][metric]["mean"] for part in parts]
    known = [mean for mean in means if mean is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "ci95": _interval(setting, metric, scope),
        "seeds": means,
    }


def _interval(setting: Setting, metric: str, scope: str) -> list[float | None]:
    table = setting.table(metric)
    if scope != ALL_CLASSES:
        table = table[:, [setting.results[0].classes.index(scope)]]
    samples = bootstrap_means(table)
    held = ~np.isnan(samples).all(1)
    ends = interval(np.nanmean(samples[held], axis=1))
    return [None if math.isnan(end) else end for end in ends]


# --- what a reader must be told ------------------------------------------------------------------


def warn_of_results(settings: list[Setting]) -> list[str]:
    warnings = []
    for setting in settings:
        for result in setting.results:
            rules = {result.summary["selection"], *(c.get("selection") for c in result.summary["checkpoints"])}
            if any(str(rule).startswith("test") for rule in rules):
                warnings.append(f"{setting.name}: a checkpoint was chosen on the test part; its figures are optimistic")
    counts = {setting.name: len(setting.results) for setting in settings}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        warnings.append(f"different numbers of seeds: {listed}; a mean over more seeds scatters less")
    if len(settings) > 1 and max(counts.values()) == 1:
        warnings.append("one seed each: the tests are over cases and know nothing of the scatter between trainings")
    if settings[0].results[0].summary["protocol"] == "legacy" and len(settings) > 1:
        warnings.append("legacy protocol: a missed class of a volume has distance 0, so that HD95 can reward a miss")
    return warnings


def warn_of_figures(metric: str, pairs: list[PairResult], ranking: Ranking, figures: Figures) -> list[str]:
    warnings = []
    overall = [row for row in pairs if row.class_name == ALL_CLASSES]
    fewest = min(row.cases for row in overall)
    least = smallest_p(fewest, len(overall))
    if least > LEVEL:
        warnings.append(
            f"{metric}: with {fewest} cases and {len(overall)} pair(s) the smallest p there can be is {least:.3g}: "
            f"no difference, however large, reaches p < {LEVEL}; the intervals are too narrow as well"
        )
    elif len(pairs) > len(overall) and smallest_p(fewest, len(pairs) - len(overall)) > LEVEL:
        warnings.append(
            f"{metric}: with {fewest} cases and {len(pairs) - len(overall)} comparisons of single classes none of "
            f"those can reach p < {LEVEL} after correction; only all classes together can"
        )
    left_out = [f"{row.first} and {row.second} {row.one_sided}" for row in overall if row.one_sided]
    if left_out:
        warnings.append(
            f"{metric}: figures that only one of two settings has are left out (a structure that the other missed or "
            f"invented has no distance), read it with the misses: {', '.join(left_out)}"
        )
    num_cases = len(next(iter(figures.values())))
    if ranking.cases < num_cases and len(figures) > 2:
        warnings.append(
            f"{metric}: ranks over {ranking.cases} of {num_cases} cases; the others lack a figure somewhere"
        )
    return warnings


def _plain(value: Any) -> Any:
    """Values for JSON: NaN becomes None."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
