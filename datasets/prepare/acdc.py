"""ACDC cardiac MR: the end-diastolic and end-systolic frames of each patient as two cases, and its two usual splits."""

import re
from argparse import ArgumentParser, Namespace
from typing import Any

from datasets.prepare.shared.run import Case, Plan
from datasets.prepare.shared.sources import SourceFile, find_once
from datasets.prepare.shared.volumes import AXIAL, FOLDERS, lists_of, prepare_volume
from datasets.prepared import Prepared
from utils.errors import UserError, counted, join_listed

WHERE = """\
Register at https://humanheart-project.creatis.insa-lyon.fr/database and download the ACDC database (150 patients):
https://humanheart-project.creatis.insa-lyon.fr/database/#collection/637218c173e9f0047faa00fb
SOURCE: its folder or zip, with patient001/Info.cfg, patient001_frame01.nii.gz and patient001_frame01_gt.nii.gz; or a
preprocessed download with train_npz/ and test_vol_h5/, which is checked instead."""
CLASS_NAMES = ("RV", "Myo", "LV")
# of patients 1 to 100; the split of TransUNet and its successors
VALIDATION = (2, 19, 28, 30, 39, 45, 78, 82, 85, 87)
TEST = (1, 7, 8, 11, 13, 22, 24, 33, 52, 59, 64, 65, 66, 68, 75, 80, 81, 83, 84, 93)
SPLITS = {  # name -> (number of patients, validation, test)
    "70-10-20": (100, VALIDATION, TEST),
    "official": (150, (), tuple(range(101, 151))),
}
FRAME = re.compile(r"patient(\d{3})_frame(\d{2})(_gt)?\.nii(?:\.gz)?")
CASE = re.compile(r"patient(\d{3})")


def add_flags(parser: ArgumentParser) -> None:
    text = "70-10-20: the patients 1 to 100 as in the published tables; official: 100 to train, 101 to 150 to test"
    parser.add_argument("--split", default="70-10-20", choices=SPLITS, help=text)


def plan(files: list[SourceFile], args: Namespace) -> Plan:
    """Every labelled frame of the split's patients. raises: UserError for patients or frames that are missing"""
    num_patients, validation, test = SPLITS[args.split]
    found = find_once(files, FRAME)
    labels = {(patient, frame): file for (patient, frame, is_label), file in found.items() if is_label}
    frames = {(int(p), int(f)): (found[p, f, None], file) for (p, f), file in labels.items() if (p, f, None) in found}
    folders = ((CASE.fullmatch(file.folder.lower()), file) for file in files if file.base.lower() == "info.cfg")
    infos = {int(match[1]): file for match, file in folders if match}
    problems = []
    for patient in range(1, num_patients + 1):
        there = sorted(frame for number, frame in frames if number == patient)
        expected = sorted(_read_info(infos[patient])) if patient in infos else there
        if not there or there != expected:
            problems.append(f"patient{patient:03d}: labelled frames {there or 'none'}, expected {expected or 'two'}")
    if problems:
        raise UserError(f"{len(problems)} of {num_patients} patients are not whole:\n  {join_listed(problems)}")
    shared = {"orientation": AXIAL, "intensity": "percentile", "label_map": {0: 0, 1: 1, 2: 2, 3: 3}}
    cases = []
    for (patient, frame), pair in sorted(frames.items()):
        if patient <= num_patients:
            name = f"patient{patient:03d}_frame{frame:02d}"
            own = {"name": name, "test": patient in (*validation, *test)}
            cases.append(Case(name, pair, prepare_volume, shared | own))
    parameters = {"split": args.split, "intensity": "percentile", "orientation": AXIAL, "labels": list(CLASS_NAMES)}
    notes = [] if infos else ["no Info.cfg: which frames are end-diastolic and end-systolic is not checked"]

    def finish(records: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for name in sorted(records):
            patient = int(CASE.match(name)[1])
            parts["test" if patient in test else "val" if patient in validation else "train"].append(name)
        counts = ", ".join(f"{part}: {counted(len(names), 'volume')}" for part, names in parts.items())
        return lists_of(parts, records), [counts]

    return Plan("acdc", cases, parameters, Prepared(CLASS_NAMES, "percentile", AXIAL), FOLDERS, finish, notes)


def _read_info(file: SourceFile) -> set[int]:
    """The frames ED and ES of an Info.cfg."""
    with file.open() as stream:
        text = stream.read(10_000).decode("utf-8", "replace")
    frames = {int(number) for number in re.findall(r"^\s*E[DS]\s*:\s*(\d+)", text, re.MULTILINE)}
    if not frames:
        raise UserError(f"{file.name}: found no lines ED: and ES: with the numbers of the labelled frames")
    return frames
