"""Which kernels a step of the network starts on a GPU, noted on `meta` tensors: shapes without values, on any machine.

Every operation but views is taken as one kernel, with its floating-point operations (a multiplication and an addition
are two) and the bytes that it reads and writes. What autocast does on CUDA is repeated here, since it does nothing on
`meta`. Attention is one kernel, as on a GPU.
"""

import contextlib
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

from datasets.augment import Draws, augment_synapse
from models import build_model
from utils.training.losses import loss_for

NUM_CLASSES = 9
GROUPS = {
    "matrix products": "mm bmm addmm baddbmm",
    "convolutions": "convolution convolution_backward",
    "attention": "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward",
    "selections": "topk index_select index_add index_add_ gather",
    "norms and reductions": "native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward "
    "native_batch_norm native_batch_norm_backward sum mean linalg_vector_norm cumsum _softmax _log_softmax",
    "copies and casts": "_to_copy clone copy_ cat stack slice_backward select_backward",
}
LOW = (F.linear, F.conv1d, F.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, F.scaled_dot_product_attention)
HIGH = (F.layer_norm, F.group_norm, F.softplus, Tensor.exp, torch.exp, torch.rsqrt, torch.linalg.vector_norm)
NO_KERNEL = (
    "empty",
    "detach",
    "_unsafe_view",
    "new_empty",
    "new_empty_strided",
    "lift_fresh",
    "empty_like",
    "_reshape_alias",
)


@dataclass
class Operation:
    """One kernel: its name, operations, and the bytes of each memory block that it reads and writes."""

    name: str
    flops: int
    reads: dict[int, int]
    writes: dict[int, int]

    @property
    def group(self) -> str:
        return next((group for group, names in GROUPS.items() if self.name in names.split()), "element by element")

    @property
    def bytes(self) -> int:
        return sum(self.reads.values()) + sum(self.writes.values())

    def floor(self, rate: float, bandwidth: float) -> float:
        """Seconds that it takes at least, at so many operations and bytes a second."""
        return max(self.flops / rate, self.bytes / bandwidth)


class Recorder(TorchDispatchMode):
    """Notes every operation that starts a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.kept: list[Any] = []  # blocks of memory, so that none is counted for another

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        views = any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns)
        made = [x for x in tree_leaves(result) if torch.is_tensor(x)]
        if not views and name not in NO_KERNEL and any(x.is_meta for x in made):
            used = [x for x in tree_leaves((args, kwargs)) if torch.is_tensor(x)]
            self.kept += [x.untyped_storage() for x in used + made]
            flops = _flops(function.overloadpacket, name, args, kwargs or {}, result)
            self.operations.append(Operation(name, flops, _blocks(used), _blocks(made)))
        return result


def _flops(packet: Any, name: str, args: Any, kwargs: dict[str, Any], result: Any) -> int:
    if name == "convolution_backward":  # PyTorch's count forgets the groups
        grad, x, weight = (t.shape for t in args[:3])
        return sum(args[10][:2]) * conv_flop_count(x, weight, grad, transposed=False)
    return flop_registry[packet](*args, **kwargs, out_val=result) if packet in flop_registry else 0


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
    model = build_model(NUM_CLASSES).to("meta").train(work == "train")
    images = torch.empty(batch, 1, size, size, device="meta")
    targets = torch.empty(batch, size, size, dtype=torch.uint8, device="meta")
    cast = Autocast()
    random = {name: _without_generator(getattr(torch, name)) for name in ("rand", "randn", "randint")}
    with Recorder() as recorder, mock.patch.multiple(torch, autocast=cast.switch, **random):
        if work == "train":
            images, targets = augment_synapse(
                images, targets, Draws(SimpleNamespace(device="meta"), batch), (size, size)
            )
        with torch.set_grad_enabled(work == "train"), cast:
            logits = model(images)
        if work == "train":
            loss_for("ce_dice", NUM_CLASSES)(logits, targets).backward()
        else:
            logits.argmax(1)
    if work == "train":  # fused: reads weight, gradient and two moments, writes all but the gradient, in float32
        count = sum(p.numel() for p in model.parameters())
        recorder.operations.append(Operation("fused AdamW", 0, {-1: 16 * count}, {-2: 12 * count}))
    return recorder.operations


def _without_generator(function: Any) -> Any:
    return lambda *args, generator=None, **kwargs: function(*args, **kwargs)
