"""CVC-ClinicDB: Original/ and Ground Truth/ -> images/, masks/ and a split, with the video of each frame."""

import re
from argparse import ArgumentParser, Namespace
from typing import Any

from datasets.images.folds import groups_by_cuts, parse_size
from datasets.prepare.shared.pictures import FOLDERS, in_folder, new_split, pair_sources
from datasets.prepare.shared.run import Plan
from datasets.prepare.shared.sources import SourceFile
from utils.errors import UserError

WHERE = """\
Download from https://polyp.grand-challenge.org/CVCClinicDB/ (612 frames; unpack the rar archive).
SOURCE: the folder with Original/ and Ground Truth/, TIFF or PNG, or a zip of it."""
NUM_FRAMES = 612
# The last frame of each of the 29 videos but the last: isic_polyp_rectal/splits/README.md
CUTS = (
    *(25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297),
    *(317, 342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591),
)


def add_flags(parser: ArgumentParser) -> None:
    text = "image: at random, as published, though frames of one video look alike; video: whole videos"
    parser.add_argument("--split", default="image", choices=("image", "video"), help=text)
    parser.add_argument("--size", type=parse_size, default=0.9, help="share of the images that trains (default 0.9)")
    parser.add_argument("--copy", action="store_true", help="copy the files; else links to them are made")


def plan(files: list[SourceFile], args: Namespace) -> Plan:
    """Every frame with its mask; where the download holds them as PNG and as TIFF, the PNG."""
    images, masks = in_folder(files, "original"), in_folder(files, "groundtruth")
    notes = []
    if len({file.base.rpartition(".")[2].lower() for file in images}) > 1:
        images, masks = ([f for f in kind if f.base.lower().endswith(".png")] for kind in (images, masks))
        notes.append("the download holds each frame in several formats: the PNG files are used")
    if not images or not masks:
        raise UserError(f"found {len(images)} pictures in Original/ and {len(masks)} in Ground Truth/")
    if unnumbered := [file.name for file in images if not re.fullmatch(r"\d+\.\w+", file.base)]:
        raise UserError(f"{unnumbered[0]}: expected frames that are called by their number, such as 1.tif")
    cases = pair_sources(images, masks, args.copy)
    if len(cases) != NUM_FRAMES:
        notes.append(f"warning: {len(cases)} frames; the published data have {NUM_FRAMES}")

    def finish(records: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        ids = [record["facts"]["image"] for record in records.values()]
        videos = dict(zip(ids, groups_by_cuts(ids, CUTS)))
        return new_split(records, args.size, videos, together=args.split == "video")

    parameters = {"split": args.split, "size": args.size, "copy": args.copy}
    return Plan("cvc", cases, parameters, None, FOLDERS, finish, notes)
