"""Ranks: which of the processes that `torchrun` started this one is, and what they compute together.

In a single process every collective operation returns its input.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = datetime.timedelta(minutes=10)  # a rank that does not answer for so long ends the others

_alone = False  # see acting_alone
_hosts: dist.ProcessGroup | None = None  # the ranks once more, joined by gloo, where the others are joined by NCCL


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


@contextlib.contextmanager
def acting_alone() -> Iterator[None]:
    """Inside this context the process is the only rank: no computation waits for the others."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def local_world_size() -> int:
    """Processes that torchrun started on this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    return rank() == 0


def init_distributed(device: torch.device) -> None:
    """Join the processes that `torchrun` started; without `torchrun`, or when called again, do nothing.

    Where ranks wait for one that does not answer within `PATIENCE`, they end with an error.
    """
    global _hosts
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE, device_id=device if on_gpu else None)
        _hosts = dist.new_group(backend="gloo", timeout=PATIENCE) if on_gpu else None


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum of `values` over all ranks, differentiable; the tensor itself on one process.

    Its backward sums the gradients of all ranks, so a loss built from such sums and averaged
    over ranks by DistributedDataParallel has exactly the gradient of one process.
    """
    return values if world_size() == 1 else _AllReduceSum.apply(values)


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        values = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _AllReduceSum.apply(gradient)


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def patient_group() -> Any:
    """A group of all ranks for `gather`; every rank asks for it at about the same time."""
    return dist.new_group(backend="gloo", timeout=datetime.timedelta(days=30)) if world_size() > 1 else None


def gather(found: list[Any], group: Any) -> list[Any]:
    """What all ranks found, in the order of the items; waits for the slowest rank, however long it takes.

    in: found: one value for each of this rank's items, which are items[rank() :: world_size()]; `patient_group()`
    """
    if world_size() == 1:
        return found
    held: list[list[Any]] = [[]] * world_size()
    dist.all_gather_object(held, found, group=group)
    everything: list[Any] = [None] * sum(map(len, held))
    for number, one in enumerate(held):
        everything[number :: world_size()] = one
    return everything


def any_rank(asked: bool) -> bool:
    """Whether any rank passes True. The hosts of the ranks wait for each other, but not for their GPUs."""
    if world_size() == 1:
        return asked
    flag = torch.tensor(int(asked))
    dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=_hosts)
    return bool(flag)


def smallest_of_ranks(value: int, device: torch.device) -> int:
    """The smallest value that any rank passes; `device` is the one that this rank computes on."""
    if world_size() == 1:
        return value
    held = torch.tensor(value, device=device)
    dist.all_reduce(held, op=dist.ReduceOp.MIN)
    return int(held)
