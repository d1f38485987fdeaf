"""Names, numbers and notes as the page's reader sees them."""

import re
from html import escape
from pathlib import PurePath
from typing import Any

from utils.results.table import IN_PERCENT, SHOWN

NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
    "nsd": "NSD",
    "assd": "ASSD",
    "f1": "F1",
    "boundary_f1": "Boundary F1",
    "volume_error": "Volume error",
}
SIZES = ("predicted", "labelled")
SELECTIONS = {
    "last": "the last epoch",
    "cycle_end": "the end of the last warm-restart cycle",
    "validation": "best mean Dice on the validation part",
    "test": "best mean Dice on the TEST part",
    "as published": "as published",
}
OUTCOMES = {"found": "found", "missed": "missed", "false_positive": "false positive", "absent": "absent"}
NOTHING = "–"


def kind_of(metric: str) -> str:
    """`hd95` of `hd95_mm`, `nsd` of `nsd_2mm`; a name without a unit is its own kind."""
    return re.sub(r"_[0-9.e+-]*(px|mm)3?$", "", metric)


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
    """Whether the figure is shown at once; the others come on demand."""
    return kind_of(metric) in SHOWN


def scale_of(metric: str) -> int:
    return 100 if kind_of(metric) in IN_PERCENT else 1


def digits_of(metric: str) -> int:
    return 0 if kind_of(metric) in SIZES else 2


def number(metric: str, value: float | None) -> str:
    """A figure as text, scores in percent; a dash where there is none (None or NaN)."""
    if value is None or value != value:
        return NOTHING
    return f"{value * scale_of(metric):,.{digits_of(metric)}f}"


def data_name(summary: dict[str, Any]) -> str:
    """The data set as a page may show it that leaves this machine: of a path its last folder."""
    name = str(summary.get("dataset", "results"))
    return PurePath(name).name or name


def augmentation_in_words(summary: dict[str, Any]) -> str:
    """off, or on with what test-time augmentation averaged over."""
    scales = ", ".join(f"{scale:g}" for scale in summary.get("tta_scales") or ())
    parts = ["flips"] * bool(summary.get("tta")) + [f"sizes times {scales}"] * bool(scales)
    return f"on: {' and '.join(parts)}" if parts else "off"


def selection_in_words(selection: str) -> str:
    """The rule, or the several rules of an ensemble, by which the checkpoint was chosen."""
    return "; ".join(SELECTIONS.get(rule, rule) for rule in selection.split(", "))


def was_selected_on_test(summary: dict[str, Any]) -> bool:
    rules = [summary["selection"], *(str(one.get("selection")) for one in summary["checkpoints"])]
    return any(part.strip().startswith("test") for rule in rules for part in rule.split(","))


def facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was evaluated, by which rules and from which weights: pairs of a term and HTML."""
    found = [
        ("Protocol", escape(summary["protocol"])),
        ("Cases", f"{summary['num_cases']}, {escape(summary['split'])}"),
        ("Checkpoint chosen by", escape(selection_in_words(summary["selection"]))),
    ]
    for origin in summary["checkpoints"]:
        epoch = f" <span class='soft'>after epoch {origin['epoch']}</span>" if origin.get("epoch") else ""
        code = f"<code title='SHA-256 {escape(origin['sha256'])}'>{escape(origin['sha256'][:12])}</code>"
        found.append(("Checkpoint", f"{escape(str(origin['file']))}{epoch} {code}"))
    found.append(("Input size", " × ".join(str(n) for n in summary["img_size"])))
    named = (("ssd", "SSD form"), ("precision", "Precision"))
    found += [(term, escape(str(summary[key]))) for key, term in named if key in summary]
    if "tta" in summary:
        found.append(("Test-time augmentation", escape(augmentation_in_words(summary))))
    if "tolerance" in summary and summary["protocol"] != "legacy":
        found.append(("Surface tolerance", f"{summary['tolerance']:g} {escape(summary['unit'])}"))
    return [*found, ("Intervals", escape(summary["interval"]))]


def warnings(summary: dict[str, Any]) -> list[str]:
    """What a reader must know before the figures, as HTML."""
    found = []
    if was_selected_on_test(summary):
        found.append(
            "<strong>Selected on the test part.</strong> The checkpoint is the one that scored best on test "
            "cases, so these figures are optimistic and must not be compared with results chosen otherwise."
        )
    if summary["selection"] == "as published":
        found.append("These are published weights: how their authors chose the checkpoint is not known here.")
    if summary["protocol"] == "legacy" and any(name.startswith("hd95") for name in summary["overall"]["metrics"]):
        found.append(
            "<strong>Legacy protocol.</strong> A missed class counts with distance 0 and a class that only the "
            "prediction has with Dice 1, as in the published tables. Use the standard protocol to judge a network."
        )
    if "note" in summary:
        found.append(f"<strong>Note.</strong> {escape(summary['note'])}")
    return found
