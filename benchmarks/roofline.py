"""How fast a GPU could be at most, and where the rest of the time may go, on paper.

    python -m benchmarks.roofline

The floor of a kernel is the larger of its operations / matrix rate and its bytes / memory bandwidth. The rates are
those of NVIDIA's data sheets for the SXM cards: H100 989 TFLOP/s in bfloat16 (dense) and 3.35 TB/s, H200 the same
rate and 4.8 TB/s. Nor does a kernel take less than the host needs to start it.

The figures of compiled code are an ESTIMATE: operations that are no product, convolution, attention or selection are
taken as one kernel as long as none of those comes between them; what such a kernel makes and uses itself is not
written to memory.
"""

import itertools
import sys
from typing import Any

import numpy as np

from benchmarks.machine import new_parser, print_table, write_json
from benchmarks.operations import LIBRARIES, Operation, group_of, record
from benchmarks.station import INFER, TRAIN

GPUS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}  # operations and bytes a second
LAUNCH = 4.5e-6  # seconds to start a kernel from eager PyTorch; 4 to 5 are usual, and more with a slow host
ALONE = (*LIBRARIES, "selections")  # never fused with others by the estimate
COLUMNS = ("kernels", "below_launch", "flops", "bytes", "floor_s")


def main(argv: list[str]) -> None:
    args = new_parser(__doc__, "roofline.json", device=False).parse_args(argv)
    size, batches = (64, (1,)) if args.smoke else (224, (24, 128))
    results = []
    for work, batch in itertools.product((TRAIN, INFER), batches):
        operations = record(work, batch, size)
        row: dict[str, Any] = {"work": work, "batch": batch, "size": size}
        row |= {"flops": sum(o.flops for o in operations), "bytes": sum(o.bytes for o in operations)}
        print(f"\n{work}, batch {batch}: {row['flops'] / 1e12:.2f} TFLOP, {row['bytes'] / 1e9:.1f} GB")
        for gpu in GPUS:
            row[gpu] = {"groups": by_group(operations, gpu)}
            for form, kernels in (("eager", operations), ("compiled, estimate", fused(operations))):
                s = row[gpu][form] = summarise(kernels, gpu, batch)
                cells = f"{s['kernels']:5} kernels, floor {1e3 * s['floor_s']:6.1f} ms, with launches"
                print(f"  {gpu} {form:18} {cells} {1e3 * s['expected_s']:6.1f} ms: {s['images_per_s']:5.0f} images/s")
        groups = {name: [f"{n:.4g}" for n in group.values()] for name, group in row["H100"]["groups"].items()}
        print_table(("eager on H100", *COLUMNS), [(name, *cells) for name, cells in groups.items()])
        results.append(row)
    write_json(args.output, {"launch_s": LAUNCH, "operations and bytes a second": GPUS, "results": results})


def fused(operations: list[Operation]) -> list[Operation]:
    """The estimate of compiled code: what lies between two kernels that stand alone becomes one."""
    last_read = {block: i for i, operation in enumerate(operations) for block in operation.reads}
    kernels: list[Operation] = []
    for alone, chain in itertools.groupby(enumerate(operations), lambda numbered: group_of(numbered[1].name) in ALONE):
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


def floor(operation: Operation, gpu: str) -> float:
    """Seconds that a kernel takes at least."""
    rate, bandwidth = GPUS[gpu]
    return max(operation.flops / rate, operation.bytes / bandwidth)


def summarise(operations: list[Operation], gpu: str, batch: int) -> dict[str, float]:
    """Seconds of a step: the sum of floors, and with no kernel shorter than its launch."""
    floors = [floor(o, gpu) for o in operations]
    expected = sum(max(seconds, LAUNCH) for seconds in floors)
    return {"kernels": len(floors), "floor_s": sum(floors), "expected_s": expected, "images_per_s": batch / expected}


def by_group(operations: list[Operation], gpu: str) -> dict[str, dict[str, float]]:
    """COLUMNS of each group, the longest first; below_launch: kernels that are shorter than their launch."""
    sums: dict[str, np.ndarray] = {}
    for o in operations:
        seconds, group = floor(o, gpu), group_of(o.name)
        sums[group] = sums.get(group, 0) + np.array([1, seconds < LAUNCH, o.flops, o.bytes, seconds])
    ordered = sorted(sums.items(), key=lambda item: -item[1][-1])
    return {group: dict(zip(COLUMNS, numbers.tolist())) for group, numbers in ordered}


if __name__ == "__main__":
    main(sys.argv[1:])
