"""What a step's time goes into: matrix products, convolutions, attention, everything that only moves memory.

    python -m benchmarks.breakdown [--variant ours-fp32] [--work train,infer] [--batch 8] [--size 224]

Every operation that PyTorch dispatches, forward and backward, is timed by itself (a GPU is waited for after
each). The times of the parts therefore add up to a little more than an undisturbed step, which is printed
beside them. Products, convolutions and attention together are the time that would be left if everything else
were fused away.
"""

import statistics
import sys
import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.machine import align, new_parser, write_json
from benchmarks.station import INFER, TRAIN, Station
from benchmarks.variants import parse_variant
from utils.device import choose_device, describe_device
from utils.training.allocator import keep_freed_memory

KERNELS = ("matrix products", "dense convolutions", "depthwise convolutions", "attention")  # of the libraries
PREFIXES = {
    "matrix products": "mm. addmm. bmm. baddbmm.",
    "attention": "_scaled_dot_product",
    "optimizer": "_fused_adamw_ lerp_ addcdiv_ _foreach",
    "norms": "native_layer_norm native_group_norm batch_norm native_batch_norm",
    "copies and gathers": "clone copy_ cat. _to_copy index_ constant_pad new_zeros zeros stack",
}


def kind_of(name: str, args: tuple[Any, ...]) -> str:
    """The part that the operation `name` (such as aten.mm.default) belongs to."""
    name = name.removeprefix("aten.")
    if name.startswith("convolution"):
        weight = args[2 if name.startswith("convolution_backward") else 1]
        return "depthwise convolutions" if weight.shape[1] == 1 else "dense convolutions"
    return next(
        (kind for kind, starts in PREFIXES.items() if name.startswith(tuple(starts.split()))), "other elementwise"
    )


class Stopwatch(TorchDispatchMode):
    """Seconds and calls of every kind of operation while the context lasts."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        result = function(*args, **(kwargs or {}))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        kind = kind_of(str(function), args)
        self.seconds[kind] += time.perf_counter() - start
        self.calls[kind] += 1
        return result


def measure(word: str, work: str, device: torch.device, batch: int, size: int, steps: int) -> dict[str, Any]:
    """One step undisturbed and by parts, milliseconds an image."""
    station = Station(parse_variant(word), work, device, batch, size)
    per_image = 1e3 / batch
    whole = statistics.median(station.seconds(1) for _ in range(steps)) * per_image
    with Stopwatch(device) as watch:
        station.seconds(steps)
    station.close()
    parts = {kind: seconds / steps * per_image for kind, seconds in watch.seconds.most_common()}
    calls = {kind: count // steps for kind, count in watch.calls.items()}
    kernels = sum(parts.get(kind, 0.0) for kind in KERNELS)
    setting = {"variant": word, "work": work, "batch": batch, "size": size}
    return setting | {"step_ms": whole, "kernels_ms": kernels, "parts_ms": parts, "calls": calls}


def main(argv: list[str]) -> None:
    parser = new_parser(__doc__, "breakdown.json")
    parser.add_argument("--variant", default="ours-fp32")
    parser.add_argument("--work", default=[TRAIN, INFER], type=lambda text: text.split(","))
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
        table = [("part", "ms", "share", "calls")]
        table += [(k, f"{ms:.1f}", f"{ms / total:.0%}", f"{row['calls'][k]}") for k, ms in row["parts_ms"].items()]
        print("\n".join(align(cells, (-24, 8, 7, 7)) for cells in table))
        print(f"products, convolutions and attention alone: {row['kernels_ms']:.1f} ms an image\n")
    write_json(args.output, {"device": describe_device(device), "rows": rows})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main(sys.argv[1:])
