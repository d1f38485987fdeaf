"""Results as test.py leaves them, made up: for tests of what reads them."""

import math

import numpy as np

from utils.results.summary import write_results

NAN = math.nan
CLASSES = ("liver", "spleen")


def write_result(folder, shift=0.0, seed=0, cases=12, classes=CLASSES, changed=None, missed=(), **meta):
    """Results of one run whose Dice is a case's difficulty + `shift` + noise; `changed` alters rows in place."""
    noise = np.random.default_rng(seed + 1)
    rows = []
    for i in range(cases):
        for c, name in enumerate(classes):
            dice = 0.7 + 0.01 * ((7 * i) % 12) + 0.05 * c + shift + noise.normal(0, 0.01)
            miss = (i, name) in missed
            rows.append(
                {
                    "case": f"case{i:02d}",
                    "class": name,
                    "outcome": "missed" if miss else "found",
                    "dice": 0.0 if miss else dice,
                    "hd95_px": NAN if miss else 30 * (1 - dice),
                    "volume_error": -1.0 if miss else (-1) ** i * (1 - dice),
                    "labelled_px": 100.0 + i,
                }
            )
    if changed:
        changed(rows)
    head = {
        "protocol": "standard",
        "dataset": "cvc_clinicdb",
        "recipe": "cvc_clinicdb",
        "split": "test part",
        "selection": "validation",
        "checkpoints": [{"file": "best_model.pth", "sha256": f"{seed:064x}", "selection": "validation"}],
        "img_size": [224, 224],
        "network": "heteromedseg",
        "ssd": "causal",
        "tta": False,
        "tolerance": 2.0,
        "precision": "fp32",
    }
    write_results(folder, rows, head | meta)
    return folder
