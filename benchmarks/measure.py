"""Variants timed in turns within one run, so that what slows the machine for a while slows all of them.

Ratios are taken round by round: the median of the rounds' ratios survives a noisy machine, the
ratio of two medians does not.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch

from benchmarks.machine import spread
from benchmarks.operations import TOTAL, count_operations
from benchmarks.remote import Remote
from benchmarks.station import TRAIN, Station
from benchmarks.variants import Variant, parse_variant

Row = dict[str, Any]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ENOUGH = 0.2  # seconds of a timing: shorter steps are timed several at once
TRAINING_FORWARDS = 3  # operations of a training step in forward passes: two products backward for each forward


def in_turns(calls: dict[str, Callable[[int], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds a step of every call, timed A B C A B C ...; a call takes the number of steps to time at once."""
    counts = {name: max(1, min(50, math.ceil(ENOUGH / max(call(1), 1e-6)))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(call(counts[name]))
    return times


def ratio(base: Sequence[float], other: Sequence[float]) -> dict[str, float | int]:
    """How many times faster `other` is than `base`: median and extremes of the rounds."""
    return spread([b / o for b, o in zip(base, other, strict=True)])


def matrix_product(device: torch.device, precision: str, side: int) -> Callable[[int], float]:
    """Timer of a product of two square matrices of random numbers; 2 * side^3 operations."""
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))

    def seconds(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (perf_counter() - start) / count

    seconds(3)
    return seconds


def compare(
    variants: Sequence[Variant],
    work: str,
    device: torch.device,
    batch: int,
    size: int,
    repeats: int,
    side: int,
    own_process: bool,
) -> list[Row]:
    """One row a variant of one kind of work at one setting, timed in turns with products of `side` x `side` matrices.

    A variant that cannot run (memory, a package, the compiler) gets a row with its "error".
    own_process: each variant in a process of its own, for its peak memory and its allocator
    out: seconds and ratio to the first variant (with their spread), images_per_s, bytes, and the fraction reached of
    the matrix rate measured in the same precision
    """
    make = Remote if own_process else Station
    rows: dict[str, Row] = {}
    stations: dict[str, Station | Remote] = {}
    try:
        for variant in variants:
            row = {"work": work, "size": size, "batch": batch, "variant": variant.name}
            rows[variant.name] = row
            try:
                row["parameters"], modules = count_operations(_counted(variant), device, size)
                row["flop_per_image"] = modules[TOTAL]
                stations[variant.name] = make(variant, work, device, batch, size)
                row["memory"] = stations[variant.name].memory
            except (RuntimeError, ImportError, MemoryError) as error:
                row["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                if device.type == "cuda":
                    torch.cuda.empty_cache()  # what the failed attempt held
        if stations:
            precisions = {v.precision for v in variants if v.name in stations}
            products = {f"matrix {p}": matrix_product(device, p, side) for p in sorted(precisions)}
            calls = {name: station.seconds for name, station in stations.items()}
            times = in_turns(calls | products, repeats)
            for variant in (v for v in variants if v.name in stations):
                rate = [2 * side**3 / t for t in times[f"matrix {variant.precision}"]]
                rows[variant.name] |= _figures(rows[variant.name], times[variant.name], rate)
            first = next(iter(stations))
            for name in stations:
                rows[name]["faster_than"] = first
                rows[name]["ratio"] = ratio(times[first], times[name])
    finally:
        for station in stations.values():
            station.close()
        torch.compiler.reset()  # else the next networks of this process meet the compiler's limit of versions
    return list(rows.values())


def _counted(variant: Variant) -> Variant:
    """The variant whose operations count for `variant`: precision and compiler change none."""
    return parse_variant(f"{variant.network}-{variant.ssd}")


def _figures(row: Row, times: list[float], rate: list[float]) -> Row:
    flop = row["flop_per_image"] * row["batch"] * (TRAINING_FORWARDS if row["work"] == TRAIN else 1)
    reached = [flop / t / r for t, r in zip(times, rate)]
    return {
        "seconds": spread(times),
        "images_per_s": row["batch"] / statistics.median(times),
        "matrix_flop_per_s": statistics.median(rate),
        "fraction_of_matrix_rate": statistics.median(reached),
    }
