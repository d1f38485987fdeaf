"""A station in a process of its own: its peak memory is its own, and so is the allocator's setting.

Parent and child talk in lines of JSON; the parent may keep several children and let them step in turns.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import memory
from benchmarks.machine import ROOT
from benchmarks.station import Station
from benchmarks.variants import Variant
from utils.training.allocator import keep_freed_memory

ENVIRONMENT = {
    "kept": {"MALLOC_MMAP_THRESHOLD_": str(2**34), "MALLOC_TRIM_THRESHOLD_": str(2**34)},
    "huge": {"THP_MEM_ALLOC_ENABLE": "1"},
}


class Remote:
    """As `Station`, in a child process; its memory has "start" too, the bytes before the network was built.

    raises: RuntimeError with the child's last words when it fails
    """

    def __init__(self, variant: Variant, work: str, device: torch.device, batch: int, size: int) -> None:
        given = {"variant": asdict(variant), "work": work, "device": str(device), "batch": batch, "size": size}
        self.name = variant.name
        self.child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.remote", json.dumps(given)],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT.get(variant.memory, {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.memory = self._answer()

    def seconds(self, count: int) -> float:
        with contextlib.suppress(BrokenPipeError):  # its end is told by the missing answer
            self.child.stdin.write(f"{count}\n")
            self.child.stdin.flush()
        return self._answer()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()
        self.child.wait()
        self.child.stdout.close()

    def _answer(self) -> Any:
        line = self.child.stdout.readline()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if isinstance(answer, dict) and "error" in answer:
            self.close()
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        code = self.child.wait()
        killed = "; killed by the system, so probably out of memory: compare fewer variants at once"
        return f"its process ended with code {code}{killed if code == -signal.SIGKILL else ''}"


def serve(given: dict[str, Any]) -> None:
    """Build the station, answer with its memory, then with the seconds a step for every number of steps asked for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed goes to stderr

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        variant = Variant(**given["variant"])
        if variant.memory == "allocator":
            keep_freed_memory()
        start = memory.resident()
        station = Station(variant, given["work"], torch.device(given["device"]), given["batch"], given["size"])
        answer(station.memory | {"start": start})
        for line in sys.stdin:
            answer(station.seconds(int(line)))
    except (RuntimeError, ImportError, MemoryError) as error:
        answer({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"})


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
