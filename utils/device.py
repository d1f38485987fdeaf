"""The device: which one, its memory, its precision, and seeds."""

import contextlib
import math
import os
import random
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch

from utils.distributed import world_size
from utils.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` is this rank's GPU, else Apple's, else the CPU; any other name is PyTorch's own."""
    if name == "auto":
        if torch.cuda.is_available():
            name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: not a device; expected auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: PyTorch sees no CUDA GPU here; use --device cpu or auto")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} GPU(s), numbered from 0")
        torch.cuda.set_device(device)
    return device


def describe_device(device: torch.device) -> str:
    """Its name and what it has: `cuda:0 (NVIDIA H200, 139.7 GiB)`, `cpu (2 threads)`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        text = f"{device} ({properties.name}, {properties.total_memory / 2**30:.1f} GiB)"
    else:
        text = f"{device} ({torch.get_num_threads()} threads)"
    return text + (f" x {world_size()} processes" if world_size() > 1 else "")


@cache
def cpu_prefers_bf16() -> bool:
    """Whether this CPU multiplies matrices faster in bfloat16 than in float32, tried once with a small product.

    AMX is several times faster; AVX512-BF16 alone can be slower than float32, so the flag is not enough.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        return False
    matrices = {dtype: torch.ones(768, 768, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(matrices, float("inf"))
    for _ in range(8):
        for dtype, matrix in matrices.items():
            began = time.perf_counter()
            matrix @ matrix
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best[torch.bfloat16] < 0.75 * best[torch.float32]


def free_memory(device: torch.device | None = None) -> float:
    """Bytes that can be had on a GPU, or without swapping of the CPU's; infinite where the system does not say."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    available = next(line for line in lines if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 1024


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve `auto` to bf16, fp16 or fp32, whichever is fastest and safe on `device`."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and cpu_prefers_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Mixed-precision context of a resolved precision; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def seed_everything(seed: int) -> None:
    """Seed python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries may still read the global state
    torch.manual_seed(seed)


def seed_worker(_: int) -> None:
    """Seed a loader worker's python and NumPy from the seed that torch gave it."""
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
