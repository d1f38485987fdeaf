"""The table of a study, from the folders of its runs: OUTPUT/PLAN/ARM/seed_N, of those that are finished.

Each run has config.json, history.csv, cost.json and the results of its test (summary.json, cases.csv).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.plans import Plan
from tools.compare.comparison import describe, describe_data, plain, warn_of_pairs, warn_of_results
from tools.compare.statistics import PairResult, compare_two, correct
from utils.results.reading import Setting, check_comparable, groups_among, parse_settings
from utils.results.summary import SUMMARY, count_units

COST, HISTORY = "cost.json", "history.csv"
METRICS = ("dice", "hd95")


def settings_of(out: Path) -> dict[str, Any]:
    """The settings of the run in `out`, as train.py wrote them."""
    return json.loads((out / "config.json").read_text(encoding="utf-8"))


def epochs_done(out: Path) -> int:
    """Epochs that the run in `out` has finished."""
    path = out / HISTORY
    return len(path.read_text(encoding="utf-8").splitlines()) - 1 if path.exists() else 0


def result_of(out: Path, part: str) -> Path | None:
    """The folder with the result of the run in `out` on `part`, test or val; None where it is not tested."""
    if not (out / "config.json").exists():
        return None
    settings = settings_of(out)
    fold = f"_fold{settings['fold']}" if part != "test" and settings["folds"] else ""
    result = out / f"{part}_standard{fold}"
    return result if (result / SUMMARY).exists() else None


def summarise(plan: Plan, folder: Path, part: str) -> dict[str, Any] | None:
    """The comparison of all arms, what each cost, and each arm's test against the first; None before any result.

    Runs that are not finished are left out and listed under "missing": arm -> seeds.
    """
    found = {arm: [result_of(folder / arm / f"seed_{seed}", part) for seed in plan.seeds] for arm in plan.arms}
    missing = {arm: [seed for seed, path in zip(plan.seeds, paths) if not path] for arm, paths in found.items()}
    done = {arm: [path for path in paths if path] for arm, paths in found.items() if any(paths)}
    if not done:
        return None
    settings = read_settings(done)
    if part == "test":
        check_comparable(settings)
    else:  # --seed draws the folds, too, so each seed validates on another, the same one for all arms
        for paths in zip(*found.values()):
            if alike := {arm: [path] for arm, path in zip(found, paths) if path}:
                check_comparable(read_settings(alike))
    costs = [cost_of(path) for paths in done.values() for path in paths]
    machines = [machine for cost in costs for machine in cost["machines"]]
    return {
        "part": part,
        "plan": asdict(plan),
        "missing": {arm: seeds for arm, seeds in missing.items() if seeds},
        "costs": {arm: cost_of_arm(paths) for arm, paths in done.items()},
        "machines": [machine for i, machine in enumerate(machines) if machine not in machines[:i]],
        "without_machine": sum(not cost["machines"] for cost in costs),
        "comparison": compare_with_first(plan, settings, missing),
    }


def compare_with_first(plan: Plan, settings: list[Setting], missing: Mapping[str, list[int]]) -> dict[str, Any]:
    """The arms, and each against the plan's first over the seeds that both have, as `tools.compare` gives them.

    Under "unseen" an arm of `chosen_after` is compared over the seeds that it was not made from.
    in: missing: arm -> seeds that are not finished
    """
    result = settings[0].results[0]
    metrics = [m for m in result.metrics() if m.partition("_")[0] in METRICS]
    parts = {tuple(result.cases) for setting in settings for result in setting.results}
    cases = sorted(set().union(*parts))
    first, groups = next(iter(plan.arms)), groups_among(settings, cases)
    seeds_of = {arm: [seed for seed in plan.seeds if seed not in missing[arm]] for arm in plan.arms}
    by_seed = {setting.name: dict(zip(seeds_of[setting.name], setting.results)) for setting in settings}

    def rows_of(arm: str, metric: str, without: int | None = None) -> list[PairResult]:
        seeds = [seed for seed in by_seed[arm] if seed in by_seed.get(first, ()) and seed != without]
        if not seeds:
            return []
        common = sorted(set().union(*(by_seed[arm][seed].cases for seed in seeds)))
        pair = (np.array([by_seed[name][s].table(metric, common) for s in seeds]) for name in (first, arm))
        return compare_two((first, arm), *pair, result.classes, groups_among(settings, common))

    pairs, warnings = [], warn_of_results(settings)
    for metric in metrics:
        if rows := correct([rows for arm in by_seed if arm != first and (rows := rows_of(arm, metric))]):
            pairs += [{"metric": metric} | row._asdict() for row in rows]
            warnings += warn_of_pairs(metric, rows)
    chosen = ((arm, rows_of(arm, metrics[0], seed)) for arm, seed in plan.chosen_after.items() if arm in by_seed)
    found = {
        "cases": len(cases),
        "over": count_units(groups),
        "parts": len(parts),
        "settings": [describe(setting, metrics, groups if len(parts) == 1 else None) for setting in settings],
        "pairs": pairs,
        "unseen": {arm: rows[0]._asdict() for arm, rows in chosen if rows and rows[0].cases},
        "warnings": warnings,
    }
    return plain(describe_data(result, metrics) | found)


def read_settings(results: Mapping[str, Sequence[Path]]) -> list[Setting]:
    """The results in these folders, by arm."""
    return parse_settings([f"{arm}={','.join(map(str, paths))}" for arm, paths in results.items()], None)


def cost_of(result: Path) -> dict[str, Any]:
    return json.loads((result.parent / COST).read_text(encoding="utf-8"))


def cost_of_arm(results: list[Path]) -> dict[str, Any]:
    """Parameters, operations, seconds of an epoch (the fastest seed), peak memory (the largest), size and epochs."""
    settings = settings_of(results[0].parent)
    each = [cost_of(result) for result in results]
    seconds = [cost["seconds"] / cost["epochs"] for cost in each if cost["epochs"]]
    return {
        "parameters": each[0]["parameters"],
        "gflop": each[0]["gflop"],
        "seconds_per_epoch": min(seconds, default=None),
        "peak_bytes": max(cost["peak_bytes"] for cost in each),
        "memory": each[0]["memory"],
        "img_size": settings["img_size"],
        "epochs": settings["epochs"],
    }
