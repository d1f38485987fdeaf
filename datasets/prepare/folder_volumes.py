"""Folders of volumes and their labels, with or without the dataset.json of nnU-Net or MSD -> the Synapse layout."""

import json
import re
from argparse import Namespace
from typing import Any

import numpy as np

from datasets.files.image import read_image
from datasets.images.folds import choose_training, groups_by_pattern
from datasets.images.pairs import MASK_SUFFIX
from datasets.prepare.shared.run import Case, Plan
from datasets.prepare.shared.sources import SourceFile
from datasets.prepare.shared.volumes import FOLDERS, lists_of, prepare_volume
from datasets.prepared import Prepared
from datasets.volumes.lists import patient_of
from utils.errors import UserError, counted, join_listed

VOLUME = re.compile(r"\.(nii(\.gz)?|nrrd|mha)$", re.IGNORECASE)
DETACHED = re.compile(r"\.(nhdr|mhd)$", re.IGNORECASE)  # headers of files .raw and the like
CHANNEL = re.compile(r"_(\d{4})$")
SEED = 1234


def plan_volumes(files: list[SourceFile], images: list[SourceFile], labels: list[SourceFile], args: Namespace) -> Plan:
    """A case for each image with its label. raises: UserError for pairs and labels that do not fit"""
    described = read_description(files)
    pairs, by = pair_volumes(images, labels, args.channel), "by their names; --group-by may say otherwise"
    if args.group_by:
        by, groups = f"--group-by {args.group_by}", groups_by_pattern(list(pairs), args.group_by)
        pairs = {name_with(group, name): pair for group, (name, pair) in zip(groups, pairs.items())}
    names, label_map = class_names(described, labels)
    intensity = args.intensity or ("ct" if channel_name(described, args.channel) == "CT" else "percentile")
    patients = [patient_of(name) for name in pairs]
    # groups of one case each would give another split than the cases themselves
    groups = patients if len(set(patients)) < len(patients) else None
    train = choose_training(list(pairs), args.size, SEED, groups)
    parts = {part: [n for n, trains in zip(pairs, train) if trains == (part == "train")] for part in ("train", "test")}
    shared = {"orientation": args.orientation, "intensity": intensity, "label_map": label_map, "channel": args.channel}
    cases = [
        Case(name, pair, prepare_volume, shared | {"name": name, "test": name in parts["test"]})
        for name, pair in pairs.items()
    ]
    parameters = {"size": args.size, "labels": names, **shared}
    parameters |= {"group_by": args.group_by} if args.group_by else {}
    parameters["label_map"] = {str(value): label for value, label in label_map.items()}

    def finish(records: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        lines = [record["facts"]["note"] for record in records.values() if "note" in record["facts"]]
        spacings = {name: record["facts"]["spacing"] for name, record in records.items()}
        # slices (the first axis) lie closer than half of what pixels do along another axis
        if across := [name for name, spacing in spacings.items() if 2 * spacing[0] < max(spacing[1:])]:
            found = f"cut across thick slices: {counted(len(across), 'volume')}, such as {across[0]}"
            lines.append(f"warning: {found}; give --orientation whose first letter is the direction of these")
        lines.append(f"{counted(len(parts['train']), 'case')} to train, {len(parts['test'])} to test")
        return lists_of(parts, records), lines

    notes = [
        f"labels: {', '.join(in_words(names, label_map))}",
        f"intensity {intensity}, orientation {args.orientation}",
        f"patients: {len(set(patients))} in {counted(len(pairs), 'case')} ({by})",
    ]
    prepared = Prepared(tuple(names), intensity, args.orientation)
    return Plan("folder", cases, parameters, prepared, FOLDERS, finish, notes)


def read_description(files: list[SourceFile]) -> dict[str, Any]:
    """dataset.json of the sources; empty where there is none."""
    found = [file for file in files if file.base == "dataset.json"]
    if not found:
        return {}
    with found[0].open() as stream:
        try:
            described = json.load(stream)
        except ValueError as error:
            raise UserError(f"{found[0].where}: no JSON ({error}); restore the file or remove it") from None
    return described if isinstance(described, dict) else {}


def channel_name(described: dict[str, Any], channel: int | None) -> str:
    """Name of a channel (the first, unless one is chosen) in capitals; empty where dataset.json does not give it.

    MSD calls the names modality, nnU-Net channel_names.
    """
    named = described.get("channel_names", described.get("modality", {}))
    named = named if isinstance(named, dict) else {str(number): name for number, name in enumerate(named)}
    return str(named.get(str(channel or 0), "")).upper()


def class_names(described: dict[str, Any], labels: list[SourceFile]) -> tuple[list[str], dict[int, int]]:
    """Names of the foreground classes, and stored value -> class; from dataset.json, else from the labels themselves.

    Values with gaps, such as 0, 1, 2, 4 or 0, 205, 420, are numbered without.
    raises: UserError for labels that cannot be classes, and for voxels to ignore, which a loss here would learn from
    """
    table, where = described.get("labels"), "dataset.json"
    if not isinstance(table, dict):
        values, where = set(), "label files"
        for file in labels:
            with file.local() as path:
                values |= set(np.unique(read_image(path).array).tolist())
        table = {str(int(value)): f"class {int(value)}" if value else "background" for value in sorted(values)}
    try:  # MSD has value -> name, nnU-Net name -> value
        by_value = {int(key): str(value) for key, value in table.items()}
    except (TypeError, ValueError):
        try:
            by_value = {int(value): str(key) for key, value in table.items()}
        except (TypeError, ValueError):
            expected = "expected one whole number a class (no regions)"
            raise UserError(f"dataset.json: labels are {table}; {expected}") from None
    if ignored := [value for value, name in by_value.items() if name == "ignore"]:
        found = f"dataset.json: has the label ignore ({ignored[0]}); voxels cannot be left out of the loss here"
        remedy = "give them a class, or leave out the cases that have them; then remove ignore from it"
        raise UserError(f"{found}; {remedy}")
    values = sorted(by_value)
    if values[0] != 0 or not 2 <= len(values) <= 256:
        found = f"{where}: labels are {join_listed([str(value) for value in values], 8, ', ')}"
        remedy = "relabel with SimpleITK.ChangeLabel(label, changeMap={old: new}), and change dataset.json alike"
        raise UserError(f"{found}; expected 0 for the background and one to 255 numbers above it; {remedy}")
    return [by_value[value] for value in values[1:]], {value: number for number, value in enumerate(values)}


def name_with(group: str, name: str) -> str:
    """GROUP@NAME, which tells `patient_of` the group wherever the case is listed; NAME where it does so itself."""
    return name if patient_of(name) == group else f"{group}@{name}"


def in_words(names: list[str], label_map: dict[int, int]) -> list[str]:
    """`5 liver -> 3` of each label: its number in the source, its name, and its number in the masks where another."""
    all_names = ["background", *names]
    return [f"{value} {all_names[k]}{f' -> {k}' if k != value else ''}" for value, k in label_map.items()]


def pair_volumes(
    images: list[SourceFile], labels: list[SourceFile], channel: int | None
) -> dict[str, tuple[SourceFile, SourceFile]]:
    """Name of the case -> (image, label).

    An image may end in _0000, its channel, unless a label has the whole name; a label in _seg, _gt ...
    raises: UserError for files without partner, several labels for one image, and channels of which none is chosen
    """
    stems = {VOLUME.sub("", file.base) for file in labels}
    labelled = stems | {MASK_SUFFIX.sub("", stem) for stem in stems}
    by_name: dict[str, list[SourceFile]] = {}
    for file in images:
        stem = VOLUME.sub("", file.base)
        name = next((name for name in (stem, CHANNEL.sub("", stem)) if name in labelled), stem)
        by_name.setdefault(name, []).append(file)
    for name, files in by_name.items():
        if len(files) > 1:
            if channel is None:
                listed = ", ".join(file.base for file in files)
                raise UserError(f"{name} has several channels ({listed}); give the one to use as --channel 0, 1 ...")
            by_name[name] = [file for file in files if VOLUME.sub("", file.base).endswith(f"_{channel:04d}")]
    problems = [f"{name}: {counted(len(files), 'image')}" for name, files in by_name.items() if len(files) != 1]
    pairs = {}
    for file in labels:
        stem = VOLUME.sub("", file.base)
        stem = stem if stem in by_name else MASK_SUFFIX.sub("", stem)
        if stem not in by_name:
            problems.append(f"{file.where}: no image")
        elif stem in pairs:
            problems.append(f"{pairs[stem][1].where} and {file.where}: two labels for one image")
        else:
            pairs[stem] = (*by_name[stem][:1], file)
    problems += [f"{file.where}: no label" for name in by_name.keys() - pairs.keys() for file in by_name[name]]
    if problems:
        raise UserError(f"by name {counted(len(problems), 'file')} cannot be paired:\n  {join_listed(problems)}")
    return pairs
