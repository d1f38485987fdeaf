"""Networks or settings side by side under the same rules: trained, tested, compared, in one table.

    python -m benchmarks.study PLAN [--output results/study] [--jobs N] [--val]

PLAN is a name in benchmarks/study/plans.py. Each arm is trained with each seed by train.py and tested by test.py, in a
folder of its own. What is finished stays, what was interrupted goes on: start the same command again. With several
GPUs, N runs go on at a time, each on a GPU. `--val` scores the validation part: use it to choose a setting.

The table has mean and SD over seeds, a bootstrap interval over cases, the paired test against the first arm (Wilcoxon,
Holm's correction), parameters, operations, seconds of an epoch and peak memory of the process. It is written to
OUTPUT/PLAN.json and .md.
"""

import argparse
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import ROOT, write_json
from benchmarks.study.plans import PLANS, Plan
from tools.compare.comparison import compare
from tools.compare.statistics import ALL_CLASSES, holm
from utils.errors import UserError, run_main
from utils.files import write_atomically
from utils.log import log
from utils.results.reading import check_comparable, parse_settings
from utils.training.folder import LAST

COST, FLAGS = "cost.json", "flags.txt"
METRICS = ("dice", "hd95")
HEADER = ("arm", "seeds", "Dice %", "95 % over cases", "HD95", "p (Holm)", "parameters", "GFLOP", "s/epoch", "peak GiB")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", help=f"one of {', '.join(PLANS)}")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "study", help="folder of all studies")
    parser.add_argument("--jobs", type=int, default=max(1, torch.cuda.device_count()), help="runs at a time")
    parser.add_argument("--val", action="store_true", help="score the validation part, not the test part")
    given = parser.parse_args(argv)
    if given.plan not in PLANS:
        raise UserError(f"plan {given.plan}: expected one of {', '.join(PLANS)}, see benchmarks/study/plans.py")
    folder, plan = given.output / given.plan, PLANS[given.plan]
    part = "val" if given.val else "test"
    run_all(plan, folder, part, given.jobs)
    study = summarise(plan, folder, part)
    write_json(given.output / f"{given.plan}.json", study)
    write_atomically(given.output / f"{given.plan}.md", as_markdown(study))
    log(as_markdown(study))


def run_all(plan: Plan, folder: Path, part: str, jobs: int) -> None:
    """Train and test what is missing, `jobs` runs at a time. raises: UserError with the runs that failed"""
    free: queue.Queue[int] = queue.Queue()
    for index in range(jobs):
        free.put(index)

    def run(arm: str, seed: int) -> str:
        index = free.get()
        try:
            return run_one(plan, arm, seed, folder / arm / f"seed_{seed}", part, index)
        finally:
            free.put(index)

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda pair: run(*pair), [(arm, seed) for seed in plan.seeds for arm in plan.arms]))
    if problems := [problem for problem in found if problem]:
        raise UserError("not all runs ended well; the others are kept:\n  " + "\n  ".join(problems))


def run_one(plan: Plan, arm: str, seed: int, out: Path, part: str, index: int) -> str:
    """Train and test one arm with one seed in `out`, unless that is done; what went wrong, or nothing."""
    flags = (*plan.data, *plan.train, *plan.arms[arm], "--seed", str(seed))
    noted = out / FLAGS
    if noted.exists() and noted.read_text(encoding="utf-8") != shlex.join(flags):
        return f"{arm}, seed {seed}: {out} is from other flags than the plan's; remove it, or give another --output"
    write_atomically(noted, shlex.join(flags))
    if any(out.glob(f"{part}_standard*/summary.json")):
        return ""
    device = ("--device", f"cuda:{index % torch.cuda.device_count()}") if torch.cuda.is_available() else ()
    train = ("--resume",) if (out / LAST).exists() else flags
    log(f"{arm}, seed {seed}: {'goes on' if train == ('--resume',) else 'starts'}")
    for script, words in (("train.py", train), ("test.py", ("--split", part, "--no-report"))):
        code, seconds, peak = call(script, *words, *device, "--output_dir", str(out), log_to=out / f"{script}.txt")
        if code:
            return f"{arm}, seed {seed}: {script} ended with exit code {code}; see {out / script}.txt"
        if script == "train.py":
            note_cost(out, seconds, peak)
    return ""


def call(script: str, *words: str, log_to: Path) -> tuple[int, float, int]:
    """Run a script of this repository; its exit code, seconds, and the most bytes of memory that it held."""
    began = time.perf_counter()
    with log_to.open("a", encoding="utf-8") as file:
        process = subprocess.Popen([sys.executable, str(ROOT / script), *words], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - began, usage.ru_maxrss * 1024


def note_cost(out: Path, seconds: float, peak: int) -> None:
    """Add what a training took to COST of its folder; one that went on has several parts."""
    path = out / COST
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"seconds": 0.0, "peak_bytes": 0}
    text = (out / "log.txt").read_text(encoding="utf-8")
    cost = {"seconds": before["seconds"] + seconds, "peak_bytes": max(before["peak_bytes"], peak)}
    cost["parameters"] = int(re.search(r"([\d,]+) parameters", text)[1].replace(",", ""))
    cost["gflop"] = float(re.search(r"([\d.]+) GFLOP", text)[1])
    write_atomically(path, json.dumps(cost, indent=2) + "\n")


def summarise(plan: Plan, folder: Path, part: str) -> dict[str, Any]:
    """The comparison of all arms, what each cost, and each arm's test against the first."""
    found = {
        arm: [next((folder / arm / f"seed_{s}").glob(f"{part}_standard*")) for s in plan.seeds] for arm in plan.arms
    }
    settings = parse_settings([f"{arm}={','.join(map(str, folders))}" for arm, folders in found.items()], None)
    check_comparable(settings)
    metrics = [m for m in settings[0].results[0].metrics() if m.partition("_")[0] in METRICS]
    comparison = compare(settings, metrics)
    first = settings[0].name
    pairs = [p for p in comparison["pairs"] if p["first"] == first and p["class_name"] == ALL_CLASSES]
    pairs = [pair for pair in pairs if pair["metric"] == metrics[0]]
    corrected = holm([float("nan") if pair["p"] is None else pair["p"] for pair in pairs]).tolist()
    costs = {}
    for arm, folders in found.items():
        each = [json.loads((path.parent / COST).read_text(encoding="utf-8")) for path in folders]
        epochs = [len((path.parent / "history.csv").read_text(encoding="utf-8").splitlines()) - 1 for path in folders]
        costs[arm] = {name: each[0][name] for name in ("parameters", "gflop")}
        costs[arm] |= {"seconds_per_epoch": sum(c["seconds"] / n for c, n in zip(each, epochs)) / len(each)}
        costs[arm] |= {"peak_bytes": max(cost["peak_bytes"] for cost in each)}
    return {
        "part": part,
        "plan": {"data": plan.data, "train": plan.train, "arms": dict(plan.arms), "seeds": plan.seeds},
        "costs": costs,
        "p_holm": {pair["second"]: p for pair, p in zip(pairs, corrected)},
        "comparison": comparison,
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
        p = study["p_holm"].get(name)
        cells = [
            name,
            str(setting["num_seeds"]),
            f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else ""),
        ]
        cells += ["–" if None in ci95 else f"[{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]"]
        distance = means[distances[0]]["mean"] if distances else None
        cells += ["–" if distance is None else f"{distance:.1f} {distances[0].rpartition('_')[2]}"]
        cells += [
            "–" if p is None or p != p else f"{p:.3g}",
            f"{cost['parameters'] / 1e6:.2f} M",
            f"{cost['gflop']:.2f}",
        ]
        cells += [f"{cost['seconds_per_epoch']:.1f}", f"{cost['peak_bytes'] / 2**30:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"* {warning}" for warning in comparison["warnings"]]
    return "\n".join([*lines, "", *notes]) + "\n"


if __name__ == "__main__":
    run_main(main)
