"""Train HeteroMedSeg: argv -> Config -> fit. `python train.py --help` lists every flag."""

import isic_polyp_rectal.task as pictures
import synapse_train_test.task as volumes
from isic_polyp_rectal.cross_validation import train_folds
from models.batch_size import settle_batch
from models.build import build_network, name_weights
from utils import runtime
from utils.allocator import keep_freed_memory
from utils.command_line import apply, parse_flags, resolve_dataset
from utils.config import TRAIN, Config, describe
from utils.engine import fit
from utils.losses import loss_for
from utils.run import LAST, claim_folder, open_folder

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
    device = runtime.choose_device(cfg.device)
    runtime.init_distributed(device)
    kept = device.type == "cpu" and keep_freed_memory()
    out = claim_folder(cfg)
    precision = runtime.choose_precision(cfg.precision, device)
    cfg, notes = settle_batch(cfg, device, precision, loss_for(cfg.loss, cfg.num_classes), out / LAST)
    task = (volumes if cfg.recipe in volumes.RECIPES else pictures).build_task(cfg)
    runtime.seed_everything(cfg.seed)
    model, more = build_network(cfg, device)
    cfg = name_weights(cfg)
    open_folder(cfg, out)
    with runtime.logging_to(out / "log.txt"):
        runtime.log(f"HeteroMedSeg, training on {task.name}\n{describe(cfg, TRAIN)}")
        memory = ", freed memory kept for reuse" if kept else ""
        runtime.log(f"device {runtime.describe_device(device)}, precision {precision}{memory}")
        for line in (*notes, *more, *task.found, f"split: {task.split}", f"results in {out.resolve()}"):
            runtime.log(line)
        best = fit(model, task, cfg, device, precision)
        runtime.log(f"done; test it with: python test.py --checkpoint {best}")


def main(argv: list[str]) -> None:
    cfg = configure(argv)
    if cfg.fold == "all":
        train_folds(cfg, train)
    else:
        train(cfg)


if __name__ == "__main__":
    runtime.run_main(main)
