"""Rectal CT: arterial-phase DICOM slices with masks -> windowed pictures of the slices that show tumour.

A picture is called as in the published split: patient 1002's slice 10015 is case002_slice10015.png.
"""

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from datasets.files.image import read_image
from datasets.files.pictures import read_picture, to_mask
from datasets.images.split import read_split
from datasets.prepare.shared.pictures import FOLDERS, new_split, split_files
from datasets.prepare.shared.run import Case, Plan
from datasets.prepare.shared.sources import SourceFile
from datasets.prepare.shared.volumes import AXIAL
from datasets.prepared import Prepared
from utils.errors import UserError, counted, join_listed
from utils.files import replacing
from utils.inference.orientation import turn
from utils.preprocess import UNKNOWN, WINDOW
from utils.preprocess.intensities import window_ct

WHERE = """\
Ask the authors of the paper for the rectal CT set (107 patients, DICOM with masks).
SOURCE: a folder or zip with a folder for each patient (case1002/), and in it 10001.dcm with 10001_mask.png ..."""
PUBLISHED = Path(__file__).parents[2] / "isic_polyp_rectal" / "splits" / "rectal.csv"


def add_flags(parser: ArgumentParser) -> None:
    window = ",".join(f"{value:g}" for value in WINDOW)
    parser.add_argument("--window", default=window, help=f"HU that become black and white (default {window})")
    text = "published: as released, by slice; patient: nine tenths of the patients train"
    parser.add_argument("--split", default="published", choices=("published", "patient"), help=text)


def plan(files: list[SourceFile], args: Namespace) -> Plan:
    """A case for each patient. raises: UserError for slices without mask, and for a window that is none"""
    low, high = parse_window(args.window)
    slices = [file for file in files if file.base.lower().endswith(".dcm")]
    arterial = [file for file in slices if file.base.startswith("1")]
    masks = {(file.path.parent, file.name.removesuffix("_mask.png")): file for file in files}
    patients: dict[int, list[SourceFile]] = {}
    problems = []
    for file in arterial:
        mask = masks.get((file.path.parent, re.sub(r"\.dcm$", "", file.name, flags=re.IGNORECASE)))
        if mask is None:
            problems.append(f"{file.where}: no mask {PurePosixPath(file.base).stem}_mask.png beside it")
        else:
            patients.setdefault(patient_of(file), []).extend((file, mask))
    if problems or not patients:
        found = f"found {len(slices)} DICOM slices, {len(arterial)} of the arterial phase (called 1....dcm)"
        wrong = f"{len(problems)} of them cannot be used:\n  {join_listed(problems)}"
        raise UserError(f"{found}; {wrong if problems else 'expected a folder a patient, such as case1002/10001.dcm'}")
    cases = [
        Case(f"case{patient:03d}", tuple(found), prepare_patient, {"patient": patient, "low": low, "high": high})
        for patient, found in sorted(patients.items())
    ]
    other = len(slices) - len(arterial)
    notes = [f"not used: {other} DICOM files of another phase (not called 1....dcm)"] if other else []
    prepared = Prepared(("tumour",), "ct" if (low, high) == WINDOW else UNKNOWN, AXIAL)
    parameters = {"window": [low, high], "split": args.split}

    def finish(records: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        ids = {name: case for case, record in records.items() for name in record["facts"]["images"]}
        num_slices = sum(record["facts"]["slices"] for record in records.values())
        lines = [f"{counted(num_slices, 'slice')}, {len(ids)} of them with tumour"]
        rows = [row for row in read_split(PUBLISHED) if row.image_id in ids] if args.split == "published" else []
        if not rows:
            texts, more = new_split({name: {"facts": {"image": name}} for name in ids}, 0.9, ids)
            return texts, [*lines, *more]
        if left := len(ids) - len(rows):
            missed = f"{counted(left, 'slice')} with tumour"
            lines.append(f"warning: not in the published split, and so not in the CSV: {missed}")
        texts, more = split_files([row._replace(group=ids[row.image_id]) for row in rows])
        return texts, [*lines, *more]

    return Plan("rectal", cases, parameters, prepared, FOLDERS, finish, notes)


def parse_window(text: str) -> tuple[float, float]:
    """LOW,HIGH in HU. raises: UserError"""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not low < high:
        raise UserError(f"--window {text}: expected two numbers of HU, the lower first, such as --window=-125,275")
    return low, high


def patient_of(file: SourceFile) -> int:
    """The number of the patient, from the nearest folder that ends in one; 1002 and 2 are the same."""
    folders = [*PurePosixPath(file.name).parts[:-1]] or [file.folder]
    for folder in reversed(folders):
        if match := re.search(r"(\d+)$", folder):
            number = int(match[1])
            return number - 1000 if number > 1000 else number
    raise UserError(f"{file.name}: its folders {'/'.join(folders)} name no patient; expected one such as case1002")


def prepare_patient(target: Path, *files: SourceFile, patient: int, low: float, high: float):
    """Write the slices with tumour as 8-bit pictures, their masks as 0 and 255. files: slice, mask, slice, mask ..."""
    images = []
    for file, mask_file in zip(files[::2], files[1::2]):
        with file.local(target) as path, mask_file.local(target) as mask_path:
            picture = read_picture(mask_path)
            mask = to_mask(picture, mask_path)
            if not mask.any():
                continue
            found = read_image(path)
        if found.array.shape != (1, *mask.shape):
            raise UserError(f"{mask_file.where}: found a mask of {mask.shape}; its slice has {found.array.shape[1:]}")
        hu, labels = (turn(array, found.orientation, AXIAL)[0] for array in (found.array, mask[None]))
        name = f"case{patient:03d}_slice{PurePosixPath(file.base).stem}.png"
        grey = np.rint(255 * window_ct(hu, low, high)).astype(np.uint8)
        for folder, pixels in (("images", grey), ("masks", labels.astype(np.uint8) * np.uint8(255))):
            with replacing(target / folder / name) as part:
                cv2.imencode(".png", pixels)[1].tofile(part)
        images.append(name)
    outputs = [f"{folder}/{name}" for name in images for folder in FOLDERS]
    return outputs, {"slices": len(files) // 2, "images": images}
