"""Networks or settings side by side under the same rules: trained, tested, compared, in one table.

    python -m benchmarks.study PLAN [--output results/study] [--jobs N] [--val]

PLAN is a name in benchmarks/study/plans.py. Each arm is trained with each seed by train.py and tested by test.py, in a
folder of its own. What is finished stays, what was interrupted goes on: start the same command again. With several
GPUs, N runs go on at a time, each on a GPU. `--val` scores the validation part: use it to choose a setting.

The table has mean and SD over seeds, a bootstrap interval over cases or their groups (none if seeds validate on
different cases), the difference to the first arm over the seeds that both have with its paired test (Wilcoxon, Holm),
parameters, operations, seconds of an epoch and peak memory. It is written to OUTPUT/PLAN.json and .md (PLAN_val with
--val) after every run, of the runs that are finished; `--jobs 0` writes it and runs nothing.

Each run keeps its settings, history, log, cost, machine and figures of every case; git keeps these small files
(results/study/.gitignore). A clone that has them does not run again what was tested.
"""

import argparse
import contextlib
import json
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.machine import ROOT, describe_machine
from benchmarks.study.plans import PLANS, Plan
from benchmarks.study.table import COST, HISTORY, epochs_done, result_of, settings_of, summarise
from benchmarks.study.text import as_markdown
from utils.errors import UserError, run_main
from utils.files import write_atomically
from utils.log import log, log_lines
from utils.training.folder import LAST

FLAGS = "flags.txt"
PACKAGES = ("segmentation-models-pytorch", "timm", "dynamic-network-architectures", "monai")  # of the baselines
running: set[subprocess.Popen] = set()


def main(argv: list[str]) -> None:
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.study", description=__doc__, formatter_class=as_it_is)
    parser.add_argument("plan", help=f"one of {', '.join(PLANS)}")
    parser.add_argument("--output", type=Path, default=Path("results", "study"), help="folder of all studies")
    parser.add_argument("--jobs", type=int, default=max(1, torch.cuda.device_count()), help="runs at a time")
    parser.add_argument("--val", action="store_true", help="score the validation part, not the test part")
    given = parser.parse_args(argv)
    if given.plan not in PLANS:
        raise UserError(f"plan {given.plan}: expected one of {', '.join(PLANS)}, see benchmarks/study/plans.py")
    if given.jobs < 0:
        raise UserError(f"--jobs {given.jobs}: expected a number of runs at a time, or 0 to write the table alone")
    folder, plan = given.output / given.plan, PLANS[given.plan]
    part = "val" if given.val else "test"
    name = f"{given.plan}_val" if given.val else given.plan

    def write_table() -> None:
        if study := summarise(plan, folder, part):
            write_atomically(given.output / f"{name}.json", json.dumps(study, indent=2) + "\n")
            write_atomically(given.output / f"{name}.md", as_markdown(study))

    write_table()
    if given.jobs:
        run_all(plan, folder, part, given.jobs, write_table)
    table = given.output / f"{name}.md"
    log_lines(table.read_text(encoding="utf-8") if table.exists() else "no run is finished")


def run_all(plan: Plan, folder: Path, part: str, jobs: int, after: Callable[[], None]) -> None:
    """Train and test what is missing, `jobs` runs at a time; call `after` when one has ended well.

    Ctrl-C or SIGTERM stops the trainings after their update, as they do a single one.
    raises: UserError with the runs that failed
    """
    free: queue.Queue[int] = queue.Queue()
    for index in range(jobs):
        free.put(index)

    def run(arm: str, seed: int) -> str:
        index = free.get()
        try:
            return run_one(plan, arm, seed, folder / arm / f"seed_{seed}", part, index)
        finally:
            free.put(index)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    problems = []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = [pool.submit(run, arm, seed) for seed in plan.seeds for arm in plan.arms]
            for done in as_completed(waiting):
                if problem := done.result():
                    problems.append(problem)
                else:
                    after()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(running):
                process.terminate()
            log("stopping: each training saves its state; start the same command again to go on")
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    if problems:
        raise UserError("not all runs ended well; the others are kept:\n  " + "\n  ".join(problems))


def run_one(plan: Plan, arm: str, seed: int, out: Path, part: str, index: int) -> str:
    """Train and test one arm with one seed in `out`, unless that is done; what went wrong, or nothing."""
    flags = (*plan.data, *plan.train, *plan.arms[arm], "--seed", str(seed))
    noted = out / FLAGS
    if noted.exists() and noted.read_text(encoding="utf-8") != shlex.join(flags):
        return f"{arm}, seed {seed}: {out} is from other flags than the plan's; remove it, or give another --output"
    write_atomically(noted, shlex.join(flags))
    if result_of(out, part):
        return ""
    device = ("--device", f"cuda:{index % torch.cuda.device_count()}") if torch.cuda.is_available() else ()
    resume = (out / LAST).exists()
    log(f"{arm}, seed {seed}: {'goes on' if resume else 'starts'}")
    # --force: files may be left of a run that was killed in its first epoch, or whose weights git did not keep
    train = ("--resume",) if resume else (*flags, "--force")
    for name in () if resume else (COST, HISTORY):
        (out / name).unlink(missing_ok=True)
    for script, words in (("train.py", train), ("test.py", ("--split", part, "--no-report"))):
        before = epochs_done(out)
        code, seconds, peak = call(script, *words, *device, "--output_dir", str(out), log_to=out / f"{script}.txt")
        if script == "train.py":
            note_cost(out, seconds, epochs_done(out) - before, peak)
            if not code and epochs_done(out) < settings_of(out)["epochs"]:
                return f"{arm}, seed {seed}: was asked to stop, and has saved its state; start the study again to go on"
        if code:
            return f"{arm}, seed {seed}: {script} ended with exit code {code}; see {out / script}.txt"
    return ""


def call(script: str, *words: str, log_to: Path) -> tuple[int, float, int]:
    """Run a script of this repository; its exit code, seconds, and the most bytes of memory that it held."""
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / script), *words]
    with log_to.open("a", encoding="utf-8") as file:
        # a session of its own: Ctrl-C reaches the study alone, which passes it on once
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        running.add(process)
        _, status, usage = os.wait4(process.pid, 0)
        running.discard(process)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - began, usage.ru_maxrss * 1024


def note_cost(out: Path, seconds: float, epochs: int, peak: int) -> None:
    """Add what a training took to COST of its folder. A training that went on has several parts.

    Time counts only with whole epochs. On a GPU the peak is PyTorch's, as train.py logs it.
    """
    log_file, path = out / "log.txt", out / COST
    text = log_file.read_text(encoding="utf-8") if log_file.exists() else ""
    if not (parameters := re.search(r"([\d,]+) parameters", text)) or not (gflop := re.search(r"([\d.]+) GFLOP", text)):
        return  # it ended before it began
    cost = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    gpu = [float(peak) * 2**30 for peak in re.findall(r"peak GPU memory ([\d.]+) GiB", text)]
    machine = describe_machine() | {"packages": dict(installed())}
    machines = cost.get("machines", [])
    cost = {
        "seconds": cost.get("seconds", 0.0) + (seconds if epochs else 0.0),
        "epochs": cost.get("epochs", 0) + epochs,
        "peak_bytes": max(gpu) if gpu else max(cost.get("peak_bytes", 0), peak),
        "memory": "GPU" if gpu else "process",
        "parameters": int(parameters[1].replace(",", "")),
        "gflop": float(gflop[1]),
        "machines": machines if machine in machines else [*machines, machine],
    }
    write_atomically(path, json.dumps(cost, indent=2) + "\n")


def installed() -> Iterator[tuple[str, str]]:
    """Name and version of every package of PACKAGES that is installed."""
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


if __name__ == "__main__":
    run_main(main)
