"""The largest batch that fits in memory, for `--batch_size auto`."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.build import step_bytes
from models.hetero_medseg import build_model
from utils import checkpoint
from utils.config import AUTO_BATCH, Config, from_dict
from utils.device import autocast, free_memory
from utils.distributed import smallest_of_ranks, world_size
from utils.errors import UserError

SHARE = 0.9  # of the free memory: the rest is for fragments and for validation
PROBES = (2, 4)  # images
LARGEST = 1024  # images of one process

Loss = Callable[[Tensor, Tensor], Tensor]


def settle_batch(
    cfg: Config, device: torch.device, precision: str, loss: Loss, last: Path
) -> tuple[Config, tuple[str, ...]]:
    """`cfg` with a number in place of --batch_size auto, and lines that say so.

    A run that goes on from `last`, its epoch_last.pth, keeps its batch.
    """
    if cfg.batch_size != AUTO_BATCH:
        return cfg, ()
    if cfg.resume:
        before = from_dict(checkpoint.read(last)["config"], str(last), {cfg.recipe: cfg})
        return dataclasses.replace(cfg, batch_size=before.batch_size), ()
    count = fitting_batch(cfg, device, precision, loss)
    words = f"batch size {count}: what fits in memory; a recipe's learning rate was chosen for the recipe's batch size"
    return dataclasses.replace(cfg, batch_size=count), (words,)


def fitting_batch(cfg: Config, device: torch.device, precision: str, loss: Loss) -> int:
    """The largest global batch whose training step fits in the memory that is free now.

    On a GPU from two measured steps, and then tried; elsewhere from `models.build.step_bytes`. Above 8 images
    a multiple of 8 for each process.
    raises: UserError where not even one image fits
    """
    if device.type == "cuda":
        free = free_memory(device) + torch.cuda.memory_reserved(device)
        peaks = [_peak(cfg, device, precision, loss, count) for count in PROBES]
        count = _tried(cfg, device, precision, loss, largest(*peaks, SHARE * free))
    else:
        sizes = (step_bytes(dataclasses.replace(cfg, batch_size=n * world_size()), device) for n in PROBES)
        count = largest(*sizes, SHARE * free_memory(device))
    count = smallest_of_ranks(count, device)
    if count < 1:
        raise UserError(
            f"--batch_size auto: not one image of {cfg.img_size[0]}x{cfg.img_size[1]} fits in the free memory of "
            f"{device}; choose a smaller --img_size, or --recompute yes with --batch_size 1"
        )
    return count * world_size()


def largest(first: float, second: float, free: float) -> int:
    """The number of images that takes `free` bytes when PROBES images take `first` and `second`."""
    each = (second - first) / (PROBES[1] - PROBES[0])
    if not all(map(math.isfinite, (first, second))):
        return 0 if math.isinf(first) else PROBES[0]
    count = LARGEST if math.isinf(free) else int((free - first) // each) + PROBES[0]
    count = max(0, min(count, LARGEST))
    return count // 8 * 8 if count > 8 else count


def _tried(cfg: Config, device: torch.device, precision: str, loss: Loss, count: int) -> int:
    """`count`, or less where a step of that many images runs out of memory."""
    while count > 0 and math.isinf(_peak(cfg, device, precision, loss, count)):
        count = count - 8 if count > 8 else count - 1
    return count


def _peak(cfg: Config, device: torch.device, precision: str, loss: Loss, count: int) -> float:
    """Bytes that a training step of `count` random images takes at most on the GPU; infinite where it does not fit."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        model = build_model(cfg.num_classes, cfg.ssd, cfg.drop_path).to(device)
        model.recompute = cfg.recompute == "yes"
        moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]  # as Adam's
        images = torch.rand(count, 3, *cfg.img_size, device=device)
        targets = torch.zeros(count, *cfg.img_size, dtype=torch.uint8, device=device)
        with autocast(device, precision):
            logits = model(images)
        loss(logits, targets).backward()
        del moments
        return torch.cuda.max_memory_allocated(device) - before
    except torch.OutOfMemoryError:
        return math.inf
