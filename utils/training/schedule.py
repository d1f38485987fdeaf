"""The learning rate of every update, a pure function so that resuming needs no state; and which weights are kept."""

import math

from utils.config import Config
from utils.errors import UserError
from utils.training.task import Task

RULES = {
    "last": "the last epoch",
    "cycle_end": "the end of the last completed warm-restart cycle (the rate is lowest there)",
    "validation": "the best mean Dice on the validation part",
    "test": "the best mean Dice on the TEST part: selection on the test set, results are optimistic",
}


def learning_rate(cfg: Config, iteration: int, iterations_per_epoch: int) -> float:
    """Rate of update number `iteration`, counted from 0.

    warm_restarts: cosine from lr to min_lr over cycles of restart_iterations, then twice, four times as many
        (SGDR, Loshchilov & Hutter 2017); the published Synapse recipe counts the cycles in updates
    cosine_epochs: cosine over schedule_epochs, constant within an epoch; the published binary recipes
    cosine: linear warm-up, then cosine to min_lr, update by update
    """
    if cfg.schedule == "warm_restarts":
        start, length = cycle_at(cfg, iteration)
        return _cosine(cfg, (iteration - start) / length)
    total_epochs = cfg.schedule_epochs or cfg.epochs
    epoch = iteration / iterations_per_epoch
    if cfg.schedule == "cosine_epochs":
        return _cosine(cfg, min(math.floor(epoch) / total_epochs, 1.0))
    if epoch < cfg.warmup_epochs:
        return cfg.lr * (iteration + 1) / (cfg.warmup_epochs * iterations_per_epoch + 1)
    return _cosine(cfg, min((epoch - cfg.warmup_epochs) / max(total_epochs - cfg.warmup_epochs, 1e-9), 1.0))


def rate_warnings(cfg: Config) -> list[str]:
    """Lines about a learning rate that stays 0, or that has hardly fallen when training ends."""
    if cfg.lr == 0:
        return ["warning: --lr 0: the weights will not change"]
    if cfg.schedule == "warm_restarts" or cfg.schedule_epochs <= 2 * cfg.epochs:
        return []
    return [
        f"warning: the learning rate falls over {cfg.schedule_epochs} epochs, and training ends after {cfg.epochs}; "
        "with --schedule_epochs 0 it falls over these"
    ]


def cycle_at(cfg: Config, iteration: int) -> tuple[int, int]:
    """(first update, length) of the warm-restart cycle that update `iteration` lies in."""
    start, length = 0, cfg.restart_iterations
    while iteration >= start + length:
        start, length = start + length, length * 2
    return start, length


def ends_cycle(cfg: Config, iteration: int) -> bool:
    """Whether update `iteration` is the last of a warm-restart cycle, where the rate is lowest."""
    return cfg.schedule == "warm_restarts" and cycle_at(cfg, iteration + 1)[0] == iteration + 1


def _cosine(cfg: Config, progress: float) -> float:
    return cfg.min_lr + (cfg.lr - cfg.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def selection_rule(cfg: Config, task: Task, updates: int) -> str:
    """The rule behind `--select` for this task; auto is validation if there is a validation part, else cycle_end.

    raises: UserError for a rule that cannot be followed
    """
    rule, part = cfg.select, task.validated_on if task.validate else None
    reaches_end = cfg.schedule == "warm_restarts" and updates * cfg.epochs >= cfg.restart_iterations
    if rule == "auto":
        rule = "validation" if part == "validation" else "cycle_end" if reaches_end else "last"
    if rule == "cycle_end" and not reaches_end:
        raise UserError(
            f"--select cycle_end: {updates * cfg.epochs} updates under --schedule {cfg.schedule} complete no "
            "warm-restart cycle; use --select last, or train longer"
        )
    if rule in ("validation", "test") and part != rule:
        raise UserError(f"--select {rule}: this task has no {rule} part; use --val_cases, --fold, or --select last")
    return rule
