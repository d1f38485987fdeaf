"""The training loop: fit, train_one_epoch, train_step. It knows no data set.

The random numbers of a batch depend on the seed, the number of the batch and an image's place in the
global batch alone. So a resumed run, and a run on any number of ranks, equals that of one process.
"""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils import checkpoint
from utils.config import Config
from utils.device import autocast
from utils.distributed import is_main, world_size
from utils.errors import UserError
from utils.log import log
from utils.preprocess.intensities import as_fraction, normalise
from utils.training.batches import EpochBatches, train_loader
from utils.training.folder import BEST, LAST
from utils.training.history import History
from utils.training.losses import mean_over_stages
from utils.training.resume import restore
from utils.training.run import Run, check_finite, save_best, save_last, start, update_average, write_config
from utils.training.schedule import RULES, ends_cycle, learning_rate, selection_rule
from utils.training.stopping import Stopped, StopRequest
from utils.training.task import Task
from utils.training.validation import Validation

# Between the seeds of a batch, for its dropped branches and for its augmentation: more than a run has batches, and
# within the 32 bits of a seed that a CPU looks at.
AUGMENTING = 2**31


def fit(model: nn.Module, task: Task, cfg: Config, device: torch.device, precision: str) -> Path:
    """Train `model` on `task` as `cfg` says, write into cfg.output_dir; return the path of best_model.pth."""
    out = Path(cfg.output_dir)
    run = start(model, cfg, device, precision)
    batches = EpochBatches(len(task.train_set), cfg.batch_size, cfg.seed, cfg.drop_last)
    if cfg.resume:
        state = checkpoint.read(out / LAST)
        cfg = restore(run, state, cfg, task, str(out / LAST))
        task = replace(task, cases=state.get("cases") or task.cases)  # with those that --init once brought
        if run.batch > len(batches):
            raise UserError(
                f"{out / LAST}: position is batch {run.batch}; expected at most the {len(batches)} of an epoch"
            )
    write_config(cfg, out)
    log(batches.describe())
    rule = selection_rule(cfg, task, updates_per_epoch(batches, cfg))
    log(f"best_model.pth: {RULES[rule]}")
    loader = train_loader(task.train_set, batches, cfg, pin=device.type == "cuda")
    history = History(out, run.history)
    with StopRequest() as stop:
        for epoch in range(run.epoch, cfg.epochs):
            batches.epoch, batches.first = epoch, run.batch
            record = train_one_epoch(run, task, cfg, loader, rule, out, stop)
            due = (epoch + 1) % cfg.eval_every == 0 or epoch + 1 == cfg.epochs
            validation = validate(run, task, cfg, out, stop) if task.validate and due else None
            run.epoch, run.batch, run.loss_sum = epoch + 1, 0, torch.zeros_like(run.loss_sum)
            history.add({"epoch": run.epoch, "iteration": run.iteration, **record}, validation)
            better = validation is not None and validation.mean_dice > run.best
            if better:
                run.best = validation.mean_dice
            final = run.epoch == cfg.epochs and (rule == "last" or run.best == -math.inf)
            if (rule in ("validation", "test") and better) or (rule != "cycle_end" and final):
                save_best(run, cfg, task, rule, out)
            save_last(run, cfg, task, out)
    if not (out / BEST).is_file():  # a resumed run that had no epoch left to train
        save_best(run, cfg, task, "last", out)
    history.close()
    return out / BEST


def stop_here(run: Run, cfg: Config, task: Task, out: Path) -> NoReturn:
    """Save the run where it is within its epoch. raises: Stopped, with that place"""
    save_last(run, cfg, task, out)
    raise Stopped(f"stopped after update {run.iteration}, in epoch {run.epoch + 1} of {cfg.epochs}, and saved")


def train_one_epoch(
    run: Run, task: Task, cfg: Config, loader: Any, rule: str, out: Path, stop: StopRequest
) -> dict[str, float]:
    """One pass over the loader from batch run.batch on; the host waits for the device every cfg.log_every updates only.

    out: {"loss": mean over batches, "lr": last, "images_per_s": of all ranks}
    raises: Stopped after an update during which any rank was asked to stop
    """
    run.network.train()
    batches: EpochBatches = loader.batch_sampler
    last, updates = len(batches) - 1, updates_per_epoch(batches, cfg)
    began, before = time.perf_counter(), sum(batches.sizes[: run.batch])
    mean = rate = 0.0
    if run.batch == len(batches):  # the run was stopped after the last batch of its epoch
        mean = check_finite(float(run.loss_sum) / len(batches), run)
    name = f"epoch {run.epoch + 1}/{cfg.epochs}"
    bar = tqdm(loader, name, disable=None if is_main() else True, leave=False, mininterval=1.0, initial=run.batch)
    for index, (images, targets) in enumerate(bar, run.batch):
        lr = learning_rate(cfg, run.iteration, updates)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        position = run.epoch * len(batches) + index
        added = min(cfg.accumulate, len(batches) - index // cfg.accumulate * cfg.accumulate)
        update = index % cfg.accumulate == added - 1
        size, offset = batches.sizes[index], batches.offset(index)
        images, targets = prepare(images, targets, task, cfg, run.device, position, size, offset)
        keep = None
        if hasattr(run.model, "draw_paths"):  # stochastic depth: one draw for the batch of all ranks
            keep = run.model.draw_paths(size, run.device)[:, offset : offset + len(images)]
        run.loss_sum += train_step(run, task, cfg, images, targets, added, update, keep)
        run.batch = index + 1
        if update:
            run.iteration += 1
            if rule == "cycle_end" and ends_cycle(cfg, run.iteration - 1):
                save_best(run, cfg, task, rule, out)
        if index % cfg.log_every == 0 or index == last:
            mean = check_finite(float(run.loss_sum) / (index + 1), run)
            rate = (sum(batches.sizes[: index + 1]) - before) / (time.perf_counter() - began)
            bar.set_postfix_str(f"loss {mean:.4f}, {rate:.1f} images/s")
        if update and stop.agreed():
            stop_here(run, cfg, task, out)
    return {"loss": mean, "lr": learning_rate(cfg, run.iteration - 1, updates), "images_per_s": rate}


def prepare(
    images: Tensor,
    targets: Tensor,
    task: Task,
    cfg: Config,
    device: torch.device,
    position: int,
    total: int,
    offset: int,
) -> tuple[Tensor, Tensor]:
    """Move a batch to the device, scale integers to [0, 1], augment and normalise it there.

    Seeds PyTorch's generator, which stochastic depth uses, and another one for augmentation with the number `position`
    of the global batch, counted from the start of the run. The batch has `total` images, of which this process holds
    those from `offset` on.
    """
    images, targets = images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
    images = as_fraction(images)
    seed = (cfg.seed * 1_000_003 + position) % 2**63
    torch.manual_seed(seed)
    if cfg.augment:
        generator = torch.Generator(device).manual_seed(seed + AUGMENTING)
        images, targets = task.augment(images, targets, generator, total, offset)
    return normalise(images, task.preprocess), targets


def train_step(
    run: Run,
    task: Task,
    cfg: Config,
    images: Tensor,
    targets: Tensor,
    added: int,
    update: bool,
    keep: Tensor | None = None,
) -> Tensor:
    """Forward and backward of one of `added` batches, then, if `update`, a step along the mean of their gradients.

    keep: this process's part of what the network's `draw_paths` drew
    out: the loss, a scalar that the device may still be computing
    """
    if cfg.graphs:
        torch.compiler.cudagraph_mark_step_begin()  # what the step before returned may be overwritten
    with autocast(run.device, run.precision):
        logits = run.network(images) if keep is None else run.network(images, keep)
    loss = mean_over_stages(task.loss, logits, targets)
    run.scaler.scale(loss / added).backward()
    if update:
        if cfg.clip_grad:
            run.scaler.unscale_(run.optimizer)
            nn.utils.clip_grad_norm_(run.model.parameters(), cfg.clip_grad)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        if run.ema:
            update_average(run.ema, run.model, cfg.ema)
    return loss.detach()


def validate(run: Run, task: Task, cfg: Config, out: Path, stop: StopRequest) -> Validation:
    """Score the network (or its moving average) on the task's validation part, in evaluation mode.

    raises: Stopped between two batches of a single process that is asked to stop
    """
    model = run.judged.eval()

    @torch.no_grad()
    def forward(images: Tensor) -> Tensor:
        if stop.asked and world_size() == 1:  # no consent of others is needed
            stop_here(run, cfg, task, out)
        with autocast(run.device, run.precision):
            return model(normalise(as_fraction(images.to(run.device, non_blocking=True)), task.preprocess)).float()

    return task.validate(forward, run.device)


def updates_per_epoch(batches: EpochBatches, cfg: Config) -> int:
    return math.ceil(len(batches) / cfg.accumulate)
