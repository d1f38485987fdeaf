"""Operations of a forward pass, counted while it runs: matrix products, convolutions and attention.

A multiplication and an addition are two operations. Training steps are taken as three forward passes: PyTorch's
counter takes the backward pass of a depthwise convolution for that of a full one.
"""

from functools import cache
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.station import NUM_CLASSES
from benchmarks.variants import Variant, build_network
from models import ssd

TOTAL = "total"


@cache
def count_operations(variant: Variant, device: torch.device, size: int) -> tuple[int, dict[str, int]]:
    """(number of parameters, operations of one image of `size` x `size` by module name, and in total)."""
    network = build_network(variant, NUM_CLASSES, size).to(device).eval()
    image = torch.rand(1, 3, size, size, device=device)
    products = mock.patch.object(ssd, "mamba_kernel", return_value=None)  # the counter does not see inside a kernel
    with products, torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    modules = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name != "Global"}
    return sum(p.numel() for p in network.parameters()), modules | {TOTAL: counter.get_total_flops()}


def of_part(modules: dict[str, int], part: str) -> int:
    """Operations of the network's direct child `part`; a list of modules is never called, its members are."""
    names = [name for name in modules if name.split(".")[1:2] == [part]]
    outermost = [name for name in names if not any(name.startswith(other + ".") for other in names)]
    return sum(modules[name] for name in outermost)
