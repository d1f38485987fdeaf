"""What a process knows of its surroundings: users' mistakes, ranks, seeds, device, precision, the log.

Everything here works the same on one process and under `torchrun`; on one process the
collective operations are the identity.
"""

import contextlib
import logging
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

LOGGER = logging.getLogger("heteromedseg")
EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141  # as a shell has it of a program that SIGPIPE (13) ended: 128 + 13


class UserError(Exception):
    """A mistake in what the user gave: shown as one message without a traceback, exit code 2.

    The message names the file or field, what was found, what was expected and the remedy.
    """


def run_main(main: Callable[[list[str]], None]) -> None:
    """Call `main(sys.argv[1:])`, its log on the terminal; a UserError becomes one message on stderr, exit code 2.

    Where nobody reads stdout any more (`python train.py | head`) the program ends without a word, exit code 141.
    """
    try:
        try:
            with logging_to(_Terminal()):
                main(sys.argv[1:])
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # of another pipe, such as that to a worker
        # Python flushes stdout once more as it exits, and would complain: https://docs.python.org/3/library/signal.html
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _stdout_is_closed() -> bool:
    """Whether the reader of stdout has gone; writes an empty line if not."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


# --- ranks ---------------------------------------------------------------------------------


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    return rank() == 0


def init_distributed(device: torch.device) -> None:
    """Join the process group that `torchrun` announces in the environment; nothing without it."""
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum of `values` over all ranks, differentiable; the tensor itself on one process.

    Its backward sums the gradients of all ranks, so a loss built from such sums and averaged
    over ranks by DistributedDataParallel has exactly the gradient of one process.
    """
    if world_size() == 1:
        return values
    if not values.requires_grad:
        values = values.clone()
        dist.all_reduce(values)
        return values
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(values)


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def smallest_of_ranks(value: int, device: torch.device) -> int:
    """The smallest of the ranks' values."""
    if world_size() == 1:
        return value
    held = torch.tensor(value, device=device)
    dist.all_reduce(held, op=dist.ReduceOp.MIN)
    return int(held)


_share: list[tuple[int, int]] = []


@contextlib.contextmanager
def sharing_batch(total: int, offset: int) -> Iterator[None]:
    """While the context lasts, this process holds rows offset.. of a global batch of `total` images."""
    _share.append((total, offset))
    try:
        yield
    finally:
        _share.pop()


def batch_share(local: int) -> tuple[int, int]:
    """(images in the global batch, first of them here) of a local batch; equal shares but for `sharing_batch`."""
    return _share[-1] if _share else (world_size() * local, rank() * local)


# --- device, precision, seeds ----------------------------------------------------------------


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


# --- log ---------------------------------------------------------------------------------------


def log(message: str) -> None:
    """One line to the terminal and, during a run, to its log.txt; rank 0 only."""
    if is_main():
        LOGGER.info(message)


@cache
def log_once(message: str) -> None:
    """`log`, but a message is said only once a process: which path was taken, which kernel ran."""
    log(message)


@contextlib.contextmanager
def logging_to(target: Path | logging.Handler) -> Iterator[None]:
    """Send `log` to a handler too, or on rank 0 append it to a file, while the context lasts."""
    if isinstance(target, Path) and not is_main():
        yield
        return
    handler = logging.FileHandler(target, encoding="utf-8") if isinstance(target, Path) else target
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()


class _Terminal(logging.Handler):
    """Lines on stdout, above a progress bar where one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()
