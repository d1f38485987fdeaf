"""Several processes on one CPU that are as strict with each other as GPUs under NCCL are.

`on_ranks` runs a function in each of a few processes, joined by a real gloo group. `strict_collectives` refuses
what NCCL would refuse or hang on: a payload that does not lie on the compute device, and ranks that call
collectives in another order or with other shapes. `ComputeDevice` makes the compute device: its tensors are CPU
tensors with real values whose storages are on a list, so that the code under test sees two devices.
The gradients that DistributedDataParallel averages in C++ are not seen.
"""

import contextlib
import datetime
import functools
import multiprocessing
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from utils import distributed

DEVICE = torch.device("xla", 0)  # any type that this machine lacks and PyTorch has no special code for
PATIENCE = datetime.timedelta(seconds=20)
COLLECTIVES = ("all_reduce", "all_gather", "broadcast", "reduce", "barrier")

# Fork from a process that has imported everything once and has no threads yet.
STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload(
    ["tests.support.toy", "isic_polyp_rectal.cross_validation", "torch.utils.tensorboard", "torch._dynamo"]
)


def on_ranks(world: int, function: Callable[..., Any], *args: Any, fake_device: bool = True) -> list[Any]:
    """What `function(*args)` returned in each of `world` processes that are joined in a strict group.

    `function` is at the top of a module. Warnings are errors; an error in one process is raised here.
    fake_device: `DEVICE` is there, and collectives must use it
    """
    with tempfile.TemporaryDirectory() as folder:
        return _start(world, _in_group, f"file://{Path(folder) / 'group'}", world, fake_device, function, args)


def under_torchrun(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What `function(*args)` returned in each of `world` processes whose environment is that of torchrun."""
    return _start(world, _announced, {"MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}, function, args)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _start(world: int, function: Callable, *args: Any) -> list[Any]:
    with ProcessPoolExecutor(world, mp_context=STARTER) as pool:
        return [call.result() for call in [pool.submit(function, rank, *args) for rank in range(world)]]


def _announced(rank: int, environment: dict[str, str], function: Callable, args: tuple) -> Any:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "LOCAL_RANK": str(rank)} | environment
    try:
        return function(*args)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _in_group(rank: int, address: str, world: int, fake_device: bool, function: Callable, args: tuple) -> Any:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=PATIENCE)
    device = ComputeDevice() if fake_device else None
    distributed._hosts = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        with strict_collectives(device), device or contextlib.nullcontext():
            return function(*args)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def strict_collectives(device: "ComputeDevice | None") -> Iterator[None]:
    """Refuse collectives that NCCL would not carry out, in this process of a group, while the context lasts."""
    store = dist.PrefixStore("strict", dist.distributed_c10d._get_default_store())
    rank, calls = dist.get_rank(), 0

    def agree(call: str) -> None:
        """Wait for the next call of every rank. raises: RuntimeError unless all are the same, on the device"""
        nonlocal calls
        calls += 1
        store.set(f"{calls}/{rank}", call)
        keys = [f"{calls}/{other}" for other in range(dist.get_world_size())]
        store.wait(keys, PATIENCE)
        made = [store.get(key).decode() for key in keys]
        if len(set(made)) > 1 or "on the host" in call:
            raise RuntimeError(f"collective {calls} is refused; the ranks' calls are {made}")

    def where(tensor: Tensor) -> str:
        in_backward = torch._C._current_graph_task_id() != -1  # a gradient lies where its tensor lies
        return "on the device" if device is None or in_backward or device.holds(tensor) else "on the host"

    def strict(name: str, original: Callable) -> Callable:
        @functools.wraps(original)
        def collective(*args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction():
                leaves = tree_leaves((args, kwargs))
                tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
                hosts = kwargs.get("group") is not None  # a gloo group beside that of the devices
                words = [f"{t.dtype} {tuple(t.shape)} {'for hosts' if hosts else where(t)}" for t in tensors]
                others = [leaf for leaf in leaves if not isinstance(leaf, Tensor | dist.ProcessGroup)]
                agree(" ".join([name, *words, *map(str, others)]))
                return original(*args, **kwargs)

        return collective

    with contextlib.ExitStack() as stack:
        for name in COLLECTIVES:
            stack.enter_context(mock.patch.object(dist, name, strict(name, getattr(dist, name))))
        try:
            yield
            agree("the end")
        except BaseException as error:
            store.set(f"{calls + 1}/{rank}", f"failed with {type(error).__name__}: {error}")
            raise


class ComputeDevice(TorchFunctionMode):
    """A second device in the eyes of Python code: `DEVICE`.

    A tensor lies on it if it was made or moved there, or is the result of an operation on one that does. An
    operation on tensors of both devices is refused as on a GPU; single numbers may lie anywhere.
    waits: the operations so far for which the host would wait for the device
    """

    HOST = ("cpu", "item", "tolist", "__float__", "__int__", "__bool__")  # results are on the CPU
    FROM_HOST = ("tensor", "as_tensor", "new_tensor")  # the values of the result come from the CPU
    MIXED = ("copy_", "__set__", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type")  # may see both

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address comes twice
        self.waits: list[str] = []

    def __enter__(self) -> "ComputeDevice":
        generator = torch.Generator
        self.patch = mock.patch.object(torch, "Generator", side_effect=lambda device="cpu": generator())
        self.patch.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.patch.stop()
        super().__exit__(*error)

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self.storages

    def _put(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            self.storages[storage._cdata] = storage
        return value

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "_parse_to":  # the arguments of `nn.Module.to`
            return function(*args, **kwargs)
        if name == "__get__" and isinstance(args[0], Tensor):
            if getattr(function, "__self__", None) is Tensor.device:
                return DEVICE if self.holds(args[0]) else torch.device("cpu")
            value = function(*args, **kwargs)
            return self._put(value) if isinstance(value, Tensor) and self.holds(args[0]) else value
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [self.holds(tensor) for tensor in tensors]
        if name == "numpy" and any(here):
            raise TypeError("numpy: the tensor is on the device; call cpu() first")
        if name in ("to", "_to", "cpu"):
            return self._move(function, name, args, kwargs)
        wanted = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
        args, kwargs = tree_map(_without_fake, (args, kwargs))
        if any(here) and name not in self.MIXED:
            strangers = [t for t, on in zip(tensors, here) if not on and t.dim()]
            if strangers:
                raise RuntimeError(f"{name}: expected all tensors on one device; {len(strangers)} on the CPU")
        result = function(*args, **kwargs)
        on_device = DEVICE in wanted if wanted else any(here)
        if on_device and name in (*self.HOST, *self.FROM_HOST):
            self.waits.append(name)
        if on_device and name not in (*self.HOST, *self.MIXED[:2]) and (name != "__getitem__" or here[0]):
            tree_map(self._put, result)
        return result

    def _move(self, function: Callable, name: str, args: tuple, kwargs: dict) -> Any:
        source = args[0]
        places = [leaf for leaf in (*args[1:], *kwargs.values()) if isinstance(leaf, torch.device | str)]
        on = self.holds(source) if not places else torch.device(places[0]) == DEVICE
        on = on and name != "cpu"
        if on != self.holds(source) and not kwargs.get("non_blocking"):
            self.waits.append(name)
        args, kwargs = tree_map(_without_fake, (args, kwargs))
        result = function(*args, **kwargs)
        if on != self.holds(source) and result.untyped_storage()._cdata == source.untyped_storage()._cdata:
            result = result.clone()
        return self._put(result) if on else result


def _without_fake(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) and value == DEVICE else value
