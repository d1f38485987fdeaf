"""Compare results of test.py: is one setting better than another, by how much, and how sure is that?

    python -m tools.compare runs/causal runs/noncausal
    python -m tools.compare causal=runs/c1,runs/c2,runs/c3 noncausal=runs/n1,runs/n2,runs/n3 --output_dir comparison
    python -m tools.compare causal=runs/c1,runs/c2,runs/c3

A folder is one of results (summary.json and cases.csv) or a run's that holds one. Results of different protocols,
data or cases are refused; recipes and input sizes may differ. Settings are compared case by case with the Wilcoxon
signed-rank test; the seeds of one setting (NAME=FOLDER,FOLDER) are averaged per case first; shown is mean ± SD
[interval over cases]. Where cases.csv tells groups (videos, patients), these are tested and resampled, not cases.
"""

import argparse
import json

from tools.compare.comparison import HIGHER, LOWER, compare
from tools.compare.page import draw, html_page
from tools.compare.text import text_report
from tools.output import parser_of, write_files
from utils.errors import UserError, run_main
from utils.log import log_lines
from utils.results.reading import Setting, check_comparable, parse_settings
from utils.scoring.protocols import kind_of

SHOWN = ("dice", "hd95", "nsd")


def main(argv: list[str]) -> None:
    given = parser().parse_args(argv)
    settings = parse_settings(given.results, given.part)
    check_comparable(settings)
    comparison = compare(settings, choose_metrics(settings, given.metrics))
    log_lines(text_report(comparison))
    if given.output_dir:
        ranked = list(comparison["ranks"])
        texts = {"comparison.json": json.dumps(comparison, indent=2, allow_nan=False, ensure_ascii=False) + "\n"}
        texts |= {"comparison.html": html_page(comparison)}
        texts |= {"comparison.svg": draw(comparison, ranked)} if ranked else {}
        write_files(given.output_dir, texts)


def parser() -> argparse.ArgumentParser:
    parser = parser_of("compare", __doc__)
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="FOLDER, NAME=FOLDER or NAME=FOLDER,FOLDER...")
    parser.add_argument("--part", help="which results of a run's folder: test_standard, test_legacy, out_of_fold ...")
    parser.add_argument("--metrics", nargs="+", help="columns to compare, the first as the main one, or: all")
    parser.add_argument("--output_dir", help="write comparison.json, .svg and .html there")
    return parser


def choose_metrics(settings: list[Setting], wanted: list[str] | None) -> list[str]:
    """Columns to compare, of a known direction: those asked for, else Dice, HD95 and NSD where they exist.

    raises: UserError for a column that some result lacks, or that is neither better high nor better low
    """
    there = [name for name in settings[0].results[0].metrics() if kind_of(name) in HIGHER + LOWER]
    if wanted is None:
        return [name for name in there if kind_of(name) in SHOWN]
    if wanted == ["all"]:
        return there
    chosen = []
    for name in wanted:
        name = next((known for known in there if name in (known, known.strip("|"), kind_of(known))), name)
        if name not in there:
            raise UserError(f"--metrics {name}: not a figure of these results; expected some of {', '.join(there)}")
        chosen.append(name)
    return list(dict.fromkeys(chosen))


if __name__ == "__main__":
    run_main(main)
