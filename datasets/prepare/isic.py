"""ISIC-2018, task 1: the official training folders -> images/, masks/ and the published share of test images."""

import re
from argparse import ArgumentParser, Namespace
from functools import partial

from datasets.images.folds import parse_size
from datasets.prepare.shared.pictures import FOLDERS, new_split, pair_sources
from datasets.prepare.shared.run import Plan
from datasets.prepare.shared.sources import SourceFile
from utils.errors import UserError, counted

WHERE = """\
Download from https://challenge.isic-archive.com/data/#2018, task 1: "Training Data" and "Training Ground Truth".
SOURCE: ISIC2018_Task1-2_Training_Input and ISIC2018_Task1_Training_GroundTruth, folders or zips."""
NUM_IMAGES = 2594
IMAGE = re.compile(r"ISIC_\d{7}\.jpe?g", re.IGNORECASE)
MASK = re.compile(r"ISIC_\d{7}_segmentation\.png", re.IGNORECASE)
OTHER_PARTS = re.compile(r"ISIC2018_Task1(-2)?_(Validation|Test)_", re.IGNORECASE)


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--size", type=parse_size, default=0.9, help="share of the images that trains (default 0.9)")
    parser.add_argument("--copy", action="store_true", help="copy the files; else links to them are made")


def plan(files: list[SourceFile], args: Namespace) -> Plan:
    """Every image of the training part with its mask."""
    used = [file for file in files if not OTHER_PARTS.search(f"{file.path}/{file.name}")]
    images, masks = ([file for file in used if kind.fullmatch(file.base)] for kind in (IMAGE, MASK))
    if not images or not masks:
        found = f"found {len(images)} images ISIC_0000000.jpg and {len(masks)} masks"
        raise UserError(f"{found} ISIC_0000000_segmentation.png")
    cases = pair_sources(images, masks, args.copy)
    notes = []
    if left := len(files) - len(used):
        notes.append(f"not used: {counted(left, 'file')} of the validation and test parts")
    if len(cases) != NUM_IMAGES:
        notes.append(f"warning: {len(cases)} images; the published data have {NUM_IMAGES}")

    finish = partial(new_split, size=args.size)
    return Plan("isic", cases, {"size": args.size, "copy": args.copy}, None, FOLDERS, finish, notes)
