"""A training run: its state, how it starts, is saved and goes on.

epoch_last.pth holds all of it; best_model.pth the weights to use and what they were chosen by.
"""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils import checkpoint
from utils.config import Config, from_dict, to_dict
from utils.distributed import is_main, world_size
from utils.errors import UserError
from utils.log import log
from utils.training.task import Task

LAST, BEST = "epoch_last.pth", "best_model.pth"
NO_DECAY = ("A_log", "D", "dt_bias")


def claim_folder(cfg: Config) -> Path:
    """cfg.output_dir, if a run may be written there; nothing is created or removed yet.

    raises: UserError when it holds a run and neither --resume nor --force is given, or holds none to resume
    """
    out = Path(cfg.output_dir)
    if out.exists() and not out.is_dir():
        raise UserError(f"--output_dir {out}: is a file; expected a folder, or a name for a new one")
    if cfg.resume and not (out / LAST).is_file():
        raise UserError(f"--resume: {out / LAST} does not exist; leave --resume out to start a run there")
    held = [name for name in (LAST, BEST) if (out / name).exists()]
    if held and not cfg.resume and not cfg.force:
        raise UserError(
            f"--output_dir {out}: already holds a run ({', '.join(held)}); give --resume to go on with it, "
            "--force to replace it, or another --output_dir"
        )
    return out


def open_folder(cfg: Config, out: Path) -> None:
    """Create the run's folder and write config.json; under --force the files of the run before are removed."""
    if not is_main():
        return
    out.mkdir(parents=True, exist_ok=True)
    if cfg.force and not cfg.resume:
        for name in (LAST, BEST, "history.csv", "log.txt"):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "tensorboard", ignore_errors=True)
    (out / "config.json").write_text(json.dumps(to_dict(cfg), indent=2) + "\n", encoding="utf-8")


@dataclass
class Run:
    """Everything that changes while a run goes on."""

    model: nn.Module
    network: nn.Module  # model as called in training: wrapped for DDP, compiled
    ema: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: str
    epoch: int = 0  # next epoch
    iteration: int = 0  # updates made
    best: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The weights that validation and best_model.pth take: the average, where one is kept."""
        return self.ema.module if self.ema else self.model


def start(model: nn.Module, cfg: Config, device: torch.device, precision: str) -> Run:
    """A run at its first update: model on the device, optimizer, scaler, average, wrappers."""
    model = model.to(device)
    mode = "reduce-overhead" if cfg.graphs else None
    network: nn.Module = torch.compile(model, dynamic=False, mode=mode) if cfg.compile else model
    if world_size() > 1:
        ids = [device.index] if device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
    ema = None
    if cfg.ema:
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema), use_buffers=True)
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    optimizer = kinds[cfg.optimizer](
        parameter_groups(model, cfg.weight_decay), lr=cfg.lr, fused=device.type in ("cpu", "cuda") or None
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    return Run(model, network, ema, optimizer, scaler, device, precision)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels with weight decay; vectors (norms, biases) and A_log, D, dt_bias without."""
    decay, rest = [], []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in NO_DECAY
        (rest if plain else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def save_best(run: Run, cfg: Config, task: Task, rule: str, out: Path) -> None:
    """Write best_model.pth: the judged weights and what they were chosen by."""
    if is_main():
        checkpoint.save(
            out / BEST, describe_run(run, cfg, task) | {"model": run.judged.state_dict(), "selection": rule}
        )


def save_last(run: Run, cfg: Config, task: Task, out: Path) -> None:
    """Write epoch_last.pth: all that resuming needs."""
    if is_main():
        state = describe_run(run, cfg, task) | {
            "model": run.model.state_dict(),
            "ema": run.ema.state_dict() if run.ema else None,
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "best": run.best,
            "history": run.history,
            "selection": "last",
        }
        checkpoint.save(out / LAST, state)


def describe_run(run: Run, cfg: Config, task: Task) -> dict[str, Any]:
    return {
        "format": "heteromedseg",
        "config": to_dict(cfg),
        "class_names": list(task.class_names),
        "split": task.split,
        "split_sha256": task.split_sha256,
        "epoch": run.epoch,
        "iteration": run.iteration,
    }


MUST_AGREE = (
    "num_classes",
    "img_size",
    "ssd",
    "drop_path",
    "batch_size",
    "accumulate",
    "optimizer",
    "schedule",
    "loss",
    "seed",
    "ema",
    "fold",
)


def changed_settings(before: Config, now: Config) -> list[str]:
    """The settings that change a run's mathematics and differ, as `name before -> now`."""
    pairs = ((name, getattr(before, name), getattr(now, name)) for name in MUST_AGREE)
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


def restore(run: Run, state: dict[str, Any], cfg: Config, task: Task, source: str) -> None:
    """Put `run` where the checkpoint `state` was written.

    raises: UserError when the run was started with other settings that change its mathematics, or on other cases
    """
    if state.get("format") != "heteromedseg" or "optimizer" not in state:
        raise UserError(f"{source}: not an epoch_last.pth of a training run; --resume needs one")
    before = from_dict(state["config"], source, {cfg.recipe: cfg})
    changed = changed_settings(before, cfg)
    if changed:
        raise UserError(
            f"--resume: {source} was trained with other settings: {'; '.join(changed)}; "
            "give those, or a new --output_dir"
        )
    if state.get("split_sha256", task.split_sha256) != task.split_sha256:
        raise UserError(
            f"--resume: {source} was trained on other cases ({state['split']}) than are found now ({task.split}); "
            "give the same data and split, or a new --output_dir"
        )
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    if run.ema:
        run.ema.load_state_dict(state["ema"])
    run.epoch, run.iteration, run.best = state["epoch"], state["iteration"], state["best"]
    run.history.extend(state["history"])
    log(f"resumed from {source} after epoch {run.epoch}")
