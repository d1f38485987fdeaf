"""Synapse multi-organ CT (BTCV): the raw challenge files -> slices and volumes as the published tables use them.

HU are clipped to -125..275 and scaled to [0, 1]; 13 labels become 8; every volume is turned to the orientation of the
preprocessed files that are passed around, "SLP": slices grow upwards, rows to the patient's left, columns to the back.
That columns grow to the back is seen on these files. That rows grow to the left is how MMSegmentation's converter
turns the raw volumes to reproduce them (stored LAS: x comes first, y last and flipped), and how the colon lies on the
one slice that was at hand.
"""

import re
from argparse import ArgumentParser, Namespace
from typing import Any

from datasets.phantom.organs import CLASS_NAMES
from datasets.prepare.shared.run import Case, Plan
from datasets.prepare.shared.sources import SourceFile, find_once
from datasets.prepare.shared.volumes import FOLDERS, add_orientation, lists_of, prepare_volume
from datasets.prepared import Prepared
from utils.errors import UserError, join_listed
from utils.preprocess import WINDOW

WHERE = """\
Register at https://www.synapse.org, join "Multi-Atlas Labeling Beyond the Cranial Vault" (syn3193805) and download
Abdomen/RawData.zip: https://www.synapse.org/#!Synapse:syn3193805/wiki/217789 (30 training scans with labels).
SOURCE: that zip or its folder, with img0001.nii.gz and label0001.nii.gz in any folders; or a preprocessed download with
train_npz/ and test_vol_h5/, which is checked instead."""
ORIENTATION = "SLP"
ORGANS = {1: 7, 2: 4, 3: 3, 4: 2, 6: 5, 7: 8, 8: 1, 11: 6}  # label of the challenge -> ours
DROPPED = (0, 5, 9, 10, 12, 13)  # oesophagus, inferior vena cava, portal and splenic vein, the two adrenal glands
LABEL_MAP = ORGANS | dict.fromkeys(DROPPED, 0)
TRAIN = (5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40)
SLICES = (117, 131, 163, 149, 148, 143, 96, 124, 131, 88, 89, 153, 93, 104, 98, 99, 90, 195)  # of each of these
TRAIN_SLICES = dict(zip(TRAIN, SLICES))
TEST = (8, 22, 38, 36, 32, 2, 29, 3, 1, 4, 25, 35)  # in the order of the published list; 1,568 slices
NUM_TEST_SLICES = 1568
FILE = re.compile(r"(img|label)(\d{4})\.nii(?:\.gz)?")


def add_flags(parser: ArgumentParser) -> None:
    add_orientation(parser, ORIENTATION)


def plan(files: list[SourceFile], args: Namespace) -> Plan:
    """The 18 training and 12 test cases. raises: UserError for cases that are missing, twice there or not of the set"""
    found = find_once(files, FILE)
    images = {number: file for (kind, number), file in found.items() if kind == "img"}
    pairs = {int(n): (image, found["label", n]) for n, image in images.items() if ("label", n) in found}
    wanted = {*TRAIN_SLICES, *TEST}
    if missing := sorted(wanted - pairs.keys()):
        listed = join_listed([f"{number:04d}" for number in missing], 30, ", ")
        hint = "the cases are numbered 0001 to 0010 and 0021 to 0040: a copy that is numbered otherwise cannot be used"
        raise UserError(f"{len(missing)} of 30 cases are missing (img and label): {listed}; {hint}")
    cases = []
    for number in [*TRAIN_SLICES, *TEST]:
        name = f"case{number:04d}"
        arguments = {"name": name, "test": number in TEST, "orientation": args.orientation, "intensity": "ct"}
        cases.append(Case(name, pairs[number], prepare_volume, arguments | {"label_map": LABEL_MAP}))
    parameters = {
        "window": list(WINDOW),
        "orientation": args.orientation,
        "labels": {str(value): CLASS_NAMES[label - 1] for value, label in ORGANS.items()},
    }
    prepared = Prepared(CLASS_NAMES, "ct", args.orientation)
    extra = sorted(pairs.keys() - wanted)
    notes = [f"not used: labelled cases {extra}, which no list names"] if extra else []
    return Plan("synapse", cases, parameters, prepared, FOLDERS, finish, notes)


def finish(records: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The lists; a warning for each case with another number of slices than the published data have."""
    counts = {int(name.removeprefix("case")): record["facts"]["slices"] for name, record in records.items()}
    lines = [record["facts"]["note"] for record in records.values() if "note" in record["facts"]]
    wrong = {number: expected for number, expected in TRAIN_SLICES.items() if counts[number] != expected}
    differ = [f"case{number:04d} has {counts[number]} slices, not {expected}" for number, expected in wrong.items()]
    tested = sum(counts[number] for number in TEST)
    if tested != NUM_TEST_SLICES:
        differ.append(f"the test cases have {tested} slices, not {NUM_TEST_SLICES}")
    if differ:
        lines.append(f"warning: not the published data, counts differ:\n  {join_listed(differ)}")
    parts = {name: [f"case{n:04d}" for n in numbers] for name, numbers in (("train", TRAIN), ("test", TEST))}
    return lists_of(parts, records), [*lines, f"{sum(counts.values()) - tested} training slices, {len(TEST)} volumes"]
