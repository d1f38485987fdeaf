"""`--resume`: what a run may change when it goes on, and putting it where epoch_last.pth was written."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from utils import checkpoint
from utils.checkpoint_content import check_fields, compare
from utils.config import FIELDS, Config, from_dict
from utils.errors import UserError
from utils.inherited import AGREE, APPLY, KEEP, ON_RESUME
from utils.log import log
from utils.training.folder import LAST, claim_folder
from utils.training.run import Run
from utils.training.task import Task


def read_config(state: dict[str, Any], source: str, resuming: bool = False) -> Config:
    """The config of a checkpoint that training wrote, once every field of the file was checked.

    raises: UserError with the file and the field
    """
    check_fields(state, source, resuming)
    cfg = from_dict(state["config"], source)
    wanted = max(cfg.num_classes - 1, 1)
    for name, names in (("class_names in its config", cfg.class_names), ("class_names", state["class_names"])):
        if names is not None and len(names) != wanted:
            raise UserError(f"{source}: {len(names)} {name}; expected {wanted} for {cfg.num_classes} classes")
    return cfg


def settings_of_run(given: Mapping[str, Any]) -> tuple[Config, str]:
    """The settings of the run in --output_dir, to go on with, and the file that they are from.

    Under --fold all they are those of its first fold.
    raises: UserError where there is no run
    """
    out = Path(given.get("output_dir", Config.output_dir))
    folds = sorted(out.glob(f"fold_*/{LAST}"))
    if given.get("fold") == "all":
        if not folds:
            raise UserError(f"--resume: no {LAST} in any {out}/fold_*; leave --resume out to start there")
        path = folds[0]
    elif folds and not (out / LAST).is_file():
        raise UserError(f"--resume: {out} holds the folds of a cross-validation; give --fold all, too")
    else:
        path = claim_folder(Config(output_dir=str(out), resume=True)) / LAST
    before = read_config(checkpoint.read(path), str(path), resuming=True)
    fold = "all" if given.get("fold") == "all" else before.fold
    return replace(before, output_dir=str(out), resume=True, force=False, fold=fold), str(path)


def check_places(cfg: Config, given: Mapping[str, Any], source: str) -> Config:
    """`cfg` itself. raises: UserError for data that only the checkpoint `source` names and that is not there"""
    for name in ("root_path", "list_dir", "csvfile"):
        place = getattr(cfg, name)
        if place and name not in given and not Path(place).exists():
            kind = "file" if name == "csvfile" else "folder"
            raise UserError(
                f"{name} {place}: no such {kind}; this path is that of the training, from {source}; "
                f"give the present one with --{name}"
            )
    return cfg


def changed_settings(before: Config, now: Config, kind: str) -> list[str]:
    """The fields of one kind of `ON_RESUME` that differ, as `name before -> now`."""
    names = [name for name in FIELDS if ON_RESUME[name] == kind]
    pairs = ((name, getattr(before, name), getattr(now, name)) for name in names)
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


def check_settings(before: Config, now: Config, source: str) -> None:
    """raises: UserError where the run in the file `source` had other settings than `now`, and must keep them"""
    changed = changed_settings(before, now, AGREE)
    # the weights come from the file, so other ones cannot be asked for; auto asks for nothing
    changed += [change for change in changed_settings(before, now, KEEP) if not change.endswith("-> auto")]
    if changed:
        raise UserError(
            f"--resume: {source} was trained with other settings: {'; '.join(changed)}; "
            "keep those of the run (the first), or give a new --output_dir"
        )


def check_same_run(state: dict[str, Any], cfg: Config, split: str, split_sha256: str, source: str) -> Config:
    """The config that the checkpoint `state` of the file `source` was written with, if `cfg` may go on from it.

    split, split_sha256: as in `Task`
    raises: UserError for another kind of file, for settings that must agree and do not, and for other cases
    """
    if state.get("format") != "heteromedseg" or "optimizer" not in state:
        raise UserError(f"{source}: not an epoch_last.pth of a training run; --resume needs one")
    before = read_config(state, source, resuming=True)
    check_settings(before, cfg, source)
    if state.get("split_sha256", split_sha256) != split_sha256:
        raise UserError(
            f"--resume: {source} was trained on other cases ({state['split']}) than are found now ({split}); "
            "give the same data and split, or a new --output_dir"
        )
    return before


def restore(run: Run, state: dict[str, Any], cfg: Config, task: Task, source: str) -> Config:
    """Put `run` where the checkpoint `state` was written; the config with which it goes on.

    raises: UserError as `check_same_run`, and for weights that are not those of the network
    """
    before = check_same_run(state, cfg, task.split, task.split_sha256, source)
    _check_like(run.model.state_dict(), state["model"], "model", source)
    run.model.load_state_dict(state["model"])
    restore_optimizer(run, state["optimizer"], source)
    if run.scaler.is_enabled() and state["scaler"]:  # a run in fp16 that went on in fp16
        if missing := sorted(run.scaler.state_dict().keys() - state["scaler"].keys()):
            raise UserError(f"{source}: scaler lacks {', '.join(missing)}; resume with the version that wrote it")
        run.scaler.load_state_dict(state["scaler"])
    if run.ema:
        _check_like(run.ema.state_dict(), state.get("ema") or {}, "ema", source)
        run.ema.load_state_dict(state["ema"])
    run.epoch, run.iteration, run.best, run.saved = state["epoch"], state["iteration"], state["best"], True
    run.history.extend(state["history"])
    place = f"after epoch {run.epoch}"
    if position := state.get("position"):
        run.batch = position["batch"]
        run.loss_sum += position["loss"].to(run.device)
        place = f"in epoch {run.epoch + 1}, after batch {run.batch}"
    log(f"resumed from {source} {place}")
    for change in changed_settings(before, cfg, APPLY):
        log(f"changed on --resume: {change}")
    if run.epoch >= cfg.epochs:
        log(f"warning: {run.epoch} epochs are trained already, --epochs {cfg.epochs} asks for no more")
    return replace(cfg, **{name: getattr(before, name) for name, kind in ON_RESUME.items() if kind == KEEP})


def _check_like(own: Mapping[str, Any], saved: Mapping[str, Any], field: str, source: str) -> None:
    if problems := compare(saved, {name: tuple(value.shape) for name, value in own.items()}):
        raise UserError(f"{source}: {field} is not of this run's network:\n{problems}\n  resume with what wrote it")


def restore_optimizer(run: Run, saved: dict[str, Any], source: str) -> None:
    """Load the moments of every parameter; the settings stay those that `run` was started with.

    raises: UserError where the parameters are grouped differently, and for moments that are not of their shapes
    """
    settings = run.optimizer.state_dict()["param_groups"]
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in settings]:
        raise UserError(
            f"{source}: its optimizer has other groups of parameters; resume with the version that wrote it"
        )
    moments = {f"{number}.{name}": value for number, part in saved["state"].items() for name, value in part.items()}
    expected = {}
    for number, parameter in enumerate(chain.from_iterable(group["params"] for group in run.optimizer.param_groups)):
        if number in saved["state"]:
            expected |= {f"{number}.exp_avg": parameter, f"{number}.exp_avg_sq": parameter}
            expected |= {f"{number}.step": torch.zeros(())}
    _check_like(expected, moments, "optimizer", source)
    run.optimizer.load_state_dict({"state": saved["state"], "param_groups": settings})
