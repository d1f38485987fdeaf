"""`--select`: which epoch's weights become best_model.pth."""

from utils.config import Config
from utils.errors import UserError
from utils.training.task import Task

RULES = {
    "last": "the last epoch",
    "cycle_end": "the end of the last completed warm-restart cycle (the rate is lowest there)",
    "validation": "the best mean Dice on the validation part",
    "test": "the best mean Dice on the TEST part: selection on the test set, results are optimistic",
}


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
