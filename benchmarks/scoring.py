"""Seconds to score one CT-sized volume: ours inside bounding boxes, MedPy on the whole volume.

    python -m benchmarks.scoring [--repeats 7]

A synthetic abdomen of 120 x 512 x 512 voxels with 8 ellipsoid organs, and two predictions of it. In `good` the
organs are moved and scaled a little. `stray` has a few voxels of every class far away in opposite corners besides, so
that every bounding box is nearly the whole volume. MedPy is called once, as the published scripts do, on whole masks;
its figures and ours under `legacy` must be identical.
"""

import sys
from collections import defaultdict
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.machine import align, new_parser, write_json
from benchmarks.measure import spread
from utils.scoring.protocols import score_volume

SHAPE, SPACING = (120, 512, 512), (3.0, 0.75, 0.75)
WIDTHS = (-11, -9, 9, 7)
# centre and radii (z, y, x) in voxels, of about the size of a patient's organs
ORGANS = {
    "aorta": ((60, 300, 262), (58, 14, 14)),
    "gallbladder": ((62, 210, 170), (9, 24, 22)),
    "left kidney": ((50, 320, 370), (18, 38, 34)),
    "right kidney": ((46, 320, 150), (18, 38, 34)),
    "liver": ((78, 230, 160), (36, 110, 105)),
    "pancreas": ((62, 260, 270), (8, 30, 80)),
    "spleen": ((84, 290, 400), (20, 52, 34)),
    "stomach": ((86, 200, 330), (24, 56, 76)),
}


def main(argv: list[str]) -> None:
    parser = new_parser(__doc__, "scoring.json", device=False)
    args = parser.parse_args(argv)
    scale, repeats = (0.1, 1) if args.smoke else (1.0, args.repeats)
    results: dict[str, Any] = {}
    print(align(("prediction", "measured", "median s", "times"), WIDTHS))
    for name in ("good", "stray"):
        results[name] = found = measure(scale, name == "stray", repeats)
        for what, times in found["seconds"].items():
            cells = (name, what, f"{times['median']:.2f}", f"{found['times_faster_than_medpy'][what]:.1f}")
            print(align(cells, WIDTHS), flush=True)
        print(f"{name}: legacy figures identical to MedPy's: {'yes' if found['identical'] else 'NO'}")
        write_json(args.output, results)
    print(f"written: {args.output}")


def abdomen(scale: float, moved: bool = False, stray: bool = False) -> np.ndarray:
    """Label map, uint8; `moved` organs are up to 3 voxels away and 8 % larger or smaller."""
    rng = np.random.default_rng(1)
    labels = np.zeros([round(n * scale) for n in SHAPE], np.uint8)
    by_size = sorted(enumerate(ORGANS.values(), 1), key=lambda organ: -np.prod(organ[1][1]))
    for label, (centre, radii) in by_size:  # a small organ is not painted over
        if moved:
            centre = np.array(centre) + rng.uniform(-1, 1, 3) * (1, 3, 3)
            radii = np.array(radii) * rng.uniform(0.92, 1.08, 3)
        at = zip(labels.shape, centre, radii, strict=True)
        z, y, x = (((np.arange(n) - c * scale) / (r * scale)) ** 2 for n, c, r in at)
        labels[z[:, None, None] + y[:, None] + x < 1] = label
    for label in range(1, len(ORGANS) + 1) if stray else ():  # a block near two opposite corners
        at = 10 + 6 * label
        labels[2:4, 20:22, at : at + 2] = label
        labels[-4:-2, -22:-20, -at - 2 : -at] = label
    return labels


def measure(scale: float, stray: bool, repeats: int) -> dict[str, Any]:
    """Seconds under both protocols, and of MedPy on whole masks, with our figures held against its."""
    from medpy.metric.binary import dc, hd95

    target, prediction, names = abdomen(scale), abdomen(scale, True, stray), tuple(ORGANS)
    seconds = defaultdict(list)
    for _ in range(repeats):
        for protocol, spacing in (("legacy", None), ("standard", SPACING)):
            began = perf_counter()
            rows = score_volume("volume", prediction, target, names, protocol, spacing)
            seconds[protocol].append(perf_counter() - began)
            if protocol == "legacy":
                figures = [(row["dice"], row["hd95_px"]) for row in rows]
    began = perf_counter()
    masks = [(prediction == label, target == label) for label in range(1, len(names) + 1)]
    theirs = [(float(dc(p, t)), float(hd95(p, t))) for p, t in masks]
    seconds["MedPy"].append(perf_counter() - began)
    times = {what: spread(values) for what, values in seconds.items()}
    faster = {what: times["MedPy"]["median"] / t["median"] for what, t in times.items()}
    return {"shape": target.shape, "seconds": times, "times_faster_than_medpy": faster, "identical": figures == theirs}


if __name__ == "__main__":
    main(sys.argv[1:])
