"""Seconds to score one CT-sized volume: ours inside bounding boxes, MedPy on the whole volume.

    python -m benchmarks.scoring

The labels are a case of the phantom, enlarged to 120 x 512 x 512 voxels with 8 organs. There are two predictions of
them. In `good` everything is moved a little. `stray` has a few voxels of every class far away in opposite corners
besides, so that every bounding box is nearly the whole volume. MedPy is called once, as the published scripts do, on
whole masks; its figures and ours under `legacy` must be identical.
"""

import sys
from collections import defaultdict
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.machine import new_parser, print_table, write_json
from benchmarks.measure import spread
from datasets.phantom.generate import draw_case
from datasets.phantom.organs import CLASS_NAMES
from utils.scoring.protocols import score_volume

SIZE, SLICES, SCALE = 128, 30, 4  # of the phantom, and how many times larger it is scored
SPACING = (3.0, 0.75, 0.75)
REPEATS = 7


def main(argv: list[str]) -> None:
    args = new_parser(__doc__, "scoring.json", device=False).parse_args(argv)
    size, slices, scale, repeats = (48, 12, 1, 1) if args.smoke else (SIZE, SLICES, SCALE, REPEATS)
    target = draw_case("case", (1,), size, slices).label.astype(np.uint8)
    target = target.repeat(scale, 0).repeat(scale, 1).repeat(scale, 2)
    results: dict[str, Any] = {}
    for name, stray in (("good", False), ("stray", True)):
        results[name] = found = measure(predict(target, stray), target, repeats)
        faster = found["times_faster_than_medpy"]
        rows = [(name, what, f"{t['median']:.2f}", f"{faster[what]:.1f}") for what, t in found["seconds"].items()]
        print_table(("prediction", "measured", "median s", "times"), rows)
        print(f"{name}: legacy figures identical to MedPy's: {'yes' if found['identical'] else 'NO'}", flush=True)
        write_json(args.output, results)
    print(f"written: {args.output}")


def predict(target: np.ndarray, stray: bool) -> np.ndarray:
    """The labels moved by a voxel or two; under `stray` also a block of each class near two opposite corners."""
    labels = np.roll(target, (1, 2, -2), (0, 1, 2))
    for label in range(1, len(CLASS_NAMES) + 1) if stray else ():
        at = 2 + 4 * label
        labels[1:3, 1:3, at : at + 2] = label
        labels[-3:-1, -3:-1, -at - 2 : -at] = label
    return labels


def measure(prediction: np.ndarray, target: np.ndarray, repeats: int) -> dict[str, Any]:
    """Seconds under both protocols, and of MedPy on whole masks, with our figures held against its."""
    from medpy.metric.binary import dc, hd95

    seconds = defaultdict(list)
    for _ in range(repeats):
        for protocol, spacing in (("legacy", None), ("standard", SPACING)):
            began = perf_counter()
            rows = score_volume("volume", prediction, target, CLASS_NAMES, protocol, spacing)
            seconds[protocol].append(perf_counter() - began)
            if protocol == "legacy":
                figures = [(row["dice"], row["hd95_px"]) for row in rows]
    began = perf_counter()
    masks = [(prediction == label, target == label) for label in range(1, len(CLASS_NAMES) + 1)]
    theirs = [(float(dc(p, t)), float(hd95(p, t))) for p, t in masks]
    seconds["MedPy"].append(perf_counter() - began)
    times = {what: spread(values) for what, values in seconds.items()}
    faster = {what: times["MedPy"]["median"] / t["median"] for what, t in times.items()}
    return {"shape": target.shape, "seconds": times, "times_faster_than_medpy": faster, "identical": figures == theirs}


if __name__ == "__main__":
    main(sys.argv[1:])
