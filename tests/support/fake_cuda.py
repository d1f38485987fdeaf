"""A GPU that is not there: the program runs on it, nothing is computed, and every copy and every wait is noted.

Tensors on the fake device have a shape, a type and a device, but no values (PyTorch's FakeTensorMode). Tensors on the
CPU stay real. An operation that mixes the two fails as it would on a GPU.

There are two ways to be a GPU. PyTorch's own fake `cuda:0` casts under autocast, but its backward pass asks for a real
GPU. Tensors on `meta` that tell Python they are on `cuda:0` or `mps:0` (`disguised`) have a backward pass, but autocast
leaves them alone.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch._dynamo  # notes PyTorch's functions when it is first imported: not those of a fake device
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

from tests.support.places import ROOT

COPIES = ("_to_copy", "copy_")
VALUES = (
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "bincount",
)
OWN_DEVICE = FakeTensor.device.fget
DOUBLE = (torch.float64, torch.complex128)
INDEXING = ("index", "index_put", "index_put_")
RANDOM = ("rand", "randn", "randint", "randperm")


class Event(NamedTuple):
    """What an operation did: its name, the project's line that called it, and the shape of the tensor."""

    operation: str
    file: str
    line: int
    function: str
    shape: tuple[int, ...]

    @property
    def place(self) -> str:
        return f"{self.file}::{self.function}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.operation} of {self.shape}"


class HostWaits(AssertionError):
    """The program asks the device for a value in a place where it must not wait."""


class FakeDevice(TorchDispatchMode):
    """Notes what the program does between the host and `device`.

    copies: from the CPU to the device; waits: values that come home in the places `may_wait` (as `file::function`;
    elsewhere they raise HostWaits); doubles: float64 tensors on the device
    """

    def __init__(self, device: str, disguised: bool, may_wait: tuple[str, ...]) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.behind = torch.device("meta") if disguised else self.device
        self.inside = False
        self.may_wait = may_wait
        self.copies: list[Event] = []
        self.waits: list[Event] = []
        self.doubles: list[Event] = []

    def seen(self, x: FakeTensor) -> torch.device:
        """The device that Python sees."""
        return self.device if not self.inside and x.fake_device == self.behind else OWN_DEVICE(x)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.ops.prim.device.default or self.inside:
            return function(*args, **kwargs)
        if torch.is_inference_mode_enabled():  # there, operations arrive that are made of others
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name = function.overloadpacket.__name__
        here = [x for x in tree_flatten((args, kwargs))[0] if self._on_device(x)]
        target = torch.device(kwargs.get("device") or "cpu")
        if not here and target.type == "cpu":
            with _disable_current_modes():  # the CPU is real
                return function(*args, **kwargs)
        if here and self._asks_for_a_value(name, args, kwargs):
            return self._bring_home(name, args, here[0])
        if name in INDEXING and not self._on_device(args[0]):
            raise AssertionError(f"{self._event(name, args[0])}: a CPU tensor indexed with one on the device")
        if name in ("index_add", "index_add_") and self.device.type == "mps" and args[3].dtype == torch.int64:
            # PyTorch 2.6 to 2.8; pull request 160926 mended it
            raise RuntimeError(f"{self._event(name, args[0])}: index_add(): Expected non int64 dtype for source.")
        self.copies += [self._event(name, x) for x in self._copied(name, args, here)]
        if target.type == self.device.type:
            kwargs["device"] = self.behind
        self.inside = True
        try:
            result = function(*args, **kwargs)
        finally:
            self.inside = False
        made = [x for x in tree_flatten(result)[0] if self._on_device(x)]
        self.doubles += [self._event(name, x) for x in made if x.dtype in DOUBLE]
        return result

    def _on_device(self, x: Any) -> bool:
        return isinstance(x, FakeTensor) and x.fake_device == self.behind

    def _asks_for_a_value(self, name: str, args: Any, kwargs: dict[str, Any]) -> bool:
        if name == "_to_copy":
            return torch.device(kwargs.get("device") or self.device).type == "cpu"
        if name == "copy_":
            return not self._on_device(args[0])
        if name in INDEXING:
            return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
        return name in VALUES or (name == "repeat_interleave" and torch.is_tensor(args[-1]))

    def _bring_home(self, name: str, args: Any, x: Tensor) -> Any:
        """Zeros in place of the values that a GPU would send."""
        event = self._event(name, x)
        if event.place not in self.may_wait:
            raise HostWaits(str(event))
        self.waits.append(event)
        with _disable_current_modes():
            if name == "_local_scalar_dense":
                return torch.zeros((), dtype=x.dtype).item()
            if name == "_to_copy":
                return torch.zeros(x.shape, dtype=x.dtype)
            if name == "copy_":
                return args[0].zero_()
        raise HostWaits(f"{event}: the size of its result is a value")

    def _copied(self, name: str, args: Any, here: list[Tensor]) -> list[Tensor]:
        if name == "_to_copy":
            return [] if here else [args[0]]
        if name == "copy_":
            return [x for x in args[1:2] if not self._on_device(x)]
        if name in INDEXING:
            return [x for x in args[1] if x is not None and not self._on_device(x)]
        return []

    def _event(self, name: str, x: Tensor) -> Event:
        """The project's innermost line; a comprehension or lambda counts as the function around it."""
        frame, shape, found = sys._getframe(1), tuple(x.shape), None
        while frame:
            path = Path(frame.f_code.co_filename)
            inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] not in ("tests", ".venv")
            if found or inside:
                file, line = found or (path.relative_to(ROOT).as_posix(), frame.f_lineno)
                if not frame.f_code.co_name.startswith("<"):
                    return Event(name, file, line, frame.f_code.co_name, shape)
                found = file, line
            frame = frame.f_back
        return Event(name, "tests", 0, "", shape)


class FakeGenerator:
    """In place of `torch.Generator`, which needs a real device."""

    def __init__(self, device: Any = "cpu") -> None:
        self.device = torch.device(device)

    def manual_seed(self, seed: int) -> "FakeGenerator":
        return self


@contextlib.contextmanager
def fake_device(device: str, disguised: bool = False, may_wait: tuple[str, ...] = ()) -> Iterator[FakeDevice]:
    """`device` ("cuda:0" or "mps:0", with its number) exists and has no values while the context lasts.

    disguised: see above; may_wait: places that may bring values home, as `file::function`
    """
    watch = FakeDevice(device, disguised, may_wait)
    with contextlib.ExitStack() as stack:
        for name in RANDOM:
            stack.enter_context(mock.patch.object(torch, name, _without_generator(getattr(torch, name))))
        stack.enter_context(mock.patch.object(torch, "Generator", FakeGenerator))
        stack.enter_context(mock.patch.object(FakeTensor, "device", property(watch.seen)))
        stack.enter_context(mock.patch.object(nn.Module, "to", move))
        # a thread would see the fake device no more than another process does
        stack.enter_context(mock.patch.object(ThreadPoolExecutor, "map", lambda pool, *work: map(*work)))
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        stack.enter_context(mock.patch("torch.cuda.is_bf16_supported", return_value=True))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by copy.deepcopy
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(watch)


def _without_generator(function: Any) -> Any:
    def call(*args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        return function(*args, **kwargs)

    return call


def move(module: nn.Module, device: torch.device) -> nn.Module:
    """In place of `module.to(device)`, which cannot swap fake tensors: new parameters and buffers without values."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty_like(parameter, device=device)
                part._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty_like(buffer, device=device)
    return module
