"""How everything is timed: in turns within one run, so that what slows the machine for a while slows all alike.

Ratios are taken round by round. The median of the rounds' ratios survives a noisy machine, the ratio of two medians
does not.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch

Timer = Callable[[int], float]  # number of steps -> seconds a step
ENOUGH = 0.2  # seconds of a timing: shorter steps are timed several at once
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def timer(step: Callable[[], Any], device: torch.device) -> Timer:
    """A function that runs some number of steps, waits for the device, and returns the seconds of one."""

    def seconds(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (perf_counter() - start) / count

    return seconds


def in_turns(timers: dict[str, Timer], repeats: int) -> dict[str, list[float]]:
    """Seconds a step of each timer in every round, timed A B C A B C ..."""
    counts = {name: max(1, min(50, math.ceil(ENOUGH / max(call(1), 1e-6)))) for name, call in timers.items()}
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(repeats):
        for name, call in timers.items():
            times[name].append(call(counts[name]))
    return times


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, extremes and number of the values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "repeats": len(values)}


def ratio(base: Sequence[float], other: Sequence[float]) -> dict[str, float | int]:
    """How many times faster `other` is than `base`: median and extremes of the rounds."""
    return spread([b / o for b, o in zip(base, other, strict=True)])


def matrix_side(device: torch.device) -> int:
    """Side of matrices large enough to reach the machine's rate and small enough to take no time."""
    return 8192 if device.type == "cuda" else 1536


def matrix_product(device: torch.device, precision: str, side: int) -> Timer:
    """Timer of a product of two square matrices of random numbers; 2 * side^3 operations."""
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    seconds = timer(lambda: a @ b, device)
    seconds(3)
    return seconds
