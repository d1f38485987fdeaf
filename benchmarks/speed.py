"""Training and inference speed and peak memory, against a plainly written network and the machine's matrix rate.

    python -m benchmarks.speed [--device auto] [--work train,infer] [--batch 8] [--size 224] [--variants ...]
    python -m benchmarks.speed --malloc          # CPU: what becomes of freed memory, see utils/training/allocator.py
    python -m benchmarks.speed --smoke           # tiny sizes: does it run?

Every batch is combined with every size. The first variant is the one that the column `times` refers to. A variant
is a word such as ours-bf16-compiled-noncausal: `benchmarks/variants.py` lists what it may be made of. On a CPU each
runs in a process of its own, which makes its peak memory (the whole process) comparable; all of them take turns.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.machine import ROOT, write_json
from benchmarks.measure import compare
from benchmarks.station import INFER, TRAIN
from benchmarks.tables import lines
from benchmarks.variants import CHOICES, parse_variants
from utils.device import choose_device, describe_device

ON_CPU = "plain-fp32,plain-bf16,ours-fp32,ours-bf16,ours-fp32-compiled,ours-bf16-compiled,ours-bf16-noncausal"
ON_GPU = f"{ON_CPU},ours-bf16-compiled-noncausal,ours-bf16-graphs,ours-bf16-bidirectional,ours-bf16-products"
MALLOC = "plain-fp32,ours-fp32,ours-bf16"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "speed.json")
    parser.add_argument("--variants", help="words with commas; the first is the reference")
    parser.add_argument("--malloc", action="store_true", help="each variant under every treatment of freed memory")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    variants = parse_variants(args.variants or (MALLOC if args.malloc else ON_CPU if device.type == "cpu" else ON_GPU))
    if args.smoke and not args.variants:
        variants = parse_variants("plain-fp32,ours-fp32")
    if args.malloc:
        variants = [dataclasses.replace(v, memory=memory) for v in variants for memory in CHOICES["memory"]]
    results: dict[str, Any] = {"device": describe_device(device), "rows": []}
    for index, (work, batch, size) in enumerate(settings(args)):
        repeats, side = (1, 256) if args.smoke else (args.repeats, matrix_side(device))
        rows = compare(variants, work, device, batch, size, repeats, side, own_process=device.type == "cpu")
        print("\n".join(lines(rows, header=index == 0)), flush=True)
        results["rows"] += rows
        write_json(args.output, results)
    print(f"written: {args.output}")


def add_options(parser: argparse.ArgumentParser, output: str) -> None:
    """What every speed benchmark takes."""
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=_words, default=[TRAIN, INFER], help="train, infer or both")
    parser.add_argument("--batch", type=_numbers, default=[8], help="batch sizes with commas")
    parser.add_argument("--size", type=_numbers, default=[224], help="sides in pixels with commas")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--output", default=ROOT / "results" / output)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: does it run?")


def settings(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """(work, batch, size) in the order of measuring."""
    if args.smoke:
        yield from ((work, 1, 64) for work in args.work)
        return
    yield from ((work, batch, size) for size in args.size for batch in args.batch for work in args.work)


def matrix_side(device: torch.device) -> int:
    """Side of matrices large enough to reach the machine's rate and small enough to take no time."""
    return 8192 if device.type == "cuda" else 1536


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main(sys.argv[1:])
