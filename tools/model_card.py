"""Write the model card of a checkpoint: what it is, what it was made from, how well it does, what it is not for.

    python -m tools.model_card --checkpoint save_models/best_model.pth --results save_models/test_standard

Everything is read from the checkpoint and from results of test.py made with it; what they do not say is called
unknown. Results of other weights are refused: their SHA-256 must be this file's.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.build import Loaded, is_ours, lacking, load_network
from recipes import RECIPES, class_names_of, find_recipe
from tools.output import fill, parser_of
from utils import checkpoint
from utils.config import FIELDS, TRAIN
from utils.errors import UserError, run_main
from utils.files import write_atomically
from utils.log import log
from utils.results.names import fit_in_words
from utils.results.reading import Result, find_result, read_result
from utils.results.summary import dataset_of
from utils.results.table import format_table
from utils.training.engine import RULES

NAME = "MODEL_CARD.md"
# Training settings that say where a run ran and what it was called, or that stand elsewhere on the card
ELSEWHERE = (
    *("dataset", "root_path", "list_dir", "csvfile", "class_names", "num_classes", "img_size", "ssd", "recipe"),
    *("output_dir", "resume", "force", "device", "compile", "cache", "workers", "log_every", "eval_every"),
)


def main(argv: list[str]) -> None:
    given = parser().parse_args(argv)
    path = checkpoint.find(given.checkpoint)
    output = Path(given.output or path.parent)
    output = output / NAME if output.is_dir() else output
    if output.exists() and not given.force:
        raise UserError(f"--output {output}: is there already; give --force to replace it, or another name")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: no folder {output.parent}; make it first, or give another name")
    if path.suffix == ".onnx":
        raise UserError(
            f"--checkpoint {path}: an ONNX file lacks what a card says of the training; give the checkpoint that it "
            "was exported from"
        )
    loaded = load_network(path, RECIPES, find_recipe(given.recipe))
    write_atomically(output, card(path, loaded, [own_result(folder, loaded) for folder in given.results]))
    log(f"written: {output}")


def parser() -> argparse.ArgumentParser:
    parser = parser_of("model_card", __doc__)
    parser.add_argument("--checkpoint", required=True, help="the checkpoint to describe")
    parser.add_argument("--results", nargs="+", default=[], metavar="FOLDER", help="results of test.py with it")
    parser.add_argument("--recipe", help="recipe of released weights, which hold none of their own")
    parser.add_argument("--output", help=f"file to write (default: {NAME} beside the checkpoint)")
    parser.add_argument("--force", action="store_true", help="replace a card that is there")
    return parser


def own_result(folder: str, loaded: Loaded) -> Result:
    """The results in `folder`. raises: UserError unless they were made with this very checkpoint alone"""
    result = read_result(find_result(folder))
    ours = loaded.origin["sha256"]
    if result.hashes != [ours]:
        made = " and ".join(f"{origin['file']} ({origin['sha256'][:12]}…)" for origin in result.summary["checkpoints"])
        raise UserError(
            f"--results {folder}: made with {made}; expected {loaded.origin['file']} ({ours[:12]}…) alone; "
            "run test.py with that checkpoint"
        )
    return result


def card(path: Path, loaded: Loaded, results: Sequence[Result]) -> str:
    """The template `model_card.md`, filled with the facts of the checkpoint and of results made with it."""
    cfg, released = loaded.trained or loaded.cfg, loaded.class_names is None
    without = {*ELSEWHERE, *lacking(cfg)}
    names = [name for name, field in FIELDS.items() if TRAIN in field.metadata["verbs"] and name not in without]
    settings = {name: getattr(cfg, name) for name in names}
    weights = {"init", "pretrained", "pretrained_vssd"} & settings.keys()
    settings |= {name: settings[name] and Path(settings[name]).name for name in weights}
    rule, *more = (loaded.origin["selection"] or "").split(";")
    summaries = [result.summary for result in results]
    facts = {
        "path": path,
        "loaded": loaded,
        "released": released,
        "ours": is_ours(cfg),
        "fitted": fit_in_words(cfg.preprocess.fit, cfg.img_size),
        "grey": cfg.preprocess.channels == 1,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "iteration": None if released else checkpoint.read(path).get("iteration"),
        "dataset": None if released else Path(dataset_of(cfg)).name,
        "split": "" if released else loaded.origin["split"] or "",
        "classes": class_names_of(cfg, loaded.class_names),
        "selection": ";".join([RULES.get(rule, rule), *more]),
        "settings": settings,
        "results": [(one, Path(one.get("dataset") or "").name, in_fence(format_table(one))) for one in summaries],
    }
    return fill(Path(__file__).with_suffix(".md"), facts, finalize=escape) + "\n"


def in_fence(text: str) -> str:
    """A text that cannot end the block of code in which the template puts it."""
    return text.replace("```", "` ` `")


def escape(value: Any) -> Any:
    """A value as Markdown shows it literally. The template marks as safe what stands in code: it must stay as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return re.sub(r"([\\`*<\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", value)


if __name__ == "__main__":
    run_main(main)
