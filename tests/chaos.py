"""Kill trainings at random moments, let them go on, and compare with one that was left alone, bit for bit.

    python -m tests.chaos --minutes 5            # as many kills as fit
    python -m tests.chaos --kills 20 --seed 3

Each round trains `train.py` with a tiny network on small data in a process of its own. At random moments it gets
SIGKILL or SIGTERM, and is started again with --resume, until it has finished. Then everything in its checkpoints must
equal that of the run that was left alone. Not on Windows, which cannot fork.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # here, so that no child has to import it

import train
from models.build import NETWORKS
from tests.support.toy import ToyNetwork
from tests.support.trees import write_synapse_tree
from utils import checkpoint
from utils.checkpoint_content import leaves
from utils.errors import UserError, run_main
from utils.training.folder import BEST, LAST

EPOCHS = 4
OF_THE_CLOCK = ("images_per_s", "output_dir", "resume", "force")  # what may differ between two runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="stop after so many minutes")
    parser.add_argument("--kills", type=int, default=1_000_000, help="stop after so many kills")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = attack(Path(folder), given.kills, time.monotonic() + 60 * given.minutes, random.Random(given.seed))
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return 1 if counts["runs that differ"] or counts["failures"] else 0


def attack(folder: Path, kills: int, until: float, moments: random.Random) -> Counter:
    """Kill runs until there are `kills` or the time is over; what happened, counted."""
    torch.set_num_threads(1)
    tree = write_synapse_tree(folder / "tree", num_cases=4, slices=8, size=32)
    began = time.monotonic()
    assert finish(start(folder / "whole", tree)) == 0, "the run that is left alone fails"
    length = time.monotonic() - began
    whole = content(folder / "whole")
    counts = Counter(dict.fromkeys(("SIGKILL", "SIGTERM", "runs", "runs that differ", "failures"), 0))
    counts["most updates lost by SIGKILL"] = counts["most updates lost by SIGTERM"] = 0

    def enough() -> bool:
        return counts["SIGKILL"] + counts["SIGTERM"] >= kills or time.monotonic() > until

    while not enough():
        out = folder / "run"
        survive(out, tree, enough, length, moments, counts)
        counts["runs"] += 1
        counts["runs that differ"] += content(out) != whole
        counts["files left over"] += len(list(out.glob(".part-*")))
        shutil.rmtree(out)
    return counts


def survive(
    out: Path, tree: Path, enough: Callable[[], bool], length: float, moments: random.Random, counts: Counter
) -> None:
    """One run, killed and started again until it has finished; once that is `enough`, it is left alone."""
    while True:
        child, kind = start(out, tree), moments.choice(("SIGKILL", "SIGTERM"))
        if enough():
            counts["failures"] += unexpected(finish(child), (0,), out)
            return
        wait(out, 1.2 * length, moments)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:  # by itself
            counts["failures"] += unexpected(os.waitstatus_to_exitcode(status), (0,), out)
            return
        os.kill(child, getattr(signal, kind))
        counts[kind] += 1
        code = finish(child)
        seen, kept = progress(out)
        lost = f"most updates lost by {kind}"
        counts[lost] = max(counts[lost], seen - kept)
        # 0: stopped in order by SIGTERM, or just ended by itself; else the signal: SIGTERM before the training began
        counts["failures"] += unexpected(code, (0, -getattr(signal, kind)), out)


def unexpected(code: int, expected: tuple[int, ...], out: Path) -> bool:
    """Whether a run ended with another code than expected; if so, prints the end of its log."""
    if code not in expected:
        print(f"exit code {code}, expected {expected}:\n{(out.parent / 'log.txt').read_text()[-2000:]}", flush=True)
    return code not in expected


def wait(out: Path, longest: float, moments: random.Random) -> None:
    """Wait for a random moment of up to `longest` seconds; in half of the cases for one at which a file is written."""
    if moments.random() < 0.5:
        time.sleep(moments.uniform(0, longest))
        return
    looks, until = moments.randint(1, 30), time.monotonic() + longest
    while looks and time.monotonic() < until:
        looks -= any(out.glob(".part-*"))


def start(out: Path, tree: Path) -> int:
    """Begin the run, or go on with it, in a child process; returns its number."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    code = 1
    try:
        with (out.parent / "log.txt").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        NETWORKS["toy"] = lambda cfg: Counting(cfg.num_classes, out / "updates")
        flags = ["--resume"] if (out / LAST).exists() else [*new_run(tree), *["--force"] * (out / BEST).exists()]
        sys.argv = ["train.py", *flags, "--output_dir", str(out)]
        run_main(train.main)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def new_run(tree: Path) -> list[str]:
    flags = f"--dataset {tree} --list_dir {tree}/lists --network toy --img_size 32 --epochs {EPOCHS} --batch_size 4"
    return f"{flags} --ema 0.9 --val_cases 1 --device cpu --precision fp32 --lr 0.01 --restart_iterations 5".split()


class Counting(ToyNetwork):
    """The toy network, slowed down so that there is something to interrupt; notes in a file how far it came."""

    def __init__(self, num_classes: int, notes: Path) -> None:
        super().__init__(num_classes)
        self.notes = notes

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        time.sleep(0.01)
        if self.training:
            with self.notes.open("a") as file:
                file.write("x")
        return super().forward(x, keep)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def progress(out: Path) -> tuple[int, int]:
    """(updates begun since the last look that was not lost, updates kept); the notes are cut to what was kept."""
    notes = out / "updates"
    begun = notes.stat().st_size if notes.exists() else 0
    kept = checkpoint.read(out / LAST)["iteration"] if (out / LAST).exists() else 0
    if notes.exists():
        os.truncate(notes, min(begun, kept))
    return begun, min(begun, kept)


def content(out: Path) -> dict[str, Any] | None:
    """All that both checkpoints of a run hold but for the clock; None where one cannot be read."""
    found = {}
    try:
        for name in (LAST, BEST):
            for place, value in leaves(checkpoint.read(out / name), name):
                if place.rsplit(".", 1)[-1] not in OF_THE_CLOCK:
                    found[f"{name}: {place}"] = value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
    except UserError:
        return None
    return found


if __name__ == "__main__":
    sys.exit(main())
