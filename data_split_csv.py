"""Split a folder of images/ and masks/ into training and test part: writes test_train_data.csv."""

import argparse

from datasets.images.make_split import split_dataset
from utils.errors import UserError, run_main
from utils.log import printable


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, metavar="DATA", help="folder with images/ and masks/")
    parser.add_argument("--size", type=float, default=0.9, help="share of the images that trains (default 0.9)")
    parser.add_argument("--seed", type=int, default=1234, help="another seed, another split (default 1234)")
    parser.add_argument("--output", metavar="CSV", help="file to write (default DATA/test_train_data.csv)")
    parser.add_argument("--force", action="store_true", help="replace the file where it exists")
    parser.add_argument(
        "--group-by", metavar="REGEX", help="images whose names match alike stay together, such as 'case[0-9]+'"
    )
    parser.add_argument(
        "--group-cuts", metavar="N,N,...", help="numbered frames: the last number of each scene; scenes stay together"
    )
    parser.add_argument("--folds", type=int, metavar="K", help="also write the K folds of the training part")
    args = parser.parse_args(argv)
    try:
        cuts = [int(number) for number in args.group_cuts.split(",")] if args.group_cuts else None
    except ValueError:
        raise UserError(
            f"--group-cuts {args.group_cuts}: expected whole numbers and commas, such as 25,50,67"
        ) from None
    made = split_dataset(
        args.dataset, args.size, args.seed, args.output, args.force, args.group_by, cuts, num_folds=args.folds
    )
    print(printable(made))


if __name__ == "__main__":
    run_main(main)
