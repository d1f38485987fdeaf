"""One network at one kind of work, ready for one timed step after another.

A step is a training step (forward, the Synapse loss, backward, AdamW) or an inference of a batch, on random
images that lie on the device: what the input costs is `benchmarks.input_pipeline`'s question.
"""

import contextlib
from collections.abc import Callable
from time import perf_counter
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import memory
from benchmarks.variants import Variant, build_network
from models import ssd
from utils.device import autocast
from utils.inference.forward import Compiled
from utils.training.losses import loss_for

TRAIN, INFER = "train", "infer"
NUM_CLASSES = 9
WARM_UP = 3  # a CUDA graph is recorded by the second step of a shape


class Station:
    """Built, compiled and warmed up on construction; `memory` then holds the bytes of a step.

    memory: {"peak": largest bytes while a step runs, "network": of them, what is there between the steps}.
    On a GPU both are this station's own; on a CPU those of the whole process, so have one station a process.
    """

    def __init__(self, variant: Variant, work: str, device: torch.device, batch: int, size: int) -> None:
        self.variant, self.work, self.device = variant, work, device
        cuda = device.type == "cuda"
        before = torch.cuda.memory_allocated() if cuda else 0
        torch.manual_seed(0)
        model = build_network(variant, NUM_CLASSES, size).to(device).train(work == TRAIN)
        self.images = torch.rand(batch, 3, size, size, device=device)
        if variant.network not in ("ours", "plain"):  # what suits convolutions best; the other two choose their own
            model, self.images = (t.to(memory_format=torch.channels_last) for t in (model, self.images))
        self.targets = torch.randint(0, NUM_CLASSES, (batch, size, size), dtype=torch.uint8, device=device)
        self.loss = loss_for("ce_dice", NUM_CLASSES)
        fused = True if variant.network != "plain" else None
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused) if work == TRAIN else None
        self.network = _compiled(model, variant.mode, work, device)
        self.scan = mock.patch.object(ssd, "mamba_kernel", return_value=None)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(WARM_UP):
            self.step()
        self.memory = self._cuda_memory(before) if cuda else self._process_memory()

    def step(self) -> None:
        """One step; a GPU may still be at it on return."""
        if self.variant.mode == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # what the step before returned may be overwritten
        with self.scan if self.variant.scan == "products" else contextlib.nullcontext():
            if self.work == INFER:
                with torch.no_grad(), autocast(self.device, self.variant.precision):
                    self.network(self.images)
                return
            with autocast(self.device, self.variant.precision):
                logits = self.network(self.images)
            self.loss(logits, self.targets).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, count: int) -> float:
        """Seconds a step, over `count` steps."""
        start = perf_counter()
        for _ in range(count):
            self.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return (perf_counter() - start) / count

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
        network = memory.resident()
        memory.restart_peak()
        self.step()
        return {"peak": memory.peak(), "network": network}


def _compiled(model: nn.Module, mode: str, work: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    if mode == "eager":
        return model
    if mode == "compiled" and work == INFER:
        return Compiled(model, device)
    return torch.compile(model, mode="reduce-overhead" if mode == "graphs" else None, dynamic=False)
