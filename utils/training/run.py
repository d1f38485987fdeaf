"""A training run: its state, how it starts and how it is saved (`folder.py`: where, `resume.py`: how it goes on).

epoch_last.pth holds all of it; best_model.pth the weights to use and what they were chosen by.
"""

import inspect
import json
import math
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from utils import checkpoint
from utils.checkpoint_content import leaves
from utils.config import Config, to_dict
from utils.distributed import is_main, world_size
from utils.errors import UserError
from utils.files import write_atomically
from utils.training.folder import BEST, LAST
from utils.training.task import Task

NO_DECAY = ("A_log", "D", "dt_bias")


def write_config(cfg: Config, out: Path) -> None:
    """Write config.json: the settings that the run in `out` uses."""
    if is_main():
        write_atomically(out / "config.json", json.dumps(to_dict(cfg), indent=2) + "\n")


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
    loss_sum: Tensor  # of this epoch's batches so far
    epoch: int = 0  # next epoch, or the one that is going on
    batch: int = 0  # batches of it that are done
    iteration: int = 0  # updates made
    best: float = -math.inf
    saved: bool = False  # whether epoch_last.pth is there
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The network to validate and to save as best_model.pth: the moving average, where one is kept."""
        return self.ema.module if self.ema else self.model


def start(model: nn.Module, cfg: Config, device: torch.device, precision: str) -> Run:
    """A run before its first update: the model on the device and wrapped, optimizer, scaler, moving average."""
    model = model.to(device)
    mode = "reduce-overhead" if cfg.graphs else None
    network: nn.Module = torch.compile(model, dynamic=False, mode=mode) if cfg.compile else model
    if world_size() > 1:
        network = wrap_ranks(network, device)
    ema = AveragedModel(model, use_buffers=True) if cfg.ema else None
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    optimizer = kinds[cfg.optimizer](
        parameter_groups(model, cfg.weight_decay), lr=cfg.lr, fused=device.type in ("cpu", "cuda") or None
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    return Run(model, network, ema, optimizer, scaler, device, precision, torch.zeros((), device=device))


def wrap_ranks(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """`network` whose gradients are averaged over ranks; its buffers, equal on all ranks, are not sent in each step."""
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    return DistributedDataParallel(network, [device.index] if device.type == "cuda" else None, **{name: False})


@torch.no_grad()
def update_average(average: AveragedModel, model: nn.Module, decay: float) -> None:
    """Move the average towards the weights of `model`: average * decay + weight * (1 - decay); the first is a copy.

    `AveragedModel.update_parameters` would copy its counter to the GPU, for which the host waits, in every update.
    """
    tensors = zip(
        chain(average.module.parameters(), average.module.buffers()), chain(model.parameters(), model.buffers())
    )
    weights, counters = [], []
    for mean, value in tensors:
        (weights if mean.is_floating_point() else counters).append((mean, value))
    torch._foreach_lerp_(*zip(*weights), 1 - decay if average.n_averaged else 1.0)
    for mean, value in counters:
        mean.copy_(value)
    average.n_averaged += 1


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels with weight decay; vectors (norms, biases) and A_log, D, dt_bias without."""
    decay, rest = [], []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in NO_DECAY
        (rest if plain else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def save_best(run: Run, cfg: Config, task: Task, rule: str, out: Path) -> None:
    """Write best_model.pth: the judged weights and what they were chosen by."""
    _save(run, cfg, task, out / BEST, {"model": run.judged.state_dict(), "selection": rule})


def save_last(run: Run, cfg: Config, task: Task, out: Path) -> None:
    """Write epoch_last.pth: all that resuming needs, within an epoch, too."""
    state = {
        "model": run.model.state_dict(),
        "ema": run.ema.state_dict() if run.ema else None,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "best": run.best,
        "history": run.history,
        "selection": "last",
        "position": {"batch": run.batch, "loss": run.loss_sum} if run.batch else None,
    }
    _save(run, cfg, task, out / LAST, state)


def _save(run: Run, cfg: Config, task: Task, path: Path, state: dict[str, Any]) -> None:
    """Write `state` and the description of the run; rank 0 only.

    raises: UserError, on every rank and before anything is written, where a value is infinite or NaN
    """
    values = [value for _, value in leaves(state, path.name) if isinstance(value, Tensor) and value.is_floating_point()]
    finite = torch.stack([value.isfinite().all().to(run.device, non_blocking=True) for value in values]).all()
    if not finite:
        raise diverged(f"the weights, or what is kept of their gradients, became infinite or NaN for {path.name}", run)
    description = {
        "format": "heteromedseg",
        "config": to_dict(cfg),
        "class_names": list(task.class_names),
        "split": task.split,
        "split_sha256": task.split_sha256,
        "cases": dict(task.cases),
        "epoch": run.epoch,
        "iteration": run.iteration,
    }
    if is_main():
        checkpoint.save(path, description | state)
    run.saved = path.name == LAST or run.saved


def check_finite(loss: float, run: Run) -> float:
    """`loss` itself. raises: UserError when it is infinite or NaN"""
    if not math.isfinite(loss):
        raise diverged(f"the loss became {loss}", run)
    return loss


def diverged(found: str, run: Run) -> UserError:
    """The error of a run whose loss or weights are no numbers any more, with what is left and what to do."""
    kept, goes_on = "nothing was saved yet", "start again with --force"
    if run.saved:
        kept, goes_on = f"{LAST} still holds the state that was saved last", "--resume"
    return UserError(
        f"{found} in epoch {run.epoch + bool(run.batch)} (precision {run.precision}); {kept}. "
        f"Lower --lr, set --clip_grad 1, or use --precision fp32, then {goes_on}"
    )
