"""Any folder of images and masks: pictures, or volumes such as nnU-Net's imagesTr/labelsTr and the tasks of MSD."""

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.images.check import PHOTO
from datasets.images.classes import CLASSES_FILE, parse_label_colours
from datasets.images.folds import GROUP_BY, groups_by_pattern, parse_size
from datasets.images.mask_values import guess_classes
from datasets.images.pairs import results_among
from datasets.prepare.folder_volumes import DETACHED, VOLUME, plan_volumes
from datasets.prepare.shared.pictures import FOLDERS, is_picture, new_split, pair_sources
from datasets.prepare.shared.run import Plan
from datasets.prepare.shared.sources import SourceFile
from datasets.prepare.shared.volumes import AXIAL, add_orientation
from utils.errors import UserError, counted, join_listed
from utils.log import log
from utils.preprocess import INTENSITIES

WHERE = """\
SOURCE: a folder (or zip) of images and one of their masks, or one that holds both; pictures, or volumes (.nii, .nii.gz,
.nrrd, .mha) such as nnU-Net's imagesTr/ and labelsTr/ with dataset.json, or an unpacked task of
http://medicaldecathlon.com."""
MASK_WORDS = ("mask", "label", "groundtruth", "gt", "seg", "annotation", "annot")


def add_flags(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", type=parse_size, default=0.9, help="share of the images or cases that trains (default 0.9)")
    add("--group-by", metavar="REGEX", help=GROUP_BY)
    add("--copy", action="store_true", help="pictures: copy the files; else links to them are made")
    add("--label_colours", metavar="JSON|NAME:#HEX,...", help="pictures: the classes of masks in colours")
    add_orientation(parser, AXIAL)
    text = "volumes: how values become [0, 1] (default: ct where dataset.json says CT, else percentile)"
    add("--intensity", choices=INTENSITIES, help=text)
    add("--channel", type=int, metavar="K", help="volumes: the channel to use of several, from 0")


def plan(files: list[SourceFile], args: Namespace) -> Plan:
    """Pairs by name of the one kind that is there. raises: UserError for both kinds or none"""
    volumes, pictures = [f for f in files if VOLUME.search(f.base)], [f for f in files if is_picture(f)]
    if detached := [] if pictures else [f for f in files if DETACHED.search(f.base)]:
        found = f"{detached[0].name}: is a header whose voxels lie in another file ({len(detached)} such)"
        remedy = "convert each, such as SimpleITK.WriteImage(SimpleITK.ReadImage('x.mhd'), 'x.mha')"
        raise UserError(f"{found}; expected header and voxels in one file: {remedy}")
    if bool(volumes) == bool(pictures):
        found = f"found {counted(len(pictures), 'picture')} and {counted(len(volumes), 'volume')}"
        raise UserError(f"{found} (.nii, .nii.gz, .nrrd, .mha); expected one of the two kinds")
    if volumes:
        if args.label_colours or args.copy:
            raise UserError("--label_colours, --copy: are for pictures; the sources hold volumes")
        return plan_volumes(files, *images_and_masks(volumes), args)
    if args.intensity or args.channel is not None:
        raise UserError("--intensity, --channel: are for volumes; the sources hold pictures")
    return plan_pictures(*images_and_masks(pictures), args)


def images_and_masks(files: list[SourceFile]) -> tuple[list[SourceFile], list[SourceFile]]:
    """Divide files by the two folders that they lie in; the one with the masks is told by its name."""
    folders: dict[tuple[Path, PurePosixPath], list[SourceFile]] = {}
    for file in files:
        place = file.path if file.member else file.path.parent
        folders.setdefault((place, PurePosixPath(file.name if file.member else "").parent), []).append(file)
    named = {key: found for key, found in folders.items() if found[0].folder.lower() not in ("imagests", "labelsts")}
    names = [found[0].folder for found in named.values()]
    if len(named) != 2:
        expected = "expected one of images and one of masks: give these two as SOURCE"
        raise UserError(f"found files in {len(named)} folders ({', '.join(sorted(names)[:8])}); {expected}")
    first, second = named.values()
    is_mask = [any(word in name.lower().replace(" ", "").replace("_", "") for word in MASK_WORDS) for name in names]
    if is_mask[0] == is_mask[1]:
        raise UserError(f"cannot tell which of {names[0]} and {names[1]} holds the masks; call that folder masks")
    return (second, first) if is_mask[0] else (first, second)


def plan_pictures(images: list[SourceFile], masks: list[SourceFile], args: Namespace) -> Plan:
    """Pictures with one class or several; classes.json is written for several. raises: UserError for unclear masks"""
    results = set(results_among([file.base for file in images], [file.base for file in masks]))
    cases = pair_sources([file for file in images if file.base not in results], masks, args.copy)
    names = [case.sources[0].base for case in cases]
    groups = dict(zip(names, groups_by_pattern(names, args.group_by))) if args.group_by else None
    table = parse_label_colours(args.label_colours) if args.label_colours else None
    notes = [f"left out, as made by predict.py: {join_listed(sorted(results))}"] if results else []
    if table is None:
        with ExitStack() as stack:
            paths = [stack.enter_context(case.sources[1].local()) for case in cases]
            guess = guess_classes(paths)
        if guess.kind == "unclear":
            raise UserError(f"masks: expected one value a class, in PNG without smoothing; found {guess.words}")
        table = guess.table
        notes.append(f"masks hold {guess.kind}: {guess.words}")
        notes += [f"warning: {counted(guess.photos, 'mask')} {PHOTO}"] if guess.photos else []
    if table:
        notes.append(f"classes: {table} (names and values are in {CLASSES_FILE}: edit the names)")

    def finish(records: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        texts, lines = new_split(records, args.size, groups)
        return texts | ({CLASSES_FILE: table.to_json()} if table else {}), lines

    parameters = {"size": args.size, "copy": args.copy, "classes": str(table) if table else "one class"}
    parameters |= {"group_by": args.group_by} if args.group_by else {}
    log(f"pairs: {len(cases)}")
    return Plan("folder", cases, parameters, None, FOLDERS, finish, notes)
