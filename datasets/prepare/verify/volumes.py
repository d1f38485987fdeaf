"""Checking slices and volumes with their lists: files, sizes, spacing, labels, where organs lie, patients in two parts.

Letters: D slices, H rows, W columns.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from datasets.phantom.organs import CLASS_NAMES
from datasets.prepare.verify.anatomy import check_anatomy
from datasets.prepare.verify.cases import LISTS, Case, look_at_files
from datasets.prepare.verify.checksums import check_manifest
from datasets.prepare.verify.duplicates import alike
from datasets.prepare.verify.findings import Report
from datasets.prepared import find_prepared
from datasets.volumes.lists import patient_of, read_list
from utils.errors import UserError

# Slices of two patients differ more than this, though they show the same organs; found on ACDC and CHAOS.
MOST_BITS, LEAST_CORRELATION = 2, 0.998


def verify_volumes(data: Path, list_dir: Path | None, synapse_lists: Path) -> Report:
    """Everything that is wrong with a folder of slices and volumes."""
    report = Report("volumes")
    root, made = data, None
    try:
        root, made = find_prepared(data)
    except UserError as error:
        report.error("prepared.json", str(data), str(error))
    lists = list_dir or next((d for d in (root / "lists", root) if (d / LISTS["train"]).is_file()), synapse_lists)
    if lists == root and not list_dir:
        report.note("lists", "", f"lie in {root.name} itself: give --list_dir {data} to train.py and test.py, too")
    names = read_lists(report, lists)
    classes = made.class_names if made else CLASS_NAMES if lists == synapse_lists else ()
    cases = look_at_files(report, data, names, len(classes) + 1 if classes else None)
    tabulate(report, cases, classes)
    check_patients(report, names)
    orientation = made.orientation if made else "SLP" if lists == synapse_lists else ""
    if classes and orientation:
        check_anatomy(report, [case.centres() for case in cases.values()], classes, orientation)
    find_duplicates(report, cases)
    listed = [name for part in names.values() for name in part]
    if not check_manifest(report, root, listed, made):
        report.note("manifest", "", "no manifest.json: not written by prepare_data.py, so no checksum to compare with")
    return report


def read_lists(report: Report, lists: Path) -> dict[str, list[str]]:
    """Part -> names; an error for a list that is missing or cannot be read. Only val_vol.txt may be missing."""
    names: dict[str, list[str]] = {}
    for part, file in LISTS.items():
        if part == "val" and not (lists / file).exists():
            continue
        try:
            names[part] = read_list(lists / file)
        except UserError as error:
            report.error("lists", file, str(error))
    return names


def tabulate(report: Report, cases: dict[str, Case], classes: tuple[str, ...]) -> None:
    """Tables of parts, sizes, spacings and classes; findings where these differ from what a training expects."""
    report.tables["parts"] = [["part", "cases", "slices"]]
    for part in dict.fromkeys(case.part for case in cases.values()):
        chosen = [case for case in cases.values() if case.part == part]
        report.tables["parts"].append([part, len(chosen), sum(len(case.sketches) for case in chosen)])
    for name, case in cases.items():
        if len(case.sizes) > 1:
            report.error("sizes that differ", name, f"slices of {sorted(case.sizes)}; expected one size a case")
    sizes = Counter("x".join(map(str, size)) for case in cases.values() for size in case.sizes).most_common()
    report.tables["sizes"] = [["height x width", "cases"], *map(list, sizes[:12])]
    volumes = {name: case for name, case in cases.items() if case.part != "train"}
    if without := [name for name, case in volumes.items() if case.spacing is None]:
        text = f"{len(without)} of {len(volumes)} volumes have none: distances will be in voxels"
        report.note("no spacing", ", ".join(without[:5]), text)
    if spacings := {name: np.array(case.spacing) for name, case in volumes.items() if case.spacing}:
        middle = np.median(list(spacings.values()), axis=0)
        report.tables["spacing"] = [["axis", "smallest", "median", "largest"]]
        for axis, word in enumerate(("slices", "rows", "columns")):
            along = [spacing[axis] for spacing in spacings.values()]
            values = [f"{value:.3f}" for value in (min(along), middle[axis], max(along))]
            report.tables["spacing"].append([f"{word}, mm", *values])
        for name, spacing in spacings.items():
            if (np.maximum(spacing / middle, middle / spacing) > 3).any():
                text = f"{spacing.round(3).tolist()} mm; the median is {middle.round(3).tolist()}"
                report.note("unusual spacing", name, text)
    if len(turned := Counter(case.orientation for case in volumes.values())) > 1:
        report.error("orientations that differ", "", f"volumes say {dict(turned)}; prepare them alike")
    seen = sum((case.voxels for case in cases.values()), np.zeros(256, np.int64))
    last = max(len(classes), *np.flatnonzero(seen).tolist(), 0) if cases else 0
    report.tables["classes"] = [["class", "label", "voxels", "share", "slices", "train cases", "other cases"]]
    for label in range(last + 1):
        name = "background" if label == 0 else classes[label - 1] if label <= len(classes) else f"class {label}"
        trained = sum(bool(case.voxels[label]) for case in cases.values() if case.part == "train")
        tested = sum(bool(case.voxels[label]) for case in volumes.values())
        share = f"{seen[label] / max(seen.sum(), 1):.3%}"
        shown = sum(int(case.slices[label]) for case in cases.values())
        report.tables["classes"].append([name, label, f"{seen[label]:,}", share, shown, trained, tested])
        if label and not trained:
            report.error("classes without training data", name, f"no training slice shows label {label}")
        elif label and not tested:
            report.note("classes that are not tested", name, f"no volume shows label {label}")
    if not classes:
        report.note("class names", "", "not known: no prepared.json says which classes the labels are")


def check_patients(report: Report, names: dict[str, list[str]]) -> None:
    """An error for each patient in several lists; cases of one (`patient_of`) count as one."""
    parts: dict[str, set[str]] = {}
    for part, listed in names.items():
        for name in listed:
            parts.setdefault(patient_of(name), set()).add(part)
    for patient, found in sorted(parts.items()):
        if len(found) > 1:
            report.error("patients in several parts", patient, f"is in {' and '.join(sorted(found))}")


def find_duplicates(report: Report, cases: dict[str, Case]) -> None:
    """An error for each two cases of different parts that share slices, with the most alike ones."""
    flat = [(name, k) for name, case in cases.items() for k, one in enumerate(case.sketches) if one.std() > 0.02]
    if not flat:
        return
    order = list(dict.fromkeys(case.part for case in cases.values()))
    part = np.array([order.index(cases[name].part) for name, _ in flat])
    sketches = np.stack([cases[name].sketches[k] for name, k in flat])
    best: dict[tuple[str, str], tuple[float, int, int]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for i, j, correlation in alike(sketches, part, MOST_BITS, LEAST_CORRELATION):
        key = flat[i][0], flat[j][0]
        counts[key] += 1
        best[key] = max(best.get(key, (0.0, 0, 0)), (correlation, i, j))
    for (first, second), (correlation, i, j) in sorted(best.items(), key=lambda item: -item[1][0]):
        where = f"{first} ({cases[first].part}), {second} ({cases[second].part})"
        text = f"{counts[first, second]} pairs of slices look alike, the closest with correlation {correlation:.4f}"
        pictures = (cases[first].thumbnails[flat[i][1]], cases[second].thumbnails[flat[j][1]])
        report.error("cases alike in different parts", where, text, *pictures)
