"""Images a second and peak memory of training and inference: against a plainly written network, and against others.

    python -m benchmarks.speed [--device auto] [--work train,infer] [--batch 8] [--size 224] [--variants ...]
    python -m benchmarks.speed --peers bf16                   # the networks that users would pick instead
    python -m benchmarks.speed --size 224,448,896 --variants ours-fp32   # what grows how with the image's side

Every batch is combined with every size. Variants are words such as ours-bf16-compiled-noncausal (`variants.py` lists
what they are made of); they take turns, and the column `times` is how many times faster each is than the first.

The peers are U-Nets with a ResNet-34 and an EfficientNet-B4 encoder, a SegFormer of B2's size
(segmentation_models_pytorch), and nnU-Net's plain and residual 2-D U-Nets as it plans them for the size, without deep
supervision (dynamic_network_architectures). One whose package is missing gets a line that says so.
"""

import itertools
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import new_parser, numbers, print_table, words, write_json
from benchmarks.measure import in_turns, matrix_product, matrix_side, ratio, spread
from benchmarks.station import FAILURES, INFER, TRAIN, Remote, Station, open_station, without_kernel
from benchmarks.variants import PEERS, Variant, build_network, parse_variant
from utils.device import choose_device, describe_device

Row = dict[str, Any]
ON_CPU = "plain-fp32,plain-bf16,ours-fp32,ours-bf16,ours-fp32-compiled,ours-bf16-compiled,ours-bf16-noncausal"
ON_GPU = f"{ON_CPU},ours-bf16-compiled-noncausal,ours-bf16-graphs,ours-bf16-bidirectional,ours-bf16-products"
# A training step's operations in forward passes: two products backward for each forward. PyTorch's counter takes
# the backward pass of a depthwise convolution for that of a full one.
FORWARDS = {TRAIN: 3, INFER: 1}
HEADER = ("work", "size", "batch", "variant", "images/s", "s/image", "spread", "times", "peak MiB", "of rate")


def main(argv: list[str]) -> None:
    parser = new_parser(__doc__, "speed.json")
    parser.add_argument("--work", type=words, default=[TRAIN, INFER], help="train, infer or both")
    parser.add_argument("--batch", type=numbers, default=[8], help="batch sizes with commas")
    parser.add_argument("--size", type=numbers, default=[224], help="sides in pixels with commas")
    parser.add_argument("--variants", help="words with commas; the first is the reference")
    parser.add_argument("--peers", metavar="SETTING", help="instead: ours and the peers in this setting, such as bf16")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    chosen = args.variants or (ON_CPU if device.type == "cpu" else ON_GPU)
    if args.smoke:
        args.batch, args.size, args.repeats = [2], [32], 1
        chosen = args.variants or "plain-fp32,ours-fp32"
    if args.peers:
        chosen = with_peers(args.peers)
    results: dict[str, Any] = {"device": describe_device(device), "rows": []}
    for size, batch, work in itertools.product(args.size, args.batch, args.work):
        found = compare(chosen, work, device, batch, size, args.repeats)
        print_rows(found)
        results["rows"] += found
        results["exponents"] = exponents(results["rows"])
        write_json(args.output, results)
    for name, fitted in results["exponents"].items():
        print(f"{name}: cost grows with the side to the power {', '.join(f'{p:.2f} ({c})' for c, p in fitted.items())}")
    print(f"written: {args.output}")


def with_peers(setting: str) -> str:
    """Our network and the peers as variants in one setting, joined by commas."""
    return ",".join(f"{network}-{setting}" for network in ("ours", *PEERS))


def compare(chosen: str, work: str, device: torch.device, batch: int, size: int, repeats: int) -> list[Row]:
    """Time the variants, named with commas, in turns with large matrix products: one row each.

    A variant that cannot run (memory, a package, the compiler) gets a row with its "error".
    out: seconds and ratio to the first variant (with their spread), images_per_s, bytes, and the fraction reached of
    the matrix rate measured in the same precision
    """
    variants = [parse_variant(word) for word in chosen.split(",")]
    rows: dict[str, Row] = {}
    stations: dict[str, Station | Remote] = {}
    side = matrix_side(device)
    try:
        for variant in variants:
            row = rows[variant.name] = {"work": work, "size": size, "batch": batch, "variant": variant.name}
            try:
                counted = Variant(variant.network, ssd=variant.ssd)  # precision and compiler change no operation
                row["parameters"], row["flop_per_image"] = count_operations(counted, device, size)
                stations[variant.name] = open_station(variant, work, device, batch, size)
                row["memory"] = stations[variant.name].memory
            except FAILURES as error:
                row["error"] = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
                if device.type == "cuda":
                    torch.cuda.empty_cache()  # what the failed attempt held
        running = [variant for variant in variants if variant.name in stations]
        timers = {name: station.seconds for name, station in stations.items()}
        timers |= {f"matrix {p}": matrix_product(device, p, side) for p in sorted({v.precision for v in running})}
        times = in_turns(timers, repeats)
        for variant in running:
            row, own, product = rows[variant.name], times[variant.name], times[f"matrix {variant.precision}"]
            flop, rate = row["flop_per_image"] * batch * FORWARDS[work], [2 * side**3 / t for t in product]
            row["seconds"], row["images_per_s"] = spread(own), batch / statistics.median(own)
            row["matrix_flop_per_s"] = statistics.median(rate)
            row["fraction_of_matrix_rate"] = statistics.median(flop / t / r for t, r in zip(own, rate))
            row["faster_than"], row["ratio"] = running[0].name, ratio(times[running[0].name], own)
    finally:
        for station in stations.values():
            station.close()
        torch.compiler.reset()  # else the next networks of this process meet the compiler's limit of versions
    return list(rows.values())


@cache
def count_operations(variant: Variant, device: torch.device, size: int) -> tuple[int, int]:
    """(parameters, operations of one image's forward pass): products, convolutions and attention.

    A multiplication and an addition are two operations. The counter does not see inside mamba_ssm's kernel.
    """
    network = build_network(variant, size).to(device).eval()
    with without_kernel(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, size, size, device=device))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops()


def exponents(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """p of cost ~ side^p, fitted for every work, variant and batch that was measured at several sizes."""
    curves = defaultdict(list)
    for row in rows:
        if "seconds" in row:
            costs = {"time": row["seconds"]["median"], "operations": row["flop_per_image"]}
            costs["memory"] = row["memory"]["peak"] - row["memory"].get("start", 0)
            curves[f"{row['work']} {row['variant']}, batch {row['batch']}"].append((row["size"], costs))
    return {
        name: {
            what: float(np.polyfit(*np.log([(size, costs[what]) for size, costs in curve]).T, 1)[0])
            for what in ("time", "memory", "operations")
        }
        for name, curve in curves.items()
        if len(curve) > 1
    }


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows of `compare`. spread: (slowest - fastest) / median; of rate: fraction of the matrix rate."""
    table = []
    for row in rows:
        cells = [row["work"], str(row["size"]), str(row["batch"]), row["variant"]]
        if "seconds" in row:
            t = row["seconds"]
            cells += [f"{row['images_per_s']:.4g}", f"{t['median'] / row['batch']:.3g}"]
            cells += [f"{(t['max'] - t['min']) / t['median']:.0%}", f"{row['ratio']['median']:.2f}"]
            cells += [f"{row['memory']['peak'] / 2**20:.0f}", f"{row['fraction_of_matrix_rate']:.3f}"]
        table.append(cells)
    print_table(HEADER, table)
    for row in rows:
        if "error" in row:
            print(f"{row['variant']}: {row['error']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
