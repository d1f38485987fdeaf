"""What a step's time goes into: matrix products, convolutions, attention, everything that only moves memory.

    python -m benchmarks.breakdown [--variant ours-fp32] [--work train,infer] [--batch 8] [--size 224]

PyTorch's profiler times every operation, forward and backward; on a GPU the time is that of its kernels. The profiler
costs some time itself, so an undisturbed step is timed too and printed beside the parts. Products, convolutions and
attention together are the time that would be left if everything else were fused away.
"""

import statistics
import sys
from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import new_parser, print_table, words, write_json
from benchmarks.operations import LIBRARIES, group_of
from benchmarks.station import INFER, TRAIN, Station
from benchmarks.variants import parse_variant
from utils.device import choose_device, describe_device
from utils.training.allocator import keep_freed_memory


def main(argv: list[str]) -> None:
    parser = new_parser(__doc__, "breakdown.json")
    parser.add_argument("--variant", default="ours-fp32")
    parser.add_argument("--work", type=words, default=[TRAIN, INFER])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args(argv)
    if args.smoke:
        args.batch, args.size, args.repeats = 1, 32, 1
    device = choose_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()  # as train.py does
    rows = [measure(args.variant, work, device, args.batch, args.size, args.repeats) for work in args.work]
    for row in rows:
        total = sum(row["parts_ms"].values())
        print(f"{row['work']}, batch {row['batch']}, {row['size']}x{row['size']}: {row['step_ms']:.1f} ms an image")
        cells = [(part, f"{ms:.1f}", f"{ms / total:.0%}") for part, ms in row["parts_ms"].items()]
        print_table(("part", "ms", "share"), cells)
        print(f"products, convolutions and attention alone: {row['kernels_ms']:.1f} ms an image\n")
    write_json(args.output, {"device": describe_device(device), "rows": rows})
    print(f"written: {args.output}")


def measure(word: str, work: str, device: torch.device, batch: int, size: int, steps: int) -> dict[str, Any]:
    """One step undisturbed and by parts, milliseconds an image."""
    station = Station(parse_variant(word), work, device, batch, size)
    whole = statistics.median(station.seconds(1) for _ in range(steps)) * 1e3 / batch
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as profiler:
        station.seconds(steps)
    station.close()
    parts: Counter[str] = Counter()
    for event in profiler.key_averages():
        time = event.self_device_time_total if cuda else event.self_cpu_time_total  # microseconds of all steps
        if event.key.startswith("aten::") and time > 0:
            parts[group_of(event.key.removeprefix("aten::"))] += time / steps / 1e3 / batch
    kernels = sum(parts[group] for group in LIBRARIES)
    setting = {"variant": word, "work": work, "batch": batch, "size": size}
    return setting | {"step_ms": whole, "kernels_ms": kernels, "parts_ms": dict(parts.most_common())}


if __name__ == "__main__":
    main(sys.argv[1:])
