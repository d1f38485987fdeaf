"""The operations of a step, noted on fake tensors: shapes without values, on any machine. And groups of operations.

Every operation but views is taken as one kernel of a GPU, with its floating-point operations (a multiplication and an
addition are two) and the bytes that it reads and writes. The fake tensors lie on the CPU, because PyTorch has no
backward pass of fake CUDA tensors. Where autocast differs on a GPU, `Widen` follows the GPU. Attention is one kernel,
but for the small one between channels in the skips.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import conv_flop_count, flop_registry

from benchmarks.station import TRAIN
from benchmarks.variants import NUM_CLASSES
from datasets.augment import Draws, augment_synapse
from models import bra, build_model
from utils.training.losses import loss_for

GROUPS = {  # group: names of PyTorch's operations, whole; the first group that fits
    "matrix products": r"(add|b|badd)?b?mm",
    "convolutions": r".*conv(olution|_|\d).*",
    "attention": r".*(scaled_dot_product|flash|efficient_attention).*",
    "optimizer": r"_fused_adamw_|fused AdamW|_foreach.*",
    "selections": r"topk|index_select|index_add_?|gather",
    "norms and reductions": r".*_norm.*|.*softmax.*|sum|mean|cumsum",
    "copies and casts": r"_to_copy|clone|copy_|cat|stack|slice_backward|select_backward",
}
LIBRARIES = ("matrix products", "convolutions", "attention")  # what a library computes well
WIDE = (F.layer_norm, F.group_norm, F.softplus, Tensor.exp, torch.exp, torch.rsqrt, torch.linalg.vector_norm)
NO_KERNEL = re.compile(r"(new_)?empty(_like|_strided)?|detach|_unsafe_view|lift_fresh|_reshape_alias")


def group_of(name: str) -> str:
    """The group of GROUPS that an operation such as `addmm` belongs to, or `element by element`."""
    return next((group for group, names in GROUPS.items() if re.fullmatch(names, name)), "element by element")


@dataclass
class Operation:
    """One kernel: its name, operations, and the bytes of each memory block that it reads and writes."""

    name: str
    flops: int
    reads: dict[int, int]
    writes: dict[int, int]

    @property
    def bytes(self) -> int:
        return sum(self.reads.values()) + sum(self.writes.values())


class Recorder(TorchDispatchMode):
    """Notes every operation that starts a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.kept: list[Any] = []  # blocks of memory, so that none is counted for another

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        packet = function.overloadpacket
        made, used = ([x for x in tree_leaves(tree) if torch.is_tensor(x)] for tree in (result, (args, kwargs)))
        views = any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns)
        if views or NO_KERNEL.fullmatch(packet.__name__) or not any(isinstance(x, FakeTensor) for x in made):
            return result
        flops = 0
        if packet is torch.ops.aten.convolution_backward:  # PyTorch's count forgets the groups
            grad, x, weight = (t.shape for t in args[:3])
            flops = sum(args[10][:2]) * conv_flop_count(x, weight, grad, transposed=False)
        elif packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=result)
        self.kept += [x.untyped_storage() for x in used + made]
        self.operations.append(Operation(packet.__name__, flops, _blocks(used), _blocks(made)))
        return result


def _blocks(tensors: list[Tensor]) -> dict[int, int]:
    """Bytes by block of memory; what is only expanded counts once."""
    sizes: Counter[int] = Counter()
    for x in tensors:
        numel = math.prod(length for length, stride in zip(x.shape, x.stride()) if stride)
        sizes[x.untyped_storage()._cdata] += numel * x.element_size()
    return dict(sizes)


class Widen(TorchFunctionMode):
    """float32 for norms and exponentials: autocast chooses so on CUDA, but not on a CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in WIDE:
            given = (args, kwargs)
            args, kwargs = tree_map_only(Tensor, lambda x: x.float() if x.dtype == torch.bfloat16 else x, given)
        return function(*args, **kwargs)


def record(work: str, batch: int, size: int) -> list[Operation]:
    """The kernels of a step; training has augmentation, loss, gradients and AdamW in it."""
    model = build_model(NUM_CLASSES).to("meta").train(work == TRAIN)
    with FakeTensorMode(allow_non_fake_inputs=True), mock.patch.object(bra, "attend", F.scaled_dot_product_attention):
        model = model.to_empty(device="cpu")
        images, targets = torch.empty(batch, 1, size, size), torch.empty(batch, size, size, dtype=torch.uint8)
        with Recorder() as recorder:
            if work == TRAIN:
                images, targets = augment_synapse(images, targets, Draws(torch.Generator(), batch), (size, size))
            with torch.set_grad_enabled(work == TRAIN), torch.autocast("cpu", torch.bfloat16), Widen():
                logits = model(images)
            if work == TRAIN:
                loss_for("ce_dice", NUM_CLASSES)(logits, targets).backward()
            else:
                logits.argmax(1)
    if work == TRAIN:  # fused: reads weight, gradient and two moments, writes all but the gradient, in float32
        count = sum(p.numel() for p in model.parameters())
        recorder.operations.append(Operation("fused AdamW", 0, {-1: 16 * count}, {-2: 12 * count}))
    return recorder.operations
