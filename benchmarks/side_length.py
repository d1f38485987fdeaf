"""What grows how with the side of the image, from 224 to 1024 pixels.

    python -m benchmarks.side_length [--device auto] [--variant ours-bf16] [--sides 224,...,1024] [--batch 1]

Forward time, peak memory and operations of one inference, and with --work train of a training step, at every side, all
sides timed in turns. Fitted is the exponent p of cost ~ side^p over all sides, and the same between the two
largest alone, where what grows fastest shows: 2 is linear in the number of pixels, 4 is quadratic in it.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.machine import ROOT, spread, write_json
from benchmarks.measure import in_turns
from benchmarks.operations import TOTAL, count_operations, of_part
from benchmarks.remote import Remote
from benchmarks.station import INFER, TRAIN, Station
from benchmarks.variants import Variant, parse_variant
from utils.device import choose_device, describe_device

SIDES = "224,320,416,512,640,768,896,1024"
PARTS = ("stem", "encoder", "downsample", "decoder", "head")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default=INFER, choices=(INFER, TRAIN))
    parser.add_argument("--variant", default="ours-bf16")
    parser.add_argument("--sides", default=SIDES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", default=ROOT / "results" / "side_length.json")
    parser.add_argument("--smoke", action="store_true", help="two small sides, one round: does it run?")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    sides = [64, 96] if args.smoke else [int(side) for side in args.sides.split(",")]
    own_process = device.type == "cpu" and not args.smoke
    variant = parse_variant(args.variant)
    repeats = 1 if args.smoke else args.repeats
    rows = measure(variant, args.work, device, args.batch, sides, repeats, own_process)
    results = {"device": describe_device(device), "work": args.work, "variant": variant.name, "batch": args.batch}
    results |= {"rows": rows, "exponents": exponents(rows)}
    print("\n".join(report(rows, results["exponents"])))
    write_json(args.output, results)
    print(f"written: {args.output}")


def measure(
    variant: Variant, work: str, device: torch.device, batch: int, sides: Sequence[int], repeats: int, own_process: bool
) -> list[dict[str, Any]]:
    """One row a side; a side that does not fit into memory ends the list."""
    stations: dict[str, Station | Remote] = {}
    rows = []
    try:
        for side in sides:
            try:
                station = (Remote if own_process else Station)(variant, work, device, batch, side)
            except (RuntimeError, MemoryError) as error:
                print(f"side {side}: {str(error).strip().splitlines()[0]}")
                break
            stations[str(side)] = station
            used = station.memory["peak"] - station.memory.get("start", station.memory["network"])
            rows.append(
                {"side": side, "memory": station.memory, "bytes": used, "flop": count_parts(variant, device, side)}
            )
        times = in_turns({name: station.seconds for name, station in stations.items()}, repeats)
    finally:
        for station in stations.values():
            station.close()
    return [row | {"seconds": spread(t)} for row, t in zip(rows, times.values(), strict=True)]


def count_parts(variant: Variant, device: torch.device, side: int) -> dict[str, int]:
    """Operations of one image's forward pass, in total and by part of the network."""
    _, modules = count_operations(variant, device, side)
    return {TOTAL: modules[TOTAL]} | {part: of_part(modules, part) for part in PARTS}


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """p of cost ~ side^p: "all", fitted to all sides, and "largest", between the two largest."""
    sides = np.log([row["side"] for row in rows])
    costs = {"time": [row["seconds"]["median"] for row in rows], "memory": [row["bytes"] for row in rows]}
    costs |= {f"operations, {part}": [row["flop"][part] for row in rows] for part in rows[0]["flop"]}
    fitted = {}
    for what, values in costs.items():
        if len(values) > 1 and min(values) > 0:
            logs = np.log(values)
            last = (logs[-1] - logs[-2]) / (sides[-1] - sides[-2])
            fitted[what] = {"all": float(np.polyfit(sides, logs, 1)[0]), "largest": float(last)}
    return fitted


def report(rows: Sequence[dict[str, Any]], fitted: dict[str, dict[str, float]]) -> list[str]:
    text = [f"{'side':>6}{'median s':>10}{'spread':>8}{'MiB':>8}{'GFLOP':>9}" + "".join(f"{p:>12}" for p in PARTS)]
    for row in rows:
        t, flop = row["seconds"], row["flop"]
        parts = "".join(f"{flop[part] / 1e9:>12.2f}" for part in PARTS)
        text.append(
            f"{row['side']:>6}{t['median']:>10.4f}{(t['max'] - t['min']) / t['median']:>8.0%}"
            f"{row['bytes'] / 2**20:>8.0f}{flop[TOTAL] / 1e9:>9.1f}{parts}"
        )
    text.append(f"exponents of the side{'':<15}all sides   two largest")
    return text + [f"{what:<34}{p['all']:>11.2f}{p['largest']:>14.2f}" for what, p in fitted.items()]


if __name__ == "__main__":
    main(sys.argv[1:])
