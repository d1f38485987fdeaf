"""The command line of prepare_data.py: a sub-command a data set, and verify."""

import argparse
from functools import partial
from pathlib import Path
from textwrap import indent

from datasets.prepare import acdc, cvc, folder, isic, rectal, synapse
from datasets.prepare.shared.run import carry_out
from datasets.prepare.shared.sources import list_files, walk
from datasets.volumes.lists import is_data as is_volumes
from utils.device import num_cores
from utils.errors import UserError
from utils.files import MAX_IMAGE_BYTES
from utils.log import log

DATASETS = {"synapse": synapse, "acdc": acdc, "isic": isic, "cvc": cvc, "rectal": rectal, "folder": folder}


def build_parser(description: str) -> argparse.ArgumentParser:
    """The parser of every sub-command."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in DATASETS.items():
        one = commands.add_parser(
            name,
            help=module.__doc__.partition("\n")[0],
            description=f"{module.__doc__}\n{module.WHERE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add, cores = one.add_argument, num_cores()
        add("sources", nargs="+", type=Path, metavar="SOURCE", help="folders or zip archives of the download")
        add("target", type=Path, metavar="TARGET", help="the prepared folder, which may be new")
        module.add_flags(one)
        add("--dry-run", action="store_true", help="say what would be made, and write nothing")
        add("--workers", type=int, default=cores, metavar="N", help="processes (default: all cores)")
    text = "check a prepared folder, or any other in the same layout"
    add = partial(commands.add_parser("verify", help=text, allow_abbrev=False).add_argument, type=Path)
    add("data", metavar="DATA", help="folder with train_npz/ and test_vol_h5/, or images/ and masks/")
    add("--csvfile", metavar="CSV", help="pictures: the split (default: DATA/test_train_data.csv)")
    add("--list_dir", metavar="DIR", help="volumes: the lists (default: DATA/lists, DATA itself or Synapse's)")
    add("--output_dir", metavar="DIR", help="where verify.html and verify.json go (default: DATA)")
    for one in commands.choices.values():
        text = f"largest image or volume to read, in bytes of the decoded array (default: {MAX_IMAGE_BYTES})"
        one.add_argument("--max_image_bytes", type=int, default=MAX_IMAGE_BYTES, metavar="N", help=text)
    return parser


def prepare(args: argparse.Namespace) -> None:
    """Prepare the data set that the command names. raises: UserError for sources that cannot be used"""
    module = DATASETS[args.name]
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: expected 1 or more")
    try:
        files = list_files(args.sources)
        if packed := [file for file in files if file.member and "/train_npz/" in f"/{file.name}"]:
            raise UserError(f"{packed[0].path}: holds train_npz/, preprocessed data; unpack it, and give its folder")
        plan = module.plan(files, args)
    except UserError as error:
        raise UserError(f"{args.name}: {error}\n{indent(module.WHERE, '  ')}") from None
    carry_out(plan, args.target, args.workers, args.dry_run)
    if not args.dry_run:
        log(f"check it with: python prepare_data.py verify {args.target}")


def preprocessed(args: argparse.Namespace) -> Path | None:
    """The folder of a Synapse or ACDC download that is preprocessed already; it is verified instead."""
    if args.name not in ("synapse", "acdc"):
        return None
    folders = [source for source in args.sources if source.is_dir()]
    inner = [folder.parent for source in folders for folder, _ in walk(source) if folder.name == "train_npz"]
    return next(iter([source for source in folders if is_volumes(source)] + inner), None)
