"""Device of a run: which one, its free memory, its precision; and the seeds of all random numbers."""

import contextlib
import math
import os
import random
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from utils.distributed import local_world_size, smallest_of_ranks, world_size
from utils.errors import UserError, counted
from utils.log import log

# Linux control groups (cgroups), version 2 and 1. Controller in /proc/self/cgroup: where the groups are mounted,
# files with limit and usage, prefix of the fields in memory.stat.
CGROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def choose_device(name: str) -> torch.device:
    """The device for `--device name`; `auto` takes a GPU where there is one.

    Under torchrun `auto` and `cuda` give each process of a machine a GPU of its own.
    raises: UserError for a name that is not offered or a device that this machine lacks
    """
    if name not in ("auto", "cpu", "cuda", "mps") and not re.fullmatch(r"cuda:\d+", name):
        raise UserError(f"--device {name}: not a device; expected auto, cpu, cuda, cuda:N or mps")
    apple = torch.backends.mps.is_available()
    if name == "mps" and not apple:
        raise UserError(f"--device {name}: PyTorch sees no Apple GPU here; use --device cpu or auto")
    if name in ("cpu", "mps") or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("mps" if apple and name != "cpu" else "cpu")
    device = torch.device("cuda", _gpu_index(name))
    torch.cuda.set_device(device)
    return device


def _gpu_index(name: str) -> int:
    """The number of the GPU that this process uses for `--device name`."""
    if not torch.cuda.is_available():
        raise UserError(f"--device {name}: PyTorch sees no CUDA GPU here; use --device cpu or auto")
    gpus, processes = torch.cuda.device_count(), local_world_size()
    _, _, number = name.partition(":")
    if number and processes > 1:
        raise UserError(
            f"--device {name}: {processes} processes cannot share one GPU; give --device cuda, which gives each its own"
        )
    if number and int(number) >= gpus:
        raise UserError(f"--device {name}: this machine has {gpus} GPU(s), numbered from 0")
    if number or gpus == 1:  # some launchers show each process only its own GPU
        return int(number or 0)
    if processes > gpus:
        raise UserError(
            f"--device {name}: {processes} processes need as many GPUs, this machine has {gpus}; "
            f"start torchrun with --nproc_per_node {gpus}, or use --device cpu"
        )
    return int(os.environ.get("LOCAL_RANK", "0"))


def num_cores() -> int:
    """The cores that this process may use: fewer than the machine's under a scheduler such as SLURM."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_device(device: torch.device) -> str:
    """Name and size of the device for the log: `cuda:0 (NVIDIA H200, 139.7 GiB)`, `cpu (2 threads)`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        text = f"{device} ({properties.name}, {properties.total_memory / 2**30:.1f} GiB)"
    else:
        text = f"{device} ({counted(torch.get_num_threads(), 'thread')})"
    return text + (f" x {world_size()} processes" if world_size() > 1 else "")


@cache
def cpu_prefers_bf16() -> bool:
    """Whether this CPU multiplies matrices faster in bfloat16 than in float32; measured once on a small product.

    The CPU's flags alone do not tell: AMX is several times faster, AVX512-BF16 without AMX can be slower.
    """
    flags = _read(Path("/proc/cpuinfo"))
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


def free_memory(device: torch.device) -> float:
    """Bytes that this process can still take: of its GPU, or its share of the host's memory.

    The processes that torchrun started on this machine have equal shares. Infinite where the system does not say.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return host_memory() / local_world_size()


def host_memory(root: Path = Path("/")) -> float:
    """Bytes that can be taken without swapping on this machine, or in this container if that is less.

    root: folder that holds `proc` and `sys`
    out: infinity where the system does not say
    """
    available = [line for line in _read(root / "proc/meminfo").splitlines() if line.startswith("MemAvailable")]
    if not available:
        return math.inf
    free = int(available[0].split()[1]) * 1024
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in CGROUPS.keys() & set(controllers.split(",")):
            free = min(free, _left_in_group(root, path, *CGROUPS[controller]))
    return free


def _left_in_group(root: Path, path: str, mount: str, limit: str, usage: str, prefix: str) -> float:
    """Bytes left in the control group `path` and in all groups above it; infinity without a limit.

    In a container `path` may be the host's, where only the mounted group itself is visible.
    """
    left = math.inf
    parts = Path(path.strip("/")).parts
    for depth in range(len(parts) + 1):
        group = root.joinpath(mount, *parts[:depth])
        most = _read(group / limit).strip()
        if most.isdigit():  # else "max", or the group is not visible
            stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            reclaimable = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
            left = min(left, max(0, int(most) - int(_read(group / usage)) + reclaimable))
    return left


def _read(file: Path) -> str:
    """Text of a file of the system; empty where it cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return ""


def choose_precision(name: str, device: torch.device, evaluating: bool = False) -> str:
    """The precision for `--precision name`: fp32, bf16 or fp16; fp32 also switches TF32 off in this process.

    `auto` is bf16 where `device` is fast at it, else fp32. It is always fp32 for `evaluating`, so that figures do
    not depend on the machine. It is never fp16, whose range is small enough to overflow.
    """
    if name == "auto":
        # measured on a CPU: ranks must not find different answers
        fast = not evaluating and smallest_of_ranks(int(_is_fast_at_bf16(device)), device)
        name = "bf16" if fast else "fp32"
    if name == "fp32":
        # Not the newer fp32_precision: with it, PyTorch refuses to read these two, which torch.compile does.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return name


def _is_fast_at_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_prefers_bf16()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The autocast context of a precision that `choose_precision` returned; it does nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


@contextlib.contextmanager
def deterministic_algorithms(asked: bool) -> Iterator[None]:
    """If `asked`, let PyTorch use only operations that give the same bits every time, while the context lasts.

    On a CPU the bits still depend on the number of threads, because sums are divided among them.
    raises: UserError with the name of an operation that has no such form on the device
    """
    if not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    log("deterministic: the same weights on this kind of device, on a CPU for the same number of threads")
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        operation = str(error).split(" does not have", 1)[0].splitlines()[-1]
        raise UserError(
            f"--deterministic: {operation} has no deterministic form here; leave the flag out, or use --device cpu"
        ) from error
    finally:
        torch.use_deterministic_algorithms(False)


def seed_everything(seed: int) -> None:
    """Seed python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries may still read the global state
    torch.manual_seed(seed)
