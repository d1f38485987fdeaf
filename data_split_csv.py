"""Split a folder of images/ and masks/ into training and test part: writes test_train_data.csv."""

import argparse

from datasets.images.folds import GROUP_BY, parse_size
from datasets.images.make_split import split_dataset
from utils.errors import UserError, run_main
from utils.log import printable


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", required=True, metavar="DATA", help="folder with images/ and masks/")
    add("--size", type=parse_size, default=0.9, help="share of the images that trains (default 0.9)")
    add("--seed", type=int, default=1234, help="another seed, another split (default 1234)")
    add("--output", metavar="CSV", help="file to write (default DATA/test_train_data.csv)")
    add("--force", action="store_true", help="replace the file where it exists")
    add("--group-by", metavar="REGEX", help=GROUP_BY)
    add("--group-cuts", metavar="N,N,...", help="numbered frames: the last number of each scene; scenes stay together")
    add("--folds", type=int, metavar="K", help="also write the K folds of the training part")
    args = parser.parse_args(argv)
    try:
        cuts = [int(number) for number in args.group_cuts.split(",")] if args.group_cuts else None
    except ValueError:
        expected = "expected whole numbers and commas, such as 25,50,67"
        raise UserError(f"--group-cuts {args.group_cuts}: {expected}") from None
    given = args.dataset, args.size, args.seed, args.output, args.force, args.group_by, cuts, args.folds
    print(printable(split_dataset(*given)))


if __name__ == "__main__":
    run_main(main)
