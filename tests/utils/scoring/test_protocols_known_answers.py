"""Both protocols on one and the same prediction: small cases whose figures were found by hand.

Each case shows one trap of the legacy rule. Its figures are those of the summary, means over cases and classes:
a column of cases.csv, `COLUMN sd`, `COLUMN left out` (undefined figures), or a count or size such as `missed`.
"""

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from datasets.images.pairs import Pair
from isic_polyp_rectal import evaluation
from isic_polyp_rectal.task import CVC_CLINICDB
from utils.config import Config
from utils.inference.predict import predict_volume
from utils.results.summary import summarise
from utils.scoring.protocols import score_image, score_volume

CPU = torch.device("cpu")
NAN = math.nan
THICK = (5.0, 1.0, 1.0)  # mm between slices, rows, columns


def labels(*blocks, shape=(1, 4, 10)):
    """Label map; a block is a label and its first row, end row, first column and end column in slice 0."""
    made = np.zeros(shape, np.uint8)
    for label, top, bottom, left, right in blocks:
        made[0, top:bottom, left:right] = label
    return made


def volumes(*pairs, classes=("organ",), spacing=None):
    """Scores (prediction, target) pairs of label maps."""
    return lambda protocol: [
        row for i, pair in enumerate(pairs) for row in score_volume(f"case {i}", *pair, classes, protocol, spacing)
    ]


def images(*pairs):
    """Scores (prediction, target) pairs of masks."""
    return lambda protocol: [score_image(f"image {i}", *pair, "lesion", protocol) for i, pair in enumerate(pairs)]


def resized_slice(protocol):
    """One slice of 10 x 10 through a network of 4 x 4 that gives the organ these logits above the background."""
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 1] = torch.tensor([-3.0, 1.0, 1.0, -3.0])  # in every row
    image, target = np.zeros((1, 10, 10), np.float32), labels((1, 0, 10, 3, 7), shape=(1, 10, 10))
    prediction = predict_volume(lambda _: logits, image, Config(img_size=(4, 4), protocol=protocol), CPU)
    return score_volume("case 0", prediction, target, ("organ",), protocol)


def thin_line(protocol):
    """One image of 8 x 8 with a line one pixel wide, through a network of 4 x 4 that finds nothing."""
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    mask[:, 4] = 255
    nothing = torch.full((1, 1, 4, 4), -1.0)
    cfg = replace(CVC_CLINICDB, protocol=protocol, img_size=(4, 4))
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair("image 0", Path(folder) / "image.png", Path(folder) / "mask.png")
        cv2.imwrite(str(pair.image), image)
        cv2.imwrite(str(pair.mask), mask)
        with mock.patch.object(evaluation, "chosen_pairs", return_value=([pair], "one image", None)):
            return evaluation.evaluate(cfg, lambda _: nothing, CPU, ("lesion",), Path(folder))[0]


NOTHING, SQUARE, SHIFTED = labels(), labels((1, 0, 4, 0, 4)), labels((1, 0, 4, 2, 6))
LINE, STRAYED = (labels((1, 0, 1, 0, 19), (n, 20, 21, 0, 2), shape=(1, 21, 19)) for n in (0, 1))
ONE, NEXT = np.zeros((2, 3, 4, 10), np.uint8)
ONE[0, 1, 1] = NEXT[1, 1, 1] = 1
FIRST, SECOND = labels((1, 0, 2, 0, 2)), labels((2, 2, 4, 4, 6))
EMPTY, PIXEL = np.zeros((4, 4), bool), np.eye(4, dtype=bool) & (np.arange(4) == 0)

CASES = {
    # The protocols agree. Moved by 2: half in common; 4 of 16 pixels are off by 2, 4 by 1, none by more than 2
    "both there": (
        volumes((SHIFTED, SQUARE)),
        {"dice": 1 / 2, "hd95_px": 2},
        {"dice": 1 / 2, "hd95_px": 2, "nsd_2px": 1},
    ),
    # A missed organ has distance 0, as a perfect one: there is no surface to measure from
    "missed organ": (
        volumes((NOTHING, SQUARE)),
        {"dice": 0, "hd95_px": 0},
        {"dice": 0, "hd95_px": NAN, "nsd_2px": 0, "missed": 1},
    ),
    # An organ that only the prediction has is perfect: 16 voxels of 5 mm3 where there is nothing
    "invented organ": (
        volumes((SQUARE, NOTHING), spacing=THICK),
        {"dice": 1, "hd95_px": 0},
        {"dice": 0, "hd95_mm": NAN, "nsd_2mm": 0, "false_positive_mm3": 80},
    ),
    # An organ rightly left out has Dice 0; it is 0 / 0
    "absent organ": (
        volumes((NOTHING, NOTHING)),
        {"dice": 0, "hd95_px": 0},
        {"dice": NAN, "hd95_px": NAN, "nsd_2px": NAN, "dice left out": 1},
    ),
    # Distances are in voxels, whatever the spacing. One slice of 5 mm off: 1 voxel, beyond the tolerance of 2 mm
    "thick slices": (
        volumes((NEXT, ONE), spacing=THICK),
        {"dice": 0, "hd95_px": 1},
        {"dice": 0, "hd95_mm": 5, "nsd_2mm": 0},
    ),
    # Both directions are pooled: the larger surface hides strays. 19 of 21 predicted pixels lie on the label's 19,
    # 2 are 20 away. Pooled, rank 37.05 of 0 to 39 is 5 % of the way from 0 to 20; of the 21 alone, rank 19 is 20
    "far strays": (
        volumes((STRAYED, LINE)),
        {"dice": 38 / 40, "hd95_px": 1},
        {"dice": 38 / 40, "hd95_px": 20, "nsd_2px": 38 / 40},
    ),
    # Labels, not logits, are resized to the slice. 4 columns to 10, a third of a column apart: logits -3 and 1 pass 0
    # at 3/4, so columns 3 to 6 as in the label; the nearest label gives 2 to 7: Dice 2 * 4 / (6 + 4), 20 pixels off
    # by 1
    "resized slice": (
        resized_slice,
        {"dice": 8 / 10, "hd95_px": 1},
        {"dice": 1, "hd95_px": 0, "nsd_2px": 1},
    ),
    # A miss halves the mean distance: (2 + 0) / 2, or 2 alone
    "mean with a miss": (
        volumes((SHIFTED, SQUARE), (NOTHING, SQUARE)),
        {"dice": 1 / 4, "hd95_px": 1, "hd95_px left out": 0},
        {"dice": 1 / 4, "hd95_px": 2, "nsd_2px": 1 / 2, "hd95_px left out": 1},
    ),
    # Cases without the organ pull its mean down: organ 1 is perfect, then absent: (1 + 0) / 2, or 1 alone; organ 2 is
    # missed twice: 0; then the mean over the organs
    "mean with an absence": (
        volumes((FIRST, FIRST + SECOND), (NOTHING, SECOND), classes=("organ 1", "organ 2")),
        {"dice": 1 / 4, "hd95_px": 0},
        {"dice": 1 / 2, "hd95_px": 0, "nsd_2px": 1 / 2, "missed": 2},
    ),
    # Images are scored at the network's size, where a line may be gone. 8 columns to 4: 1, 3, 5 and 7 stay, the line
    # is column 4: (0 + 1) / (0 + 0 + 1); at its own size 0 / 8
    "thin line in an image": (
        thin_line,
        {"dice": 1, "iou": 1, "missed": 0},
        {"dice": 0, "hd95_px": NAN, "nsd_2px": 0, "iou": 0, "missed": 1},
    ),
    # 1 is added above and below, (0 + 1) / (0 + 1 + 1); an undefined ratio, here precision 0 / 0, is 0
    "missed pixel of an image": (
        images((EMPTY, PIXEL)),
        {"dice": 1 / 2, "iou": 1 / 2, "precision": 0, "recall": 0},
        {"dice": 0, "hd95_px": NAN, "nsd_2px": 0, "iou": 0, "precision": NAN, "recall": 0},
    ),
    # Two empty masks have Dice (0 + 1) / (0 + 0 + 1) and precision 0
    "empty image": (
        images((EMPTY, EMPTY)),
        {"dice": 1, "iou": 1, "precision": 0, "recall": 0},
        {"dice": NAN, "hd95_px": NAN, "nsd_2px": NAN, "iou": NAN, "precision": NAN, "recall": NAN},
    ),
    # The deviation divides by n, not by n - 1: 1 and 1/2 differ by 1/2; 1 and 0 differ by 1, over sqrt(2)
    "spread over images": (
        images((PIXEL, PIXEL), (EMPTY, PIXEL)),
        {"dice": 3 / 4, "dice sd": 1 / 4},
        {"dice": 1 / 2, "hd95_px": 0, "nsd_2px": 1 / 2, "dice sd": 0.5**0.5},
    ),
}


def figure(overall, name):
    """NaN for an undefined one."""
    column, _, part = name.partition(" ")
    found = overall[name] if name in overall else overall["metrics"][column][part.replace(" ", "_") or "mean"]
    return NAN if found is None else found


@pytest.mark.parametrize("protocol", ["legacy", "standard"])
@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_the_one_found_by_hand(case, protocol):
    score, *both = CASES[case]
    expected = both[protocol == "standard"]
    meta = {"protocol": protocol, "split": "", "selection": "", "checkpoints": [], "img_size": []}
    overall = summarise(score(protocol), meta)["overall"]
    assert {name: figure(overall, name) for name in expected} == pytest.approx(
        expected, rel=1e-12, abs=1e-12, nan_ok=True
    )
