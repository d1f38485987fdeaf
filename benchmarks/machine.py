"""What every benchmark shares: its options, its table, its result file and, in that, the machine's description."""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.device import num_cores

ROOT = Path(__file__).resolve().parent.parent


def new_parser(doc: str | None, output: str, device: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes, and those of a benchmark that measures on a device."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--output", default=ROOT / "results" / output, help="JSON file to write")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: does it run?")
    return parser


def words(text: str) -> list[str]:
    """The value of an option whose words are separated by commas."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """The value of an option whose whole numbers are separated by commas."""
    return [int(number) for number in text.split(",")]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header, columns aligned to the right; a row may be shorter than the header."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(len(header))]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)), flush=True)


def write_json(path: str | Path, results: dict[str, Any]) -> None:
    """Write the results, with the machine's description before them."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **results}, indent=2) + "\n", encoding="utf-8")


def describe_machine() -> dict[str, Any]:
    """CPU, cores this process may use, GPU, versions, commit (with `+` where the tree has changes) and command."""
    script = Path(sys.argv[0])
    name = script.parent.name if script.stem == "__main__" else script.stem
    return {
        "cpu": _cpu_model(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "commit": _commit(),
        "command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, cwd=ROOT, capture_output=True, encoding="utf-8").stdout.strip() or "unknown"
    except FileNotFoundError:
        return "unknown"
