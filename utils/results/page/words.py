"""Names, numbers and notes as a reader of the page sees them."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from utils.results.names import fit_in_words, network_in_words  # noqa: F401 - page.html calls them
from utils.results.table import IN_PERCENT, SHOWN, scale_of
from utils.scoring.protocols import kind_of

NAMES = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "nsd": "NSD", "assd": "ASSD", "boundary_f1": "Boundary F1"}
SIZES = ("predicted", "labelled")
SELECTIONS = {
    "last": "the last epoch",
    "cycle_end": "the end of the last warm-restart cycle",
    "validation": "best mean Dice on the validation part",
    "test": "best mean Dice on the TEST part",
}
NOTHING = "–"
# Warnings: a title and a text
ON_TEST = (
    "Selected on the test part.",
    "The checkpoint is the one that scored best on test cases, so these figures are optimistic and must not be "
    "compared with results chosen otherwise.",
)
PUBLISHED = ("Published weights.", "How their authors chose the checkpoint is not known here.")
LEGACY = (
    "Legacy protocol.",
    "A missed class counts with distance 0 and a class that only the prediction has with Dice 1, as in the published "
    "tables. Use the standard protocol to judge a network.",
)


def label_of(metric: str) -> str:
    """`HD95, mm` for `hd95_mm`, `NSD at 2 mm, %` for `nsd_2mm`, `Dice, %` for `dice`."""
    kind = kind_of(metric)
    name = NAMES.get(kind, kind.replace("_", " ").capitalize())
    found = re.fullmatch(r"([0-9.e+-]*)(px|mm)(3?)", metric[len(kind) + 1 :])
    if found:
        threshold, unit = found[1], found[2] + ("³" if found[3] else "")
        name += f" at {threshold} {unit}" if threshold else f", {unit}"
    return name + ", %" if kind in IN_PERCENT else name


def is_main_figure(metric: str) -> bool:
    """Whether the page shows the figure at once; it shows the others on demand."""
    return kind_of(metric) in SHOWN


def number(metric: str, value: float | None) -> str:
    """A figure as text, scores in percent; a dash where there is none (None or NaN)."""
    if value is None or value != value:
        return NOTHING
    digits = 0 if kind_of(metric) in SIZES else 2
    return f"{value * scale_of(metric):,.{digits}f}"


def data_name(summary: Mapping[str, Any]) -> str:
    """Name of the data set, without the folders above it."""
    name = str(summary.get("dataset", "results"))
    return PurePath(name).name or name


def augmentation_in_words(summary: Mapping[str, Any]) -> str:
    """off, or on and what test-time augmentation averaged over."""
    scales = ", ".join(f"{scale:g}" for scale in summary.get("tta_scales") or ())
    parts = ["flips"] * bool(summary.get("tta")) + [f"sizes times {scales}"] * bool(scales)
    return f"on: {' and '.join(parts)}" if parts else "off"


def selection_in_words(selection: str) -> str:
    """The rule, or the rules of several averaged checkpoints, by which the checkpoint was chosen."""
    return "; ".join(SELECTIONS.get(rule, rule) for rule in selection.split(", "))


def warnings(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader must know before the figures: pairs of a title and a text."""
    rules = [summary["selection"], *(str(one.get("selection")) for one in summary["checkpoints"])]
    found = []
    if any(part.strip().startswith("test") for rule in rules for part in rule.split(",")):
        found.append(ON_TEST)
    if summary["selection"] == "as published":
        found.append(PUBLISHED)
    if summary["protocol"] == "legacy" and any(name.startswith("hd95") for name in summary["overall"]["metrics"]):
        found.append(LEGACY)
    if "note" in summary:
        found.append(("Note.", summary["note"]))
    return found
