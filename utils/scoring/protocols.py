"""The two protocols: a prediction and its label in, one row of figures for each class out.

`standard` (the default) follows Metrics Reloaded: undefined figures are NaN, a missed structure
counts as Dice 0 and as a miss, and its distance is left out of means. `legacy` repeats the rule
behind the published tables to the last digit; there a missed organ has distance 0.
A row is a dict: case, class, outcome, then figures with their unit in the name (`hd95_mm`, `hd95_px`).
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.ndimage import find_objects

from utils.device import num_cores
from utils.scoring import metrics, surface
from utils.scoring.metrics import Overlap
from utils.scoring.surface import Spacing

Row = dict[str, str | float]
FOUND, MISSED, FALSE_POSITIVE, ABSENT = "found", "missed", "false_positive", "absent"


def outcome(n: Overlap) -> str:
    """`found` (both non-empty), `missed` (label only), `false_positive` (prediction only) or `absent` (neither)."""
    if n.labelled:
        return FOUND if n.predicted else MISSED
    return FALSE_POSITIVE if n.predicted else ABSENT


def kind_of(column: str) -> str:
    """What a column measures, without its tolerance and unit: `hd95` of `hd95_mm`, `nsd` of `nsd_2px`."""
    return re.sub(r"_[\d.e+-]*(mm|px)3?$", "", column)


def score_volume(
    case: str,
    prediction: np.ndarray,
    target: np.ndarray,
    class_names: Sequence[str],
    protocol: str = "standard",
    spacing: Spacing = None,
    tolerance: float = 2.0,
) -> list[Row]:
    """Rows of one case, class by class; the classes are measured in parallel.

    in: label maps of one shape and any dimension, 0 background, label k named `class_names[k - 1]`;
        spacing along each axis in mm, not used by `legacy`; tolerance in the same unit
    """
    check_shapes(case, prediction, target)
    num_classes = len(class_names)
    found = (find_objects(labels, max_label=num_classes) for labels in (prediction, target))
    boxes = [_union(a, b) for a, b in zip(*found, strict=True)]

    def score(index: int) -> Row:
        box, label = boxes[index], index + 1
        pred, true = prediction[box] == label, target[box] == label
        n = metrics.overlap(pred, true)  # n.tn counts the box alone; no figure of a volume uses it
        row: Row = {"case": case, "class": class_names[index], "outcome": outcome(n)}
        if protocol == "legacy":
            return row | _legacy_volume(n, pred, true)
        return row | _standard_volume(n, pred, true, spacing, tolerance)

    with ThreadPoolExecutor(num_cores()) as pool:
        return list(pool.map(score, range(num_classes)))


def _union(a: tuple[slice, ...] | None, b: tuple[slice, ...] | None) -> tuple[slice, ...]:
    """Smallest box around two boxes, either of which may be None; a box of no size where both are."""
    if a is None or b is None:
        return a or b or (slice(0, 0),)
    return tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))


def _legacy_volume(n: Overlap, pred: np.ndarray, target: np.ndarray) -> Row:
    """TransUNet's rule: a class that only the prediction has scores Dice 1; every class not found has distance 0."""
    state = outcome(n)
    if state == FOUND:
        return {"dice": metrics.dice(n), "hd95_px": surface.hd95_pooled(surface.surface_distances(pred, target))}
    return {"dice": 1.0 if state == FALSE_POSITIVE else 0.0, "hd95_px": 0.0}


def _standard_volume(n: Overlap, pred: np.ndarray, target: np.ndarray, spacing: Spacing, tolerance: float) -> Row:
    unit, size_unit, pixel = ("px", "px", 1.0) if spacing is None else ("mm", "mm3", float(np.prod(spacing)))
    distances = surface.surface_distances(pred, target, spacing)
    return {
        "dice": metrics.dice(n),
        "iou": metrics.iou(n),
        f"hd95_{unit}": surface.hd95(distances),
        f"nsd_{tolerance:g}{unit}": surface.nsd(distances, tolerance),
        f"assd_{unit}": surface.assd(distances),
        "volume_error": metrics.volume_error(n),
        f"predicted_{size_unit}": n.predicted * pixel,
        f"labelled_{size_unit}": n.labelled * pixel,
    }


def score_image(
    case: str,
    prediction: np.ndarray,
    target: np.ndarray,
    class_name: str,
    protocol: str = "standard",
    tolerance: float = 2.0,
) -> Row:
    """Row of one binary image; distances and `tolerance` in pixels.

    in: boolean masks of one shape: the image's own for `standard`, the network's for `legacy`
    """
    check_shapes(case, prediction, target)
    n = metrics.overlap(prediction, target)
    row: Row = {"case": case, "class": class_name, "outcome": outcome(n)}
    if protocol == "legacy":
        return row | _legacy_image(n)
    box = (find_objects((prediction | target).view(np.uint8)) or [slice(0, 0)])[0]
    distances = surface.surface_distances(prediction[box], target[box])
    return row | {
        "dice": metrics.dice(n),
        "iou": metrics.iou(n),
        "precision": metrics.precision(n),
        "recall": metrics.recall(n),
        "specificity": metrics.specificity(n),
        "accuracy": metrics.accuracy(n),
        "boundary_f1": surface.boundary_f1(distances, tolerance),
        "hd95_px": surface.hd95(distances),
        f"nsd_{tolerance:g}px": surface.nsd(distances, tolerance),
        "assd_px": surface.assd(distances),
        "predicted_px": n.predicted,
        "labelled_px": n.labelled,
    }


def _legacy_image(n: Overlap) -> Row:
    """Dice and IoU with 1 added above and below, so that two empty masks score 1; undefined ratios are 0."""
    return {
        "dice": (2 * n.tp + 1) / (n.predicted + n.labelled + 1),
        "iou": (n.tp + 1) / (n.tp + n.fp + n.fn + 1),
        "accuracy": metrics.accuracy(n),
        "precision": n.tp / max(n.predicted, 1),
        "recall": n.tp / max(n.labelled, 1),
        "f1": 2 * n.tp / max(n.predicted + n.labelled, 1),
    }


def check_shapes(case: str, prediction: np.ndarray, target: np.ndarray) -> None:
    """Refuse to broadcast a prediction against a label of another shape."""
    if prediction.shape != target.shape:
        raise ValueError(f"{case}: the prediction is {prediction.shape}, its label {target.shape}; they must agree")
