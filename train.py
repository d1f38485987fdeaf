"""Train HeteroMedSeg: argv -> Config -> fit. `python train.py --help` lists every flag."""

from dataclasses import replace

import isic_polyp_rectal.task as pictures
import synapse_train_test.task as volumes
from datasets.memory import estimate_bytes, keep_in_memory
from isic_polyp_rectal.cross_validation import train_folds
from models.build import build_network, name_weights
from models.memory import settle_memory
from utils.command_line import apply, parse_flags, resolve_dataset
from utils.config import TRAIN, Config, describe
from utils.device import choose_device, choose_precision, describe_device, seed_everything
from utils.distributed import init_distributed
from utils.errors import run_main
from utils.log import log, logging_to
from utils.training.allocator import keep_freed_memory
from utils.training.engine import fit
from utils.training.run import LAST, claim_folder, open_folder

RECIPES = volumes.RECIPES | pictures.RECIPES


def configure(argv: list[str]) -> Config:
    """The recipe that argv names, with the flags it gives."""
    given = parse_flags(argv, TRAIN, "Train HeteroMedSeg on a data set.")
    recipe, folder = resolve_dataset(given.get("dataset", "phantom"), given.get("recipe"), RECIPES)
    given |= {"dataset": recipe if folder is None else folder, "recipe": recipe}
    if folder is not None:
        given.setdefault("root_path", folder)
    return apply(RECIPES[recipe], given)


def train(cfg: Config) -> None:
    """One run: check, say what will happen, fit. Nothing is written before the data has been checked."""
    device = choose_device(cfg.device)
    init_distributed(device)
    kept = device.type == "cpu" and keep_freed_memory()
    out = claim_folder(cfg)
    precision = choose_precision(cfg.precision, device)
    task = (volumes if cfg.recipe in volumes.RECIPES else pictures).build_task(cfg)
    cfg, notes = settle_memory(cfg, device, precision, task.loss, estimate_bytes(task.train_set), out / LAST)
    validate = task.validate and replace(task.validate, batch_size=cfg.batch_size)
    task = replace(task, train_set=keep_in_memory(task.train_set, cfg.cache), validate=validate)
    seed_everything(cfg.seed)
    model, more = build_network(cfg, device)
    cfg = name_weights(cfg)
    open_folder(cfg, out)
    with logging_to(out / "log.txt"):
        log(f"HeteroMedSeg, training on {task.name}\n{describe(cfg, TRAIN)}")
        memory = ", freed memory kept for reuse" if kept else ""
        log(f"device {describe_device(device)}, precision {precision}{memory}")
        for line in (*notes, *more, *task.found, f"split: {task.split}", f"results in {out.resolve()}"):
            log(line)
        best = fit(model, task, cfg, device, precision)
        log(f"done; test it with: python test.py --checkpoint {best}")


def main(argv: list[str]) -> None:
    cfg = configure(argv)
    if cfg.fold == "all":
        train_folds(cfg, train)
    else:
        train(cfg)


if __name__ == "__main__":
    run_main(main)
