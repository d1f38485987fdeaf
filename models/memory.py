"""What fits in memory: batch size, recomputation of activations and cache of the data set, settled once a run."""

import math
import shutil
import tempfile
from dataclasses import replace
from functools import partial

import torch

from models.baselines import is_baseline
from models.build import make_network
from utils.config import AUTO_BATCH, Config
from utils.device import autocast, free_memory
from utils.distributed import acting_alone, local_world_size, smallest_of_ranks, world_size
from utils.errors import UserError
from utils.training.losses import Loss

SHARE = 0.9  # of the free memory goes to a training step; the rest is for fragmentation and validation
PROBES = (2, 4)  # images
LARGEST = 1024  # images per process
FAILED = -1


def settle_memory(
    cfg: Config, device: torch.device, precision: str, loss: Loss, data_bytes: int
) -> tuple[Config, tuple[str, ...]]:
    """Replace `auto` in cache, batch size and recomputation by what fits in memory; also return lines for the log.

    data_bytes: size of the decoded training set
    raises: UserError if not even one image fits
    """
    notes = []
    if is_baseline(cfg.network):
        cfg = replace(cfg, recompute="no")
    if cfg.cache == "auto":
        cfg = replace(cfg, cache=choose_cache(data_bytes))
    free = free_memory(device)
    if cfg.cache == "yes" and device.type != "cuda":
        free -= data_bytes
    if cfg.batch_size == AUTO_BATCH:
        cfg = fit_batch(cfg, device, precision, loss, free)
        notes.append(f"batch size {cfg.batch_size}: the largest that fits; the learning rate is not adapted to it")
    if cfg.recompute == "auto":
        short = step_bytes(cfg, precision, cfg.batch_size / world_size()) > free
        cfg = replace(cfg, recompute="yes" if short else "no")
    if cfg.recompute == "yes":
        notes.append("activations are computed again in the backward pass, to save memory")
    return cfg, tuple(notes)


def choose_cache(data_bytes: int) -> str:
    """`yes` if the decoded data fit in half of the free memory, else `disk` if copies for all processes fit in half of
    the free disk space, else `no`.
    """
    if data_bytes <= free_memory(torch.device("cpu")) / 2:
        return "yes"
    free = shutil.disk_usage(tempfile.gettempdir()).free
    return "disk" if data_bytes * local_world_size() <= free / 2 else "no"


def step_bytes(cfg: Config, precision: str, images: float) -> float:
    """Estimated bytes of one training step of `images` images; assumes no recomputation unless cfg.recompute is yes.

    Bytes per pixel, plus those of weights, gradients, Adam's moments and libraries; measured on a CPU.
    """
    pixels = images * math.prod(cfg.img_size)
    if cfg.recompute == "yes" and cfg.decoder == "bra":  # blocks of --decoder conv are not computed again
        return pixels * (1.8e3 if precision == "fp32" else 1e3) + 1.4e9
    return pixels * (11e3 if precision == "fp32" else 7e3) + 0.8e9


def fit_batch(cfg: Config, device: torch.device, precision: str, loss: Loss, free: float) -> Config:
    """`cfg` with the largest global batch whose training step fits in `free` bytes per process.

    recompute=auto becomes yes only if not one image fits without.
    raises: UserError if not even one image fits
    """
    if math.isinf(free):
        raise UserError("--batch_size auto: this system does not tell how much memory is free; give a number")
    for recompute in ("no", "yes") if cfg.recompute == "auto" else (cfg.recompute,):
        cfg = replace(cfg, recompute=recompute)
        if count := fitting_images(cfg, device, precision, loss, free):
            return replace(cfg, batch_size=count * world_size())
    remedy = "a smaller --img_size" if cfg.recompute == "yes" else "a smaller --img_size or --recompute yes"
    raise UserError(
        f"--batch_size auto: not one image of {'x'.join(map(str, cfg.img_size))} fits in the free memory of {device} "
        f"({free / 2**30:.1f} GiB); choose {remedy}"
    )


def fitting_images(cfg: Config, device: torch.device, precision: str, loss: Loss, free: float) -> int:
    """The largest number of images per process whose training step fits in `free` bytes on every rank.

    Steps are measured on a GPU and estimated elsewhere. Ranks measure on their own and agree once, at the end.
    """
    measure = partial(step_bytes, cfg, precision)
    if device.type == "cuda":
        measure = partial(peak_bytes, cfg, device, precision, loss)
    found = FAILED
    try:
        with acting_alone():
            count = largest(*map(measure, PROBES), SHARE * free)
            while count > 0 and math.isinf(measure(count)):
                count -= 8 if count > 8 else 1
        found = count
    finally:  # a rank that failed takes part, too: the others wait for it here
        agreed = smallest_of_ranks(found, device)
    if agreed == FAILED:
        raise UserError("--batch_size auto: another process failed while it measured; see its message")
    return agreed


def largest(first: float, second: float, free: float) -> int:
    """The number of images that fit in `free` bytes, a multiple of 8 above 8.

    first, second: bytes that PROBES images take; infinite where they do not fit
    """
    if math.isinf(second):
        return 0 if math.isinf(first) else PROBES[0]
    each = (second - first) / (PROBES[1] - PROBES[0])
    count = max(0, min(int((free - first) // each) + PROBES[0], LARGEST))
    return count // 8 * 8 if count > 8 else count


def peak_bytes(cfg: Config, device: torch.device, precision: str, loss: Loss, images: int) -> float:
    """Most bytes of GPU memory that one training step of random images takes; infinity where it does not fit."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        model = make_network(cfg).to(device)
        model.recompute = cfg.recompute == "yes"
        moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]  # as Adam's
        batch = torch.rand(images, 3, *cfg.img_size, device=device)
        targets = torch.zeros(images, *cfg.img_size, dtype=torch.uint8, device=device)
        with autocast(device, precision):
            logits = model(batch)
        loss(logits, targets).backward()
        del moments
        return torch.cuda.max_memory_allocated(device) - before
    except torch.OutOfMemoryError:
        return math.inf
