"""Seconds to score one CT-sized volume: ours inside bounding boxes, MedPy on the whole volume.

    python -m benchmarks.evaluation [--repeats 5] [--medpy_repeats 1] [--output results/evaluation.json]

A synthetic abdomen of 120 x 512 x 512 voxels with 8 ellipsoid organs, and two predictions of it:
`good` (organs moved and scaled a little) and `stray` (the same, with a few voxels of every class far
away in opposite corners, so that every bounding box is nearly the whole volume). MedPy is called as the
published scripts do, on whole masks; its figures and ours under `legacy` must be identical.
"""

import argparse
from functools import partial

import numpy as np

from benchmarks.machine import ROOT, seconds, spread, write_json
from utils.scoring.protocols import Row, score_volume

SHAPE = (120, 512, 512)
NAMES = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
# centre and radii (z, y, x) in voxels, of about the size of a patient's organs at 3 x 0.75 x 0.75 mm
ORGANS = (
    ((60, 300, 262), (58, 14, 14)),
    ((62, 210, 170), (9, 24, 22)),
    ((50, 320, 370), (18, 38, 34)),
    ((46, 320, 150), (18, 38, 34)),
    ((78, 230, 160), (36, 110, 105)),
    ((62, 260, 270), (8, 30, 80)),
    ((84, 290, 400), (20, 52, 34)),
    ((86, 200, 330), (24, 56, 76)),
)


def ellipsoids(seed: int | None = None) -> np.ndarray:
    """Label map of the organs, uint8; with a seed each is moved by up to 3 voxels and scaled by up to 8 %."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint8)
    by_size = sorted(enumerate(ORGANS, 1), key=lambda organ: -np.prod(organ[1][1]))
    for label, (centre, radii) in by_size:  # a small organ is not painted over
        if seed is not None:
            centre = np.array(centre) + rng.uniform(-1, 1, 3) * (1, 3, 3)
            radii = np.array(radii) * rng.uniform(0.92, 1.08, 3)
        z, y, x = (((np.arange(n) - c) / r) ** 2 for n, c, r in zip(SHAPE, centre, radii, strict=True))
        labels[z[:, None, None] + y[:, None] + x < 1] = label
    return labels


def with_strays(labels: np.ndarray) -> np.ndarray:
    """A 2 x 2 x 2 block of every class near two opposite corners."""
    labels = labels.copy()
    for label in range(1, len(ORGANS) + 1):
        at = 10 + 6 * label
        labels[2:4, 20:22, at : at + 2] = label
        labels[-4:-2, -22:-20, -at - 2 : -at] = label
    return labels


def medpy_scores(prediction: np.ndarray, target: np.ndarray) -> list[tuple[float, float]]:
    from medpy.metric.binary import dc, hd95

    pairs = ((prediction == k, target == k) for k in range(1, len(ORGANS) + 1))
    return [(float(dc(p, t)), float(hd95(p, t))) for p, t in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--medpy_repeats", type=int, default=1)
    parser.add_argument("--output", default=ROOT / "results" / "evaluation.json")
    args = parser.parse_args()

    target, good = ellipsoids(), ellipsoids(seed=1)
    results = {"shape": SHAPE, "classes": len(ORGANS), "seconds": {}, "ratio": {}, "identical": {}}
    print(f"{'prediction':<12}{'measured':<28}{'median s':>10}{'min':>8}{'max':>8}{'ratio':>8}")
    for name, prediction in (("good", good), ("stray", with_strays(good))):
        rows: list[Row] = []
        slow: list[tuple[float, float]] = []
        measured = {
            "legacy": lambda p=prediction, r=rows: r.__setitem__(
                slice(None), score_volume("v", p, target, NAMES, "legacy")
            ),
            "standard, 3 x 0.75 x 0.75 mm": partial(
                score_volume, "v", prediction, target, NAMES, spacing=(3.0, 0.75, 0.75)
            ),
            "MedPy, whole volume": lambda p=prediction, s=slow: s.__setitem__(slice(None), medpy_scores(p, target)),
        }
        times = {
            what: spread(seconds(call, args.medpy_repeats if "MedPy" in what else args.repeats))
            for what, call in measured.items()
        }
        reference = times["MedPy, whole volume"]["median"]
        results["seconds"][name] = times
        results["ratio"][name] = {what: reference / t["median"] for what, t in times.items()}
        results["identical"][name] = [(row["dice"], row["hd95_px"]) for row in rows] == slow
        for what, t in times.items():
            ratio = reference / t["median"]
            print(f"{name:<12}{what:<28}{t['median']:>10.2f}{t['min']:>8.2f}{t['max']:>8.2f}{ratio:>8.1f}", flush=True)
        print(f"{name:<12}legacy figures identical to MedPy's: {'yes' if results['identical'][name] else 'NO'}")
    write_json(args.output, results)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
