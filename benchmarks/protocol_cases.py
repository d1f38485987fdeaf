"""Small cases on which the two protocols part, one for each trap of the legacy rule, with figures found by hand.

Every case is scored by the functions that test.py calls. A figure is named by its column of cases.csv and is the mean
over cases and classes; `NAME sd` is its standard deviation, `NAME left out` the number of undefined ones; `missed` and
`false_positive_mm3` are a count and a size of the summary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from datasets.images.pairs import Pair
from isic_polyp_rectal import evaluation
from isic_polyp_rectal.task import RECIPES
from utils.inference.volumes import predict_images, predict_volume
from utils.scoring.protocols import Row, score_image, score_volume

CPU = torch.device("cpu")
THICK = (5.0, 1.0, 1.0)  # mm between slices, rows, columns

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Trap:
    """A case: rows of a protocol from one and the same prediction, and what hand and paper say of them."""

    name: str
    what: str  # the legacy rule's trap in a line
    by_hand: str  # how the figures are found
    rows: Callable[[str], list[Row]]
    legacy: Figures
    standard: Figures


def volume(*blocks: tuple[int, tuple[int, int, int, int]], shape: tuple[int, int, int] = (1, 4, 10)) -> np.ndarray:
    """Label map of `shape`; a block is a label and its (first row, end row, first column, end column) in slice 0."""
    labels = np.zeros(shape, np.uint8)
    for label, (top, bottom, left, right) in blocks:
        labels[0, top:bottom, left:right] = label
    return labels


def of_volumes(*pairs: tuple[np.ndarray, np.ndarray], classes=("organ",), spacing=None) -> Callable[[str], list[Row]]:
    """Rows of (prediction, target) volumes, called case 0, case 1, ..."""

    def rows(protocol: str) -> list[Row]:
        scored = (score_volume(f"case {i}", *pair, classes, protocol, spacing) for i, pair in enumerate(pairs))
        return [row for case in scored for row in case]

    return rows


def of_images(*pairs: tuple[np.ndarray, np.ndarray]) -> Callable[[str], list[Row]]:
    """Rows of (prediction, target) masks, called image 0, image 1, ..."""
    return lambda protocol: [score_image(f"image {i}", *pair, "lesion", protocol) for i, pair in enumerate(pairs)]


def resized_slice(protocol: str) -> list[Row]:
    """One slice of 10 x 10 through a network of 4 x 4 that gives the organ these logits above the background."""
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 1] = torch.tensor([-3.0, 1.0, 1.0, -3.0])  # in every row
    image, target = np.zeros((1, 10, 10), np.float32), volume((1, (0, 10, 3, 7)), shape=(1, 10, 10))
    prediction = predict_volume(lambda _: logits, image, (4, 4), lambda x: x, CPU, protocol=protocol)
    return score_volume("case 0", prediction, target, ("organ",), protocol)


def thin_line(protocol: str) -> list[Row]:
    """One image of 8 x 8 with a line one pixel wide, through a network of 4 x 4 that finds nothing."""
    image, mask = np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool)
    mask[:, 4] = True
    nothing = torch.full((1, 1, 4, 4), -1.0)
    (found,) = predict_images(lambda _: nothing, [image], (4, 4), lambda x: x, CPU, protocol)
    pair = Pair("image 0", Path("image.png"), Path("mask.png"))
    cfg = replace(RECIPES["cvc_clinicdb"], protocol=protocol, img_size=(4, 4))
    return [evaluation.finish(pair, image, mask, found >= 0.5, cfg, ("lesion",), Path())]


NOTHING, SQUARE, SHIFTED = volume(), volume((1, (0, 4, 0, 4))), volume((1, (0, 4, 2, 6)))
LINE = volume((1, (0, 1, 0, 19)), shape=(1, 21, 19))
STRAYED = volume((1, (0, 1, 0, 19)), (1, (20, 21, 0, 2)), shape=(1, 21, 19))
ONE, NEXT = np.zeros((2, 3, 4, 10), np.uint8)
ONE[0, 1, 1] = NEXT[1, 1, 1] = 1
FIRST, SECOND = volume((1, (0, 2, 0, 2))), volume((2, (2, 4, 4, 6)))
EMPTY, PIXEL = np.zeros((4, 4), bool), np.eye(4, dtype=bool) & (np.arange(4) == 0)

TRAPS = (
    Trap(
        "both there",
        "none: the protocols agree",
        "4 x 4 pixels, moved by 2: half in common; of 16 pixels 4 are off by 2, 4 by 1; none by more than 2",
        of_volumes((SHIFTED, SQUARE)),
        {"dice": 1 / 2, "hd95_px": 2.0},
        {"dice": 1 / 2, "hd95_px": 2.0, "nsd_2px": 1.0},
    ),
    Trap(
        "missed organ",
        "a missed organ has distance 0, as a perfect one",
        "an empty prediction: nothing in common, no surface to measure from",
        of_volumes((NOTHING, SQUARE)),
        {"dice": 0.0, "hd95_px": 0.0},
        {"dice": 0.0, "hd95_px": None, "nsd_2px": 0.0, "missed": 1},
    ),
    Trap(
        "invented organ",
        "an organ that only the prediction has is perfect",
        "16 voxels of 5 mm3 where there is nothing: 80 mm3 of false positive",
        of_volumes((SQUARE, NOTHING), spacing=THICK),
        {"dice": 1.0, "hd95_px": 0.0},
        {"dice": 0.0, "hd95_mm": None, "nsd_2mm": 0.0, "false_positive_mm3": 80.0},
    ),
    Trap(
        "absent organ",
        "an organ rightly left out has Dice 0",
        "0 / 0: undefined",
        of_volumes((NOTHING, NOTHING)),
        {"dice": 0.0, "hd95_px": 0.0},
        {"dice": None, "hd95_px": None, "nsd_2px": None, "dice left out": 1},
    ),
    Trap(
        "thick slices",
        "distances are in voxels, whatever the spacing",
        "a voxel one slice of 5 mm beside its place: 1 voxel, 5 mm, beyond the tolerance of 2 mm",
        of_volumes((NEXT, ONE), spacing=THICK),
        {"dice": 0.0, "hd95_px": 1.0},
        {"dice": 0.0, "hd95_mm": 5.0, "nsd_2mm": 0.0},
    ),
    Trap(
        "far strays",
        "both directions are pooled: the larger surface hides the strays",
        "19 of 21 predicted pixels lie on the 19 of the label, 2 are 20 away: Dice 38/40, NSD 38/40; pooled, rank "
        "37.05 of 0 to 39 is 5 % of the way from 0 to 20; of the 21 alone, rank 19 is 20",
        of_volumes((STRAYED, LINE)),
        {"dice": 38 / 40, "hd95_px": 1.0},
        {"dice": 38 / 40, "hd95_px": 20.0, "nsd_2px": 38 / 40},
    ),
    Trap(
        "resized slice",
        "labels, not logits, are brought back to the slice's size",
        "4 columns to 10, a third of a column apart: logits -3 and 1 pass 0 at 3/4, so columns 3 to 6, the label's; "
        "the nearest label gives 2 to 7: Dice 2 * 4 / (6 + 4), 20 of 100 pixels off by 1",
        resized_slice,
        {"dice": 8 / 10, "hd95_px": 1.0},
        {"dice": 1.0, "hd95_px": 0.0, "nsd_2px": 1.0},
    ),
    Trap(
        "mean with a miss",
        "a miss halves the mean distance",
        "Dice 1/2, distance 2, NSD 1 in one case and a miss in the other: the distance is (2 + 0) / 2, or 2 alone",
        of_volumes((SHIFTED, SQUARE), (NOTHING, SQUARE)),
        {"dice": 1 / 4, "hd95_px": 1.0, "hd95_px left out": 0},
        {"dice": 1 / 4, "hd95_px": 2.0, "nsd_2px": 1 / 2, "hd95_px left out": 1},
    ),
    Trap(
        "mean with an absence",
        "cases without the organ pull its mean down",
        "organ 1 perfect in case 0 and absent in case 1; organ 2 missed in both: over cases (1 + 0) / 2, or 1 alone, "
        "and 0; then over the organs",
        of_volumes((FIRST, FIRST + SECOND), (NOTHING, SECOND), classes=("organ 1", "organ 2")),
        {"dice": 1 / 4, "hd95_px": 0.0},
        {"dice": 1 / 2, "hd95_px": 0.0, "nsd_2px": 1 / 2, "missed": 2},
    ),
    Trap(
        "thin line in an image",
        "images are scored at the network's size, where a line may be gone",
        "8 columns to 4: columns 1, 3, 5, 7 stay, the line is column 4: (0 + 1) / (0 + 0 + 1); at its own size 0 / 8",
        thin_line,
        {"dice": 1.0, "iou": 1.0, "missed": 0},
        {"dice": 0.0, "hd95_px": None, "nsd_2px": 0.0, "iou": 0.0, "missed": 1},
    ),
    Trap(
        "missed pixel of an image",
        "1 is added above and below; an undefined ratio is 0",
        "(0 + 1) / (0 + 1 + 1) for Dice and IoU; precision 0/0, recall 0/1",
        of_images((EMPTY, PIXEL)),
        {"dice": 1 / 2, "iou": 1 / 2, "precision": 0.0, "recall": 0.0},
        {"dice": 0.0, "hd95_px": None, "nsd_2px": 0.0, "iou": 0.0, "precision": None, "recall": 0.0},
    ),
    Trap(
        "empty image",
        "two empty masks have Dice 1 and precision 0",
        "(0 + 1) / (0 + 0 + 1), and 0/0",
        of_images((EMPTY, EMPTY)),
        {"dice": 1.0, "iou": 1.0, "precision": 0.0, "recall": 0.0},
        {"dice": None, "hd95_px": None, "nsd_2px": None, "iou": None, "precision": None, "recall": None},
    ),
    Trap(
        "spread over images",
        "the deviation divides by n, not n - 1",
        "a pixel found and one missed: 1 and 1/2, or 1 and 0; half of their difference, or the difference / sqrt(2)",
        of_images((PIXEL, PIXEL), (EMPTY, PIXEL)),
        {"dice": 3 / 4, "dice sd": 1 / 4},
        {"dice": 1 / 2, "hd95_px": 0.0, "nsd_2px": 1 / 2, "dice sd": 0.5**0.5},
    ),
)
