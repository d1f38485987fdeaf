"""What every benchmark shares: its options, its result file and, in that, the machine's description."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent


def new_parser(doc: str | None, output: str, device: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes, and `--device` where one is used."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--output", default=ROOT / "results" / output, help="JSON file to write")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: does it run?")
    return parser


def numbers(text: str) -> list[int]:
    """An option's whole numbers, separated by commas."""
    return [int(number) for number in text.split(",")]


def write_json(path: str | Path, results: dict[str, Any]) -> None:
    """Write the results, with the machine's description before them."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **results}, indent=2) + "\n", encoding="utf-8")


def describe_machine() -> dict[str, Any]:
    """CPU, cores this process may use, GPU, versions, commit (with `+` where the tree has changes) and command."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "commit": _commit(),
        "command": f"python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        return commit + "+" if git("status", "--porcelain", "--untracked-files=no") else commit or "unknown"
    except FileNotFoundError:
        return "unknown"


def align(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a table; negative widths align to the left, the last cell may be longer than its column."""
    text = [cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in zip(cells, widths)]
    return " ".join(text).rstrip()
