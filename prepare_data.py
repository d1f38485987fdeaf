"""Bring a download into the layout that train.py reads, and check any data before a training.

python prepare_data.py synapse RawData.zip data/Synapse
python prepare_data.py verify data/Synapse
"""

import sys

from datasets.prepare.acdc import CLASS_NAMES
from datasets.prepare.command import build_parser, prepare, preprocessed
from datasets.prepare.verify.command import verify
from utils.errors import run_main
from utils.files import allow_bytes
from utils.log import log


def main(argv: list[str]) -> None:
    args = build_parser(__doc__.partition("\n")[0]).parse_args(argv)
    allow_bytes(args.max_image_bytes)
    if args.name == "verify":
        sys.exit(verify(args.data, args.csvfile, args.list_dir, args.output_dir))
    if folder := preprocessed(args):
        log(f"{folder}: is preprocessed already; it is used as it is, and {'not ' * args.dry_run}checked now")
        if args.name == "acdc":
            lists = folder / "lists" if (folder / "lists").is_dir() else folder
            flags = f"--list_dir {lists} --num_classes 4 --class_names {','.join(CLASS_NAMES)}"
            log(f"train on it with: python train.py --dataset {folder} {flags}")
        sys.exit(0 if args.dry_run else verify(folder, None, None, args.target))
    prepare(args)


if __name__ == "__main__":
    run_main(main)
