"""python -m benchmarks.roofline: how fast a GPU could be at most, and where the rest of the time may go, on paper.

The floor of a kernel is the larger of its operations / matrix rate and its bytes / memory bandwidth. The rates are
those of NVIDIA's data sheets for the SXM cards: H100 989 TFLOP/s in bfloat16 (dense) and 3.35 TB/s, H200 the same
rate and 4.8 TB/s. Nor does a kernel take less than the host needs to start it.

The figures of compiled code are an ESTIMATE: operations that are no product, convolution, attention or selection are
taken as one kernel as long as none of those comes between them; what such a kernel makes and uses itself is not
written to memory.
"""

import argparse
from itertools import groupby

from benchmarks.kernels import Operation, record
from benchmarks.machine import write_json

GPUS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}  # operations and bytes a second
SIZE = 224
LAUNCH = 4.5e-6  # seconds to start a kernel from eager PyTorch; 4 to 5 are usual, and more with a slow host
ALONE = ("matrix products", "convolutions", "attention", "selections")  # never fused with others by the estimate


def fused(operations: list[Operation]) -> list[Operation]:
    """The estimate of compiled code: what lies between two kernels that stand alone becomes one."""
    last_read = {block: i for i, operation in enumerate(operations) for block in operation.reads}
    kernels: list[Operation] = []
    for alone, chain in groupby(enumerate(operations), lambda numbered: numbered[1].group in ALONE):
        if alone:
            kernels += [operation for _, operation in chain]
            continue
        kernel, end = Operation("fused", 0, {}, {}), 0
        for end, operation in chain:  # noqa: B007
            kernel.reads |= {block: n for block, n in operation.reads.items() if block not in kernel.writes}
            kernel.writes |= operation.writes
        kernel.writes = {block: n for block, n in kernel.writes.items() if last_read.get(block, end + 1) > end}
        kernels.append(kernel)
    return kernels


def summarise(operations: list[Operation], gpu: str, batch: int) -> dict[str, float]:
    """Seconds of a step: the sum of floors, and with no kernel shorter than its launch."""
    floor = sum(o.floor(*GPUS[gpu]) for o in operations)
    expected = sum(max(o.floor(*GPUS[gpu]), LAUNCH) for o in operations)
    return {"kernels": len(operations), "floor_s": floor, "expected_s": expected, "images_per_s": batch / expected}


def by_group(operations: list[Operation], gpu: str) -> dict[str, dict[str, float]]:
    """Sums of each group, the longest first; below_launch: kernels that are shorter than their launch."""
    groups: dict[str, dict[str, float]] = {}
    for o in operations:
        row = groups.setdefault(o.group, dict.fromkeys(("kernels", "below_launch", "flops", "bytes", "floor_s"), 0))
        for key, value in zip(row, (1, o.floor(*GPUS[gpu]) < LAUNCH, o.flops, o.bytes, o.floor(*GPUS[gpu]))):
            row[key] += value
    return dict(sorted(groups.items(), key=lambda item: -item[1]["floor_s"]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__.split("\n")[0])
    parser.add_argument("--output", default="results/roofline.json", help="where the figures go")
    output, results = parser.parse_args().output, []
    for work, batch in (("train", 24), ("train", 128), ("infer", 24), ("infer", 128)):
        operations = record(work, batch, SIZE)
        row = {"work": work, "batch": batch, "size": SIZE}
        row |= {"flops": sum(o.flops for o in operations), "bytes": sum(o.bytes for o in operations)}
        print(f"\n{work}, batch {batch}: {row['flops'] / 1e12:.2f} TFLOP, {row['bytes'] / 1e9:.1f} GB")
        for gpu in GPUS:
            row[gpu] = {"groups": by_group(operations, gpu)}
            for form, kernels in (("eager", operations), ("compiled, estimate", fused(operations))):
                s = row[gpu][form] = summarise(kernels, gpu, batch)
                cells = f"{s['kernels']:5} kernels, floor {1e3 * s['floor_s']:6.1f} ms, with launches"
                print(f"  {gpu} {form:18} {cells} {1e3 * s['expected_s']:6.1f} ms: {s['images_per_s']:5.0f} images/s")
        print("    eager on H100          kernels  shorter than a launch   TFLOP      GB  floor, ms")
        for name, g in row["H100"]["groups"].items():
            cells = f"{g['kernels']:8.0f} {g['below_launch']:22.0f} {g['flops'] / 1e12:7.2f} {g['bytes'] / 1e9:7.1f}"
            print(f"    {name:21} {cells} {1e3 * g['floor_s']:10.2f}")
        results.append(row)
    write_json(output, {"launch_s": LAUNCH, "operations and bytes a second": GPUS, "results": results})


if __name__ == "__main__":
    main()
