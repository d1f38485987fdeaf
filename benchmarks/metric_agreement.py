"""Our metrics against MedPy, MONAI and DeepMind's surface-distance on random shapes and spacings.

    pip install medpy monai surface-distance-based-measures
    python -m benchmarks.metric_agreement [--pairs 240] [--output results/metric_agreement.json]

Smooth random blobs in 2-D and 3-D, touching the border or not, with anisotropic spacings of 0.3 to 5 mm.
Where a definition differs, the table says how, and its differences are what that choice of definition moves.
"""

import argparse
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.machine import ROOT, write_json
from utils.scoring import metrics, surface

Pair = tuple[np.ndarray, np.ndarray, tuple[float, ...]]
TOLERANCE = 2.0  # mm
FLOAT32 = 1e-4  # MONAI keeps distances, in mm here up to about 100, and the rank of a percentile in float32
SURFELS = "surface at the corners between pixels, each weighted by its area; ours: surface pixels, all alike"
# (metric, library): how large a difference may be, and why it is not 0
EXPECTED = {
    ("Dice", "MedPy"): (0.0, ""),
    ("Dice", "MONAI"): (1e-6, "float32"),
    ("Dice", "DeepMind"): (0.0, ""),
    ("IoU", "MedPy"): (0.0, ""),
    ("precision", "MedPy"): (0.0, ""),
    ("recall", "MedPy"): (0.0, ""),
    ("specificity", "MedPy"): (0.0, ""),
    ("HD95 pooled", "MedPy"): (1e-13, "equal distances may round differently; without spacing always 0"),
    ("HD95 pooled, pixels", "MedPy"): (0.0, ""),
    ("HD95", "MONAI"): (FLOAT32, "float32"),
    ("HD95", "MedPy"): (math.inf, "percentile of both directions pooled; ours: larger of the two percentiles"),
    ("HD95", "DeepMind"): (math.inf, SURFELS),
    ("NSD", "MONAI"): (1e-6, "float32"),
    ("NSD", "DeepMind"): (math.inf, SURFELS),
    ("ASSD", "MONAI"): (FLOAT32, "float32"),
    ("ASSD", "MedPy"): (1e-13, "order of summation"),
    ("ASSD", "DeepMind"): (math.inf, SURFELS),
}


def smooth_pairs(number: int, seed: int = 0) -> Iterator[Pair]:
    """Pairs of boolean masks, neither empty, alternately 2-D and 3-D, and a spacing in mm."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < number:
        shape = tuple(int(n) for n in rng.integers(12, 48, 2 + made % 2))
        field = gaussian_filter(rng.random(shape), rng.uniform(1.5, 4))
        other = field + rng.uniform(0.1, 0.8) * gaussian_filter(rng.random(shape), 2)
        level = rng.uniform(0.4, 0.97)
        pred, target = field > np.quantile(field, level), other > np.quantile(other, level)
        if pred.any() and target.any():
            made += 1
            yield pred, target, tuple(float(x) for x in rng.uniform(0.3, 5, len(shape)))


def ours(pred: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    n, d = metrics.overlap(pred, target), surface.surface_distances(pred, target, spacing)
    return {
        "Dice": metrics.dice(n),
        "IoU": metrics.iou(n),
        "precision": metrics.precision(n),
        "recall": metrics.recall(n),
        "specificity": metrics.specificity(n),
        "HD95": surface.hd95(d),
        "HD95 pooled": surface.hd95_pooled(d),
        "HD95 pooled, pixels": surface.hd95_pooled(surface.surface_distances(pred, target)),
        "NSD": surface.nsd(d, TOLERANCE),
        "ASSD": surface.assd(d),
    }


def medpy(pred: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    from medpy.metric import binary

    return {
        "Dice": binary.dc(pred, target),
        "IoU": binary.jc(pred, target),
        "precision": binary.precision(pred, target),
        "recall": binary.recall(pred, target),
        "specificity": binary.specificity(pred, target),
        "HD95": binary.hd95(pred, target, spacing),
        "HD95 pooled": binary.hd95(pred, target, spacing),
        "HD95 pooled, pixels": binary.hd95(pred, target),
        "ASSD": binary.assd(pred, target, spacing),
    }


def monai(pred: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    p, t = (torch.from_numpy(mask)[None, None].float() for mask in (pred, target))
    keep = {"include_background": True}
    return {
        "Dice": compute_dice(p, t, **keep).item(),
        "HD95": compute_hausdorff_distance(p, t, **keep, percentile=95, spacing=spacing).item(),
        "NSD": compute_surface_dice(p, t, [TOLERANCE], **keep, spacing=spacing).item(),
        "ASSD": compute_average_surface_distance(p, t, **keep, symmetric=True, spacing=spacing).item(),
    }


def deepmind(pred: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    import surface_distance as sd

    d = sd.compute_surface_distances(target, pred, spacing)
    weights = [d["surfel_areas_gt"], d["surfel_areas_pred"]]
    lengths = [d["distances_gt_to_pred"], d["distances_pred_to_gt"]]
    return {
        "Dice": sd.compute_dice_coefficient(target, pred),
        "HD95": sd.compute_robust_hausdorff(d, 95),
        "NSD": sd.compute_surface_dice_at_tolerance(d, TOLERANCE),
        "ASSD": float(np.average(np.hstack(lengths), weights=np.hstack(weights))),
    }


def agreement(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """One row a metric and library: number of pairs, median and maximum absolute difference, what was expected."""
    libraries = {"MedPy": medpy, "MONAI": monai, "DeepMind": deepmind}
    differences: dict[tuple[str, str], list[float]] = {key: [] for key in EXPECTED}
    for pair in pairs:
        mine = ours(*pair)
        theirs = {library: measure(*pair) for library, measure in libraries.items()}
        for metric, library in EXPECTED:
            differences[metric, library].append(abs(mine[metric] - theirs[library][metric]))
    return [
        {
            "metric": metric,
            "library": library,
            "pairs": len(found),
            "median_difference": float(np.median(found)),
            "max_difference": float(np.max(found)),
            "expected_below": EXPECTED[metric, library][0],
            "why": EXPECTED[metric, library][1],
        }
        for (metric, library), found in differences.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=240)
    parser.add_argument("--output", default=ROOT / "results" / "metric_agreement.json")
    args = parser.parse_args()
    table = agreement(smooth_pairs(args.pairs))
    print(f"{'metric':<21}{'library':<10}{'pairs':>6}{'median diff.':>14}{'max diff.':>12}  why")
    for r in table:
        same = r["max_difference"] <= r["expected_below"]
        print(
            f"{r['metric']:<21}{r['library']:<10}{r['pairs']:>6}{r['median_difference']:>14.2g}"
            f"{r['max_difference']:>12.2g}  {r['why']}{'' if same else '  MORE THAN EXPECTED'}"
        )
        if math.isinf(r["expected_below"]):
            r["expected_below"] = None  # JSON knows no infinity
    write_json(args.output, {"tolerance_mm": TOLERANCE, "table": table})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
