"""Ranks: who this process is under `torchrun`, and what it computes together with the others.

On one process every collective operation is the identity.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor


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
