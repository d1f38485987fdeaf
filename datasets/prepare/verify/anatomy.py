"""Whether organs lie where the orientation says: the liver to the right, the spleen to the left, kidneys behind."""

from collections.abc import Sequence

import numpy as np

from datasets.prepare.verify.findings import Report

# (class, class, direction): seen from the first, the second lies further in this direction of the patient
RULES = (
    ("liver", "spleen", "L"),
    ("right kidney", "left kidney", "L"),
    ("stomach", "left kidney", "P"),
    ("liver", "right kidney", "P"),
    ("right kidney", "liver", "S"),
    ("left kidney", "spleen", "S"),
)
OPPOSITE = dict(zip("LRAPIS", "RLPASI"))
SHARE = 0.75  # of the cases must agree: an organ may lie unusually


def check_anatomy(report: Report, centres: Sequence[np.ndarray], classes: tuple[str, ...], orientation: str) -> None:
    """An error for each rule that most cases break.

    in: the centre (slice, row, column) of each label in every case, (256, 3), NaN for what it does not show
    """
    label = {name.lower(): number for number, name in enumerate(classes, 1)}
    rows = []
    for first, second, direction in RULES:
        if first not in label or second not in label:
            continue
        axis = next(k for k, letter in enumerate(orientation) if letter in (direction, OPPOSITE[direction]))
        sign = 1 if orientation[axis] == direction else -1
        steps = [sign * (centre[label[second], axis] - centre[label[first], axis]) for centre in centres]
        steps = [step for step in steps if np.isfinite(step)]
        if not steps:
            continue
        agree = sum(step > 0 for step in steps)
        word = {"L": "left", "P": "back", "S": "upper"}[direction]
        rows.append([f"{second} on the {word} side of the {first}", f"{agree} of {len(steps)}"])
        if agree < SHARE * len(steps):
            text = f"so it is in {agree} of {len(steps)} cases: the data do not lie in the orientation {orientation}"
            report.error("orientation", f"{second} on the {word} side of the {first}", text)
    if rows:
        report.tables["organs"] = [[f"expected in {orientation}", "cases"], *rows]
