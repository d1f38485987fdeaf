"""`--fold all`: train each fold in OUT/fold_k, then score every training image by the fold that left it out.

OUT/out_of_fold/ holds the joined results. OUT/best_fold.json names the fold that did best on its validation part;
OUT/best_fold.pth holds its weights. `--fold all --resume` trains the unfinished folds and summarises. A fold that was
trained with `--fold k --output_dir OUT/fold_k` counts as trained.
"""

import json
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isic_polyp_rectal.evaluation import evaluate
from isic_polyp_rectal.task import RECIPES, fold_parts, hash_pairs, num_folds, open_split, split_in_words
from models.build import load_network
from utils import checkpoint
from utils.config import AUTO_BATCH, Config
from utils.device import choose_device, choose_precision
from utils.distributed import barrier, init_distributed, is_main
from utils.errors import UserError, counted
from utils.files import write_atomically
from utils.inference.forward import forward_fn
from utils.log import log, log_lines
from utils.results.page.build import PAGE, write_report
from utils.results.page.frames import BUDGET, Album
from utils.results.summary import CASES, SUMMARY, describe_result, names_of, summarise
from utils.training.folder import BEST, LAST, claim_folder
from utils.training.resume import check_same_run

RESULTS, BEST_FOLD, BEST_WEIGHTS = "out_of_fold", "best_fold.json", "best_fold.pth"
OPTIMISTIC = (
    "each fold's checkpoint was chosen by the images that it is scored on here, so these figures are optimistic; "
    "train with --select last for figures without that choice"
)


def train_folds(cfg: Config, train: Callable[[Config], None]) -> None:
    """Call `train` for every fold, one after the other; under --resume only for unfinished folds. Then summarise.

    raises: UserError, before anything is trained, for data without folds and folders that cannot be used
    """
    init_distributed(choose_device(cfg.device))
    if cfg.batch_size == AUTO_BATCH:
        raise UserError("--batch_size auto: may differ from fold to fold under --fold all; give a number")
    out = claim_folder(replace(cfg, resume=False, force=True))  # may hold anything, but must not be a file
    folds = [replace(cfg, fold=str(k), output_dir=str(out / f"fold_{k}")) for k in range(num_folds(cfg))]
    if cfg.resume and not any((Path(fold.output_dir) / LAST).is_file() for fold in folds):
        raise UserError(f"--resume: no {LAST} in any {out}/fold_*; leave --resume out to start there")
    plans = [plan(fold) for fold in folds]
    if is_main() and any(plans):
        for path in (*(out / RESULTS / name for name in (CASES, SUMMARY, PAGE)), out / BEST_FOLD, out / BEST_WEIGHTS):
            path.unlink(missing_ok=True)
    for fold, planned in zip(folds, plans):
        if planned is None:
            log(f"fold {fold.fold} of {len(folds)}: finished before, {fold.output_dir} is kept")
        else:
            log(f"fold {fold.fold} of {len(folds)}")
            train(planned)
    barrier()  # until rank 0 has written the last checkpoint
    summarise_folds(cfg, folds)


def plan(cfg: Config) -> Config | None:
    """The config to train the one fold of `cfg` with, from the start or from its last epoch; None if it is finished.

    raises: UserError for a folder that holds a run without --resume, a run with other settings or other cases, or only
        the weights of one
    """
    out = Path(cfg.output_dir)
    if not cfg.resume:
        claim_folder(cfg)
        return cfg
    if not (out / LAST).is_file():
        if (out / BEST).is_file():
            raise UserError(
                f"--resume: {out} holds {BEST}, but no {LAST} that tells whether its training was finished; "
                f"put {LAST} back, or move {out} away to train this fold again"
            )
        # never begun, or stopped within its first epoch
        return replace(cfg, resume=False, force=True)
    _, split = open_split(cfg)
    state, parts = checkpoint.read(out / LAST), fold_parts(cfg, split)
    check_same_run(state, cfg, split_in_words(cfg, split), hash_pairs(*parts), str(out / LAST))
    return None if state["epoch"] >= cfg.epochs and (out / BEST).is_file() else cfg


def summarise_folds(cfg: Config, folds: Sequence[Config]) -> None:
    """Score each fold's best_model.pth on its own validation part; rank 0 writes and prints the joined results."""
    out = Path(cfg.output_dir)
    device = choose_device(cfg.device)
    precision = choose_precision(Config.precision, device, evaluating=True)  # as test.py, whatever trained
    rows, origins, parts, frames = [], [], [], []
    for fold in folds:
        loaded = load_network(Path(fold.output_dir) / BEST, RECIPES)
        forward = forward_fn([loaded.model], device, precision)
        album = Album(budget=BUDGET // len(folds))
        part = replace(fold, split="val", force=True)  # the folder may hold the joined results of an earlier call
        own, words = evaluate(part, forward, device, loaded.class_names, out / RESULTS, album)
        figures = summarise(own, describe_result(fold, precision, [loaded.origin], words))["overall"]["metrics"]
        means = {name: figure["mean"] for name, figure in figures.items()}
        source = {"checkpoint": loaded.origin["file"], "sha256": loaded.origin["sha256"]}
        parts.append({"fold": int(fold.fold), **source, "means": means, "cases": names_of(own, "case")})
        rows += own
        frames += album.cases
        origins.append(loaded.origin)
    if not is_main():
        return
    _, split = open_split(cfg)
    words = f"out of fold: {len(folds)} folds of the training part ({split.description})"
    head = describe_result(cfg, precision, origins, words)
    if any(origin["selection"] in ("validation", "test") for origin in origins):
        head["note"] = OPTIMISTIC
    files = [part["checkpoint"] for part in parts]
    head |= {"over_folds": over_folds(parts), "folds": parts}
    summary = write_report(out / RESULTS, rows, head, frames, map(Path, files))
    log_lines(fold_table(summary))
    if "note" in head:
        log(f"note: {OPTIMISTIC}")
    best = write_best_fold(out, parts)
    log(f"results in {(out / RESULTS).resolve()}")
    weights = shlex.quote(str(out / BEST_WEIGHTS))
    log(f"best fold on validation: fold {best}; test it with: python test.py --checkpoint {weights}")
    log(f"all folds averaged: python test.py --checkpoint {shlex.join(files)} --output_dir {shlex.quote(str(out))}")


def over_folds(parts: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Mean and SD (divisor: folds - 1) of each metric over the folds' means; folds without a figure are left out."""
    found = {}
    for name in parts[0]["means"]:
        values = [part["means"][name] for part in parts if part["means"].get(name) is not None]
        sd = statistics.stdev(values) if len(values) > 1 else None
        found[name] = {"mean": statistics.fmean(values) if values else None, "sd": sd}
    return found


def fold_table(summary: dict[str, Any]) -> str:
    """A line for each fold and one for their mean ± SD: Dice and IoU in percent."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    lines = []
    for part in summary["folds"]:
        dice, iou = (percent(part["means"][name]) for name in ("dice", "iou"))
        lines.append(f"fold {part['fold']}: {counted(len(part['cases']), 'image')}, dice {dice}, iou {iou}")
    spread = summary["over_folds"]
    dice, iou = (f"{percent(spread[name]['mean'])} ± {percent(spread[name]['sd'])}" for name in ("dice", "iou"))
    return "\n".join([*lines, f"mean ± SD over folds: dice {dice}, iou {iou} %"])


def write_best_fold(out: Path, parts: Sequence[dict[str, Any]]) -> int:
    """Copy the weights of the fold with the highest mean Dice on its own validation part and return its number.

    The copy, and so every result made with it, says how it was chosen. Of equal folds the first is taken.
    """
    best = max(parts, key=lambda part: -1.0 if part["means"]["dice"] is None else part["means"]["dice"])
    state = checkpoint.read(best["checkpoint"])
    rule = f"{state['selection']}; best of {len(parts)} folds, each on its own validation part"
    checkpoint.save(out / BEST_WEIGHTS, state | {"selection": rule})
    found = {
        "fold": best["fold"],
        "checkpoint": best["checkpoint"],
        "weights": str(out / BEST_WEIGHTS),
        "selection": rule,
        "mean_dice": {str(part["fold"]): part["means"]["dice"] for part in parts},
        "note": "the folds were scored on different images: the best may be the one with the easiest; its Dice here "
        "is no estimate for new images, test it on the test part",
    }
    write_atomically(out / BEST_FOLD, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return best["fold"]
