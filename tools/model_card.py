"""Write the model card of a checkpoint: what it is, what it was made from, how well it does, what it is not for.

    python -m tools.model_card --checkpoint save_models/best_model.pth --results save_models/test_standard

Everything is read from the checkpoint and from results of test.py made with it; what they do not say is called
unknown. Results of other weights are refused: their SHA-256 must be this file's.
"""

import argparse
from pathlib import Path
from typing import Any

from models.build import Loaded, load_network
from recipes import RECIPES, family_of, find_recipe
from tools.model_card_text import card
from utils import checkpoint
from utils.errors import UserError, run_main
from utils.log import log
from utils.results.reading import Result, find_result, read_result
from utils.results.summary import write_atomically

NAME = "MODEL_CARD.md"


def main(argv: list[str]) -> None:
    given = parser().parse_args(argv)
    path = checkpoint.find(given.checkpoint)
    output = Path(given.output) if given.output else path.parent / NAME
    if output.is_dir():
        output = output / NAME
    if output.exists() and not given.force:
        raise UserError(f"--output {output}: is there already; give --force to replace it, or another name")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: no folder {output.parent}; make it first, or give another name")
    loaded = load_network(path, RECIPES, find_recipe(given.recipe))
    results = [own_result(folder, loaded) for folder in given.results]
    write_atomically(output, card(describe(path, loaded), results))
    log(f"written: {output}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.model_card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        made = f"{len(result.hashes)} checkpoints together" if len(result.hashes) > 1 else "another checkpoint"
        listed = ", ".join(f"{origin['file']} ({origin['sha256'][:12]}…)" for origin in result.summary["checkpoints"])
        raise UserError(
            f"--results {folder}: made with {made}: {listed}; expected {loaded.origin['file']} ({ours[:12]}…) alone; "
            "run test.py with that checkpoint"
        )
    return result


def describe(path: Path, loaded: Loaded) -> dict[str, Any]:
    """The facts of a card, as plain values; None where the checkpoint does not say."""
    cfg = loaded.cfg
    released = loaded.class_names is None
    state = checkpoint.read(path)
    return {
        "file": path.name,
        "sha256": loaded.origin["sha256"],
        "size": path.stat().st_size,
        "released": released,
        "recipe": cfg.recipe,
        "dataset": None if released else Path(cfg.dataset).name,
        "classes": cfg.class_names or loaded.class_names or family_of(cfg).class_names(cfg),
        "img_size": cfg.img_size,
        "outputs": cfg.num_classes,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "ssd": cfg.ssd,
        "split": None if released else loaded.origin["split"],
        "selection": loaded.origin["selection"],
        "epoch": loaded.origin["epoch"],
        "iteration": None if released else state.get("iteration"),
        "config": None if released else cfg,
    }


if __name__ == "__main__":
    run_main(main)
