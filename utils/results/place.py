"""Name the folder of a test's results; find test cases that the network was trained on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.config import Config
from utils.errors import UserError, counted, join_listed
from utils.files import read_text
from utils.log import log
from utils.results.summary import CASES, SUMMARY, names_of, read_cases
from utils.scoring.protocols import Row
from utils.training.task import hash_case

# What describes a result, but does not make it another one
WORDS = ("checkpoints", "selection", "split")


def result_folder(run: Path, cfg: Config, num_checkpoints: int) -> Path:
    """The folder in `run` for the results of one test: test_standard, val_legacy_tta_scales0.75_fold2_mean3."""
    name = f"{cfg.split}_{cfg.protocol}" + ("_tta" if cfg.tta else "")
    if cfg.tta_scales:
        name += "_scales" + "-".join(f"{scale:g}" for scale in cfg.tta_scales)
    if cfg.split != "test" and cfg.folds:
        name += f"_fold{cfg.fold}"
    if num_checkpoints > 1:
        name += f"_mean{num_checkpoints}"
    return run / name


def check_replaceable(folder: Path, meta: Mapping[str, Any], force: bool) -> None:
    """Refuse to replace the results of another test. in: meta as `describe_result` gives it

    raises: UserError that says in what it differs
    """
    path = folder / SUMMARY
    if force or not path.exists():
        return
    try:
        before = json.loads(read_text(path))
        hashes = [one["sha256"] for one in before["checkpoints"]]
        differ = [name for name, value in meta.items() if name not in WORDS and before.get(name) != value]
    except (UserError, RecursionError, ValueError, LookupError, TypeError, AttributeError):
        differ = ["a file that cannot be read"]
    else:
        if hashes != [one["sha256"] for one in meta["checkpoints"]]:
            differ.insert(0, "another checkpoint")
    if differ:
        raise UserError(
            f"{folder}: already holds the results of another test ({', '.join(differ)}); give --force to replace "
            "them, or another --output_dir"
        )


def check_same_cases(folder: Path, cases: Sequence[str], force: bool) -> None:
    """Refuse to replace results of other cases, such as those of another CSV. in: names of the cases to evaluate now

    raises: UserError
    """
    path = folder / CASES
    if force or not path.exists():
        return
    before = set(names_of(read_cases(path), "case"))
    if before != set(cases):
        found = f"{counted(len(before), 'case')}, now {len(set(cases))}, in common {len(before & set(cases))}"
        remedy = "give --force to replace them, or another --output_dir"
        raise UserError(f"{folder}: already holds the results of other cases ({found}); {remedy}")
    log(f"{folder}: holds the results of the same test, which are replaced")


def trained_on(rows: Sequence[Row], seen: Sequence[Mapping[str, Sequence[str]]], split: str) -> dict[str, Any]:
    """What the summary says of cases that the networks were trained on: their names, and a note where there are any.

    in: seen: `cases` of each checkpoint, hashes of names (`hash_case`); empty where a file holds none
    out: {"trained_on": names, or None where no checkpoint says, "note": ...}
    """
    if not any(seen):
        return {"trained_on": None}
    known = {digest for cases in seen for part in ("train", "earlier") for digest in cases.get(part, ())}
    cases = names_of(rows, "case")
    found = [name for name in cases if hash_case(name) in known]
    if not found or split == "train":
        return {"trained_on": found}
    note = (
        f"{len(found)} of {len(cases)} cases have the names of cases that the network was trained on; unless these are "
        "other images of the same names, the figures are no test of new cases"
    )
    log(f"WARNING: {note}: {join_listed(found, 10, ', ')}")
    return {"trained_on": found, "note": note}
