"""The table of a study, from the folders of its runs: OUTPUT/PLAN/ARM/seed_N, of those that are finished.

Each run has config.json, history.csv, cost.json and the results of its test (summary.json, cases.csv).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.study.plans import Plan
from tools.compare.comparison import compare
from tools.compare.statistics import ALL_CLASSES, holm
from utils.errors import counted
from utils.results.reading import Result, Setting, check_comparable, parse_settings
from utils.results.summary import SUMMARY

COST, HISTORY = "cost.json", "history.csv"
METRICS = ("dice", "hd95")
HEADER = ("arm", "seeds", "Dice %", "95 % over cases", "HD95", "p (Holm)", "parameters", "GFLOP", "s/epoch", "peak GiB")


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
    folds = len({tuple(result.cases) for setting in settings for result in setting.results})
    if part == "test":
        check_comparable(settings)
    else:  # --seed draws the folds, too, so each seed validates on another, the same one for all arms
        for paths in zip(*found.values()):
            if alike := {arm: [path] for arm, path in zip(found, paths) if path}:
                check_comparable(read_settings(alike))
        settings = of_all_folds(settings)
    metrics = [m for m in settings[0].results[0].metrics() if m.partition("_")[0] in METRICS]
    comparison = compare(settings, metrics)
    pairs = [pair for pair in comparison["pairs"] if pair["first"] == next(iter(plan.arms))]
    pairs = [pair for pair in pairs if pair["class_name"] == ALL_CLASSES and pair["metric"] == metrics[0]]
    corrected = holm([float("nan") if pair["p"] is None else pair["p"] for pair in pairs]).tolist()
    costs = [cost_of(path) for paths in done.values() for path in paths]
    machines = [machine for cost in costs for machine in cost.get("machines", [])]
    return {
        "part": part,
        "plan": {"data": plan.data, "train": plan.train, "arms": dict(plan.arms), "seeds": plan.seeds},
        "missing": {arm: seeds for arm, seeds in missing.items() if seeds},
        "costs": {arm: cost_of_arm(paths) for arm, paths in done.items()},
        "machines": [machine for i, machine in enumerate(machines) if machine not in machines[:i]],
        "without_machine": sum(not cost.get("machines") for cost in costs),
        "p_holm": {pair["second"]: p for pair, p in zip(pairs, corrected)},
        "folds": folds,
        "comparison": comparison,
    }


def read_settings(results: Mapping[str, Sequence[Path]]) -> list[Setting]:
    """The results in these folders, by arm."""
    return parse_settings([f"{arm}={','.join(map(str, paths))}" for arm, paths in results.items()], None)


def of_all_folds(settings: list[Setting]) -> list[Setting]:
    """The same settings, each result with the cases of all; it has no figures for those that are not its own."""
    cases = {case for setting in settings for result in setting.results for case in result.cases}

    def among_all(result: Result) -> Result:
        return replace(result, others=tuple(cases - {*result.cases}))

    return [Setting(setting.name, tuple(map(among_all, setting.results))) for setting in settings]


def cost_of(result: Path) -> dict[str, Any]:
    return json.loads((result.parent / COST).read_text(encoding="utf-8"))


def cost_of_arm(results: list[Path]) -> dict[str, Any]:
    """Parameters, operations, seconds of an epoch (the fastest seed), peak memory (the largest), size and epochs."""
    settings = settings_of(results[0].parent)
    each = [cost_of(result) for result in results]
    # runs of before the epochs were counted had one part
    epochs = [cost.get("epochs", epochs_done(result.parent)) for cost, result in zip(each, results)]
    seconds = [cost["seconds"] / count for cost, count in zip(each, epochs) if count]
    return {
        "parameters": each[0]["parameters"],
        "gflop": each[0]["gflop"],
        "seconds_per_epoch": min(seconds, default=None),
        "peak_bytes": max(cost["peak_bytes"] for cost in each),
        "memory": each[0].get("memory", "process"),
        "img_size": settings["img_size"],
        "epochs": settings["epochs"],
    }


def as_markdown(study: dict[str, Any]) -> str:
    """The table as a page: what was run, a row an arm, what a reader must be told."""
    plan, comparison = study["plan"], study["comparison"]
    dice, *distances = comparison["metrics"]
    lines = [
        f"`train.py {' '.join((*plan['data'], *plan['train']))}`, seeds {', '.join(map(str, plan['seeds']))}; "
        f"{comparison['cases']} cases of the {study['part']} part; {comparison['split']}.",
        "",
        f"| {' | '.join(HEADER)} |",
        "|---" * len(HEADER) + "|",
    ]
    for setting in comparison["settings"]:
        name, cost = setting["name"], study["costs"][setting["name"]]
        means = setting["means"][ALL_CLASSES]
        mean, sd, ci95 = (means[dice][key] for key in ("mean", "sd", "ci95"))
        distance = means[distances[0]]["mean"] if distances else None
        p, seconds = study["p_holm"].get(name), cost["seconds_per_epoch"]
        cells = [
            name,
            str(setting["num_seeds"]),
            f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else ""),
            "–" if None in ci95 else f"[{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]",
            "–" if distance is None else f"{distance:.1f} {distances[0].rpartition('_')[2]}",
            "–" if p is None or p != p else f"{p:.3g}",
            f"{cost['parameters'] / 1e6:.2f} M",
            f"{cost['gflop']:.2f}",
            "–" if seconds is None else f"{seconds:.1f}",
            f"{cost['peak_bytes'] / 2**30:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    missing = ", ".join(f"{arm} ({', '.join(map(str, seeds))})" for arm, seeds in study["missing"].items())
    notes = [f"Not finished, and not in the table: {missing} (seeds)."] if missing else []
    if not study["p_holm"] and len(comparison["settings"]) > 1:
        notes.append(f"No tests: they are against {next(iter(plan['arms']))}, of which no run is finished.")
    forms = {arm: f"{'x'.join(map(str, c['img_size']))}, {c['epochs']} epochs" for arm, c in study["costs"].items()}
    if len(set(forms.values())) > 1:
        notes.append(f"Arms differ: {'; '.join(f'{arm} {form}' for arm, form in forms.items())}.")
    if study.get("folds", 1) > 1:
        folds = f"Each seed drew its folds, and validated on another: the cases are of {study['folds']} folds"
        notes.append(f"{folds}, and each counts with the seeds that have it. Arms with fewer seeds have fewer cases.")
    notes += comparison["warnings"]
    commits = sorted({machine["commit"] for machine in study["machines"]})
    if len(commits) > 1:
        notes.append(f"The trainings ran at the commits {', '.join(commits)}.")
    if unknown := study["without_machine"]:
        notes.append(f"{counted(unknown, 'training')} did not record machine and commit (results/README.md).")
    memory = {"GPU": "what PyTorch had allocated on the GPU", "process": "what the training process held"}
    kinds = sorted({cost["memory"] for cost in study["costs"].values()})
    notes.append(
        "s/epoch: the whole training with its start and validation over its epochs, of the fastest seed, because other "
        f"work on the machine slows a run. Peak memory: {' or '.join(memory[kind] for kind in kinds)}."
    )
    return "\n".join([*lines, "", *(f"* {note}" for note in notes)]) + "\n"
