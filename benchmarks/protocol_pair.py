"""What test.py measured for one checkpoint under both protocols: two folders of results side by side."""

from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.results.page.words import data_name
from utils.results.reading import Result, find_result, read_result
from utils.scoring.protocols import PROTOCOLS

# Fields of summary.json that two results of one prediction share, and how the refusal calls them
MUST_AGREE = {
    "recipe": "recipe",
    "dataset": "data set",
    "split": "split",
    "img_size": "input size",
    "ssd": "SSD form",
    "precision": "precision",
    "tta": "test-time augmentation",
    "tta_scales": "scales of test-time augmentation",
}
COUNTS = ("found", "missed", "false_positive", "absent")


def read_pair(folders: list[str]) -> tuple[Result, Result]:
    """Results (legacy, standard) of one checkpoint on the same cases, in whichever order they are given.

    raises: UserError for other protocols, checkpoints, settings, classes, cases or ground truth
    """
    results = [read_result(find_result(folder)) for folder in folders]
    found = {result.summary["protocol"]: result for result in results}
    if set(found) != set(PROTOCOLS):
        each = ", ".join(f"{result.folder}: {result.summary['protocol']}" for result in results)
        raise UserError(f"--run: expected one result of each protocol, {' and '.join(PROTOCOLS)}; found {each}")
    legacy, standard = found["legacy"], found["standard"]
    pairs = {"checkpoint": (legacy.hashes, standard.hashes)}
    pairs |= {words: (_setting(legacy, field), _setting(standard, field)) for field, words in MUST_AGREE.items()}
    pairs |= {"classes": (legacy.classes, standard.classes), "cases": (legacy.cases, standard.cases)}
    pairs["ground truth (classes that a case has)"] = _labelled(legacy), _labelled(standard)
    for words, (mine, theirs) in pairs.items():
        if mine != theirs:
            raise UserError(
                f"--run: different {words}: {_brief(mine, theirs)} in {legacy.folder}, {_brief(theirs, mine)} in "
                f"{standard.folder}; test one checkpoint on one data set with --protocol legacy and standard"
            )
    return legacy, standard


def _setting(result: Result, field: str) -> Any:
    return data_name(result.summary) if field == "dataset" else result.summary.get(field)


def _labelled(result: Result) -> list[tuple[str, str]]:
    return sorted((str(r["case"]), str(r["class"])) for r in result.rows if r["outcome"] in ("found", "missed"))


def _brief(mine: Any, theirs: Any) -> str:
    """A value as text; of long lists the first three that the other has not."""
    if not isinstance(mine, list) or max(len(mine), len(theirs)) < 3:
        return str(mine)
    only = [str(one) for one in mine if one not in theirs]
    return (", ".join(only[:3]) or "none besides") + (", ..." if len(only) > 3 else "")


def side_by_side(legacy: Result, standard: Result) -> dict[str, Any]:
    """Means and intervals of both, class by class and over classes; nothing of the machine's folders."""
    summary = standard.summary
    both = {"legacy": legacy.summary, "standard": summary}
    return {
        "dataset": data_name(summary),
        "checkpoints": [_origin(one) for one in summary["checkpoints"]],
        **{field: summary.get(field) for field in MUST_AGREE if field != "dataset"},
        "num_cases": summary["num_cases"],
        "interval": summary["interval"],
        "classes": {name: {p: _line(one["classes"][name]) for p, one in both.items()} for name in summary["classes"]},
        "overall": {p: _line(one["overall"]) for p, one in both.items()},
    }


def _origin(checkpoint: dict[str, Any]) -> dict[str, Any]:
    kept = {name: checkpoint.get(name) for name in ("sha256", "epoch", "selection", "seed")}
    return {"file": Path(str(checkpoint["file"])).name} | kept


def _line(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {name: {k: f[k] for k in ("mean", "ci95", "left_out")} for name, f in entry["metrics"].items()}
    return {name: entry[name] for name in COUNTS} | kept
