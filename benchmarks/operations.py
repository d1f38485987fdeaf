"""The operations of a step, noted on `meta` tensors: shapes without values, on any machine. And groups of operations.

Every operation but views is taken as one kernel of a GPU, with its floating-point operations (a multiplication and an
addition are two) and the bytes that it reads and writes. What autocast does on CUDA is repeated here, since it does
nothing on `meta`. Attention is one kernel, as on a GPU.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import conv_flop_count, flop_registry

from benchmarks.station import TRAIN
from benchmarks.variants import NUM_CLASSES
from datasets.augment import Draws, augment_synapse
from models import build_model
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
LOW = (F.linear, F.conv1d, F.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, F.scaled_dot_product_attention)
HIGH = (F.layer_norm, F.group_norm, F.softplus, Tensor.exp, torch.exp, torch.rsqrt, torch.linalg.vector_norm)
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
        if views or NO_KERNEL.fullmatch(packet.__name__) or not any(x.is_meta for x in made):
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
        numel = 1
        for length, stride in zip(x.shape, x.stride()):
            numel *= length if stride else 1
        sizes[x.untyped_storage()._cdata] += numel * x.element_size()
    return dict(sizes)


class Autocast(TorchFunctionMode):
    """bfloat16 for products, float32 for norms and exponentials, as autocast chooses on CUDA; weights cast once."""

    def __init__(self) -> None:
        super().__init__()
        self.active = True
        self.cast: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.active and function in LOW + HIGH:
            wanted = torch.bfloat16 if function in LOW else torch.float32
            args, kwargs = tree_map(lambda x: self._to(x, wanted), (args, kwargs))
        if function is F.scaled_dot_product_attention:
            flash = torch.ops.aten._scaled_dot_product_flash_attention
            return flash(*args, 0.0, False, scale=kwargs["scale"])[0]
        return function(*args, **kwargs)

    def _to(self, x: Any, dtype: torch.dtype) -> Any:
        if not torch.is_tensor(x) or x.dtype not in (torch.float32, torch.bfloat16) or x.dtype == dtype:
            return x
        if x.is_leaf and x.requires_grad:
            if id(x) not in self.cast:
                self.cast[id(x)] = x, x.to(dtype)  # x stays, or its id could become another's
            return self.cast[id(x)][1]
        return x.to(dtype)

    @contextlib.contextmanager
    def switch(self, *_: Any, enabled: bool = True, **__: Any) -> Iterator[None]:
        before, self.active = self.active, enabled
        yield
        self.active = before


def record(work: str, batch: int, size: int) -> list[Operation]:
    """The kernels of a step; training has augmentation, loss, gradients and AdamW in it."""
    model = build_model(NUM_CLASSES).to("meta").train(work == TRAIN)
    images = torch.empty(batch, 1, size, size, device="meta")
    targets = torch.empty(batch, size, size, dtype=torch.uint8, device="meta")
    cast = Autocast()
    random = {name: _without_generator(getattr(torch, name)) for name in ("rand", "randn", "randint")}
    with Recorder() as recorder, mock.patch.multiple(torch, autocast=cast.switch, **random):
        if work == TRAIN:
            draws = Draws(SimpleNamespace(device="meta"), batch)
            images, targets = augment_synapse(images, targets, draws, (size, size))
        with torch.set_grad_enabled(work == TRAIN), cast:
            logits = model(images)
        if work == TRAIN:
            loss_for("ce_dice", NUM_CLASSES)(logits, targets).backward()
        else:
            logits.argmax(1)
    if work == TRAIN:  # fused: reads weight, gradient and two moments, writes all but the gradient, in float32
        count = sum(p.numel() for p in model.parameters())
        recorder.operations.append(Operation("fused AdamW", 0, {-1: 16 * count}, {-2: 12 * count}))
    return recorder.operations


def _without_generator(function: Any) -> Any:
    return lambda *args, generator=None, **kwargs: function(*args, **kwargs)
