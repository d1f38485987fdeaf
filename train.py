"""Train HeteroMedSeg: argv -> Config -> fit. `python train.py --help` lists every flag."""

import shlex
from dataclasses import replace
from typing import Any

import torch

from datasets.memory import estimate_bytes, keep_in_memory
from models.build import build_network, cases_before, check_flags, count_flops, name_weights
from models.memory import settle_memory
from recipes import RECIPES, family_of, resolve_dataset
from utils import checkpoint
from utils.command_line import apply, parse_flags
from utils.config import AUTO_BATCH, TRAIN, Config, describe, own_data, settle_preprocess
from utils.device import choose_device, choose_precision, describe_device, deterministic_algorithms, seed_everything
from utils.distributed import init_distributed, world_size
from utils.errors import UserError, run_main
from utils.files import allow_bytes
from utils.log import log, logging_to
from utils.results.summary import dataset_of
from utils.training.allocator import keep_freed_memory
from utils.training.engine import fit
from utils.training.folder import claim_folder, hold_folder
from utils.training.resume import check_places, check_settings, settings_of_run
from utils.training.schedule import rate_warnings
from utils.training.stopping import Stopped

WEIGHTS = ("pretrained", "pretrained_vssd")


def configure(argv: list[str]) -> Config:
    """The recipe that argv names, or under --resume the settings of the run, with the flags that argv gives."""
    given = parse_flags(argv, TRAIN, "Train HeteroMedSeg on a data set.")
    if given.get("resume"):
        given = as_recorded(resolve_dataset(given, guess=False))
        before, source = settings_of_run(given)
        cfg = apply(before, given)
        check_settings(before, cfg, source)
        return check_places(cfg, given, source)
    given = resolve_dataset({"dataset": "phantom"} | given, guess=True)
    # length and warm-up of the recipe are those of its own schedule
    own = {"schedule_epochs": 0} if "schedule" in given else {}
    if given.get("schedule", "cosine") != "cosine":
        own["warmup_epochs"] = 0.0
    cfg = settle_preprocess(own_data(apply(RECIPES[given["recipe"]], own | given)))
    if given.get("warmup_epochs") and cfg.schedule != "cosine":
        raise UserError(f"--warmup_epochs: --schedule {cfg.schedule} has no warm-up; expected --schedule cosine")
    check_flags(cfg, given)
    return family_of(cfg).settle(cfg, given)


def as_recorded(given: dict[str, Any]) -> dict[str, Any]:
    """The flags of --resume in the words of the run: without `--batch_size auto`, files of weights by their paths."""
    files = {name: str(checkpoint.locate(given[name]) or given[name]) for name in WEIGHTS if name in given}
    return {name: value for name, value in (given | files).items() if (name, value) != ("batch_size", AUTO_BATCH)}


def train(cfg: Config) -> None:
    """One run: check, say what will happen, fit. Nothing is written before the data has been checked."""
    allow_bytes(cfg.max_image_bytes)
    device = choose_device(cfg.device)
    init_distributed(device)
    if AUTO_BATCH < cfg.batch_size < world_size():
        raise UserError(f"--batch_size {cfg.batch_size}: each of the {world_size()} processes needs at least one image")
    kept = device.type == "cpu" and keep_freed_memory()
    out = claim_folder(cfg)
    precision = choose_precision(cfg.precision, device)
    cfg = replace(cfg, precision=precision)  # `auto` is measured: --resume goes on in what was found
    task = family_of(cfg).build_task(cfg)
    cfg, notes = settle_memory(cfg, device, precision, task.loss, estimate_bytes(task.train_set))
    share = cfg.batch_size // world_size()  # at least 1, as checked above
    validate = task.validate and replace(task.validate, batch_size=share)
    task = replace(task, train_set=keep_in_memory(task.train_set, cfg.cache), validate=validate)
    seed_everything(cfg.seed)
    model, more = build_network(cfg, device)
    task = replace(task, cases={**task.cases, **cases_before(cfg)})
    cfg = name_weights(cfg)
    with hold_folder(cfg), logging_to(out / "log.txt"):
        log(f"HeteroMedSeg, training on {dataset_of(cfg)}, recipe {task.name}\n{describe(cfg, TRAIN)}")
        memory = ", freed memory kept for reuse" if kept else ""
        log(f"device {describe_device(device)}, precision {precision}{memory}")
        for line in (*notes, *more, *task.found, f"split: {task.split}", f"results in {out}"):
            log(line)
        for line in (f"{count_flops(model, cfg, device) / 1e9:.2f} GFLOP an image", *rate_warnings(cfg)):
            log(line)
        best = fit(model, task, cfg, device, precision)
        if device.type == "cuda":
            log(f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
        log(f"done; test it with: python test.py --checkpoint {shlex.quote(str(best))}")


def main(argv: list[str]) -> None:
    cfg = configure(argv)
    train_folds = family_of(cfg).train_folds
    if train_folds is None and (cfg.folds or cfg.fold != "0"):
        flag = "--folds" if cfg.fold == "0" else f"--fold {cfg.fold}"
        raise UserError(f"{flag}: recipe {cfg.recipe} has no folds; use --val_cases")
    try:
        with deterministic_algorithms(cfg.deterministic):
            if cfg.fold == "all":
                train_folds(cfg, train)
            else:
                train(cfg)
    except Stopped as stop:
        folds = " --fold all" if cfg.fold == "all" else ""
        log(f"{stop}; go on with: python train.py --resume --output_dir {shlex.quote(cfg.output_dir)}{folds}")


if __name__ == "__main__":
    run_main(main)
