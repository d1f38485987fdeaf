"""One network at one kind of work, ready for one timed step after another; on a CPU in a process of its own.

A step is a training step (forward, the Synapse loss, backward, AdamW) or an inference of a batch, on random
images that lie on the device: what the input costs is `benchmarks.training`'s question.
"""

import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.measure import timer
from benchmarks.variants import NUM_CLASSES, Variant, build_network
from models import ssd
from utils.device import autocast
from utils.errors import UserError
from utils.inference.forward import Compiled
from utils.training.allocator import keep_freed_memory
from utils.training.losses import loss_for

TRAIN, INFER = "train", "infer"
WARM_UP = 3  # a CUDA graph is recorded by the second step of a shape
FAILURES = (RuntimeError, UserError, MemoryError)  # no memory, no package, the compiler: the variant cannot run
STATUS = Path("/proc/self/status")


class Station:
    """A network, built, compiled and warmed up.

    seconds: timer of its steps
    memory: {"peak": most bytes while a step runs, "network": bytes between the steps}; on a GPU of this
        station alone, on a CPU of the whole process (0 where the system does not say)
    """

    def __init__(self, variant: Variant, work: str, device: torch.device, batch: int, size: int) -> None:
        self.variant, self.work, self.device = variant, work, device
        cuda = device.type == "cuda"
        before = torch.cuda.memory_allocated() if cuda else 0
        torch.manual_seed(0)
        model = build_network(variant, size).to(device).train(work == TRAIN)
        self.images = torch.rand(batch, 3, size, size, device=device)
        if variant.network not in ("ours", "plain"):  # what suits convolutions best; the other two choose their own
            model, self.images = (t.to(memory_format=torch.channels_last) for t in (model, self.images))
        self.targets = torch.randint(0, NUM_CLASSES, (batch, size, size), dtype=torch.uint8, device=device)
        self.loss = loss_for("ce_dice", NUM_CLASSES)
        fused = True if variant.network != "plain" else None
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused) if work == TRAIN else None
        self.network = _compiled(model, variant.mode, work, device)
        self.seconds = timer(self.step, device)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        self.seconds(WARM_UP)
        self.memory = self._cuda_memory(before) if cuda else self._process_memory()

    def step(self) -> None:
        """Run one step; a GPU may still be at it on return."""
        if self.variant.mode == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # what the step before returned may be overwritten
        with without_kernel() if self.variant.scan == "products" else contextlib.nullcontext():
            with torch.set_grad_enabled(self.work == TRAIN), autocast(self.device, self.variant.precision):
                logits = self.network(self.images)
            if self.work == TRAIN:
                self.loss(logits, self.targets).backward()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        """Let go of the network and of what the allocator keeps for it."""
        self.network = self.optimizer = self.images = self.targets = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _cuda_memory(self, before: int) -> dict[str, int]:
        network = torch.cuda.memory_allocated() - before
        if self.variant.mode != "graphs":  # a graph's own memory shows only while it is recorded
            torch.cuda.reset_peak_memory_stats()
            self.seconds(1)
        return {"peak": torch.cuda.max_memory_allocated() - before, "network": network}

    def _process_memory(self) -> dict[str, int]:
        network = process_memory("VmRSS")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self.step()
        return {"peak": process_memory("VmHWM"), "network": network}


def without_kernel() -> contextlib.AbstractContextManager:
    """The causal form without mamba_ssm's kernel, even where that is installed."""
    return mock.patch.object(ssd, "mamba_kernel", return_value=None)


def _compiled(model: nn.Module, mode: str, work: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    if mode == "eager":
        return model
    if mode == "compiled" and work == INFER:
        return Compiled(model, device)
    return torch.compile(model, mode="reduce-overhead" if mode == "graphs" else None, dynamic=False)


def process_memory(field: str) -> int:
    """Bytes of this process from Linux: VmRSS is what it holds now, VmHWM its peak; 0 on other systems.

    Not getrusage's peak, which a child process inherits from a large parent.
    """
    if not STATUS.exists():
        return 0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


_served: list[Station] = []  # the child process keeps its station here


class Remote:
    """As `Station`, in a child process, so that peak memory and the allocator's setting are its own.

    Its memory has "start", too: the bytes before the network was built. Several may step in turns.
    raises: what the child raised, or BrokenProcessPool, a RuntimeError, where the system killed it
    """

    def __init__(self, *given: Any) -> None:
        self.child = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            self.memory = self.child.submit(_serve, *given).result()
        except BaseException:
            self.close()
            raise

    def seconds(self, count: int) -> float:
        return self.child.submit(_served_seconds, count).result()

    def close(self) -> None:
        self.child.shutdown()


def _serve(variant: Variant, *given: Any) -> dict[str, int]:
    if variant.memory == "allocator":
        keep_freed_memory()
    start = process_memory("VmRSS")
    _served.append(Station(variant, *given))
    return _served[0].memory | {"start": start}


def _served_seconds(count: int) -> float:
    return _served[0].seconds(count)


def open_station(variant: Variant, work: str, device: torch.device, batch: int, size: int) -> Station | Remote:
    """A GPU counts the memory of each network by itself; on a CPU each has a process."""
    return (Remote if device.type == "cpu" else Station)(variant, work, device, batch, size)
