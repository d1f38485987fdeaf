"""What a checkpoint file holds: plain tensors and containers, a checksum of them, and the fields of our own files.

The content is checked once, directly after reading, and is not used before.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError

CHECKSUM = "content_sha256"  # the key of the checksum in a file
MOST_ENTRIES, DEEPEST = 1_000_000, 50
LARGEST_REPEATED = 2**26  # bytes that one number may fill by being repeated (a stride of 0)
# The only tensors of whole numbers in a network's state: counters, and places in windows of attention (SwinUNETR)
COUNTERS = ("num_batches_tracked", "n_averaged", "relative_position_index")


def leaves(value: Any, source: str) -> Iterator[tuple[str, Any]]:
    """(place such as `model.stem.weight`, value) of all that is no dict, list or tuple, in the order of the file.

    raises: UserError for what no checkpoint holds: containers within themselves or without end
    """
    waiting, count = [("", value, 0)], 0
    while waiting:
        place, value, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_ENTRIES:
            raise UserError(f"{source}: nested too deep or without end at {place[:80]!r}; not a checkpoint to read")
        if isinstance(value, dict):
            items = [(f"{place}.{key}" if place else str(key), part, depth + 1) for key, part in value.items()]
        elif isinstance(value, list | tuple):
            items = [(f"{place}.{index}", part, depth + 1) for index, part in enumerate(value)]
        else:
            yield place, value
            continue
        waiting += reversed(items)


def verified(state: dict[str, Any], source: str) -> dict[str, Any]:
    """`state` without its checksum, once that agrees; files from before there was one have none.

    Tensors that are not plain arrays in memory, and those that claim more values than the file holds, are refused
    before: raises UserError that names the tensor, or that says that the content is not what was saved.
    """
    for place, value in leaves(state, source):
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            kind = "quantized" if value.is_quantized else f"{value.layout}".removeprefix("torch.")
            kind = kind if value.device.type == "cpu" else "without values (meta)"
            raise UserError(f"{source}: {place} is a tensor of another kind ({kind}); expected plain tensors")
        claimed = value.numel() * value.element_size()
        if claimed > max(value.untyped_storage().nbytes(), LARGEST_REPEATED):
            raise UserError(
                f"{source}: {place} claims {value.numel():,} values, more than the file holds; it is damaged or made up"
            )
    expected = state.pop(CHECKSUM, None)
    if expected is not None and checksum(state) != expected:
        raise UserError(
            f"{source}: its content is not what was saved (checksum {CHECKSUM} differs): the file was damaged or "
            "changed; copy it again, or use an older one"
        )
    return state


def checksum(state: Mapping[str, Any]) -> str:
    """SHA-256 over all that `state` holds: each place, each value, and the bytes of each tensor."""
    digest = hashlib.sha256()
    for place, value in leaves(state, "checkpoint"):
        if not isinstance(value, Tensor):
            digest.update(f"{place}={value!r}\n".encode(errors="backslashreplace"))
            continue
        digest.update(f"{place}={value.dtype}{tuple(value.shape)}\n".encode(errors="backslashreplace"))
        if value.numel():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def compare(state: Mapping[str, object], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Describe how a state dict differs from the expected names and shapes, one line for each kind; empty if equal.

    Every tensor but counters must hold finite floating-point values.
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    found = {name: tuple(tensors[name].shape) if name in tensors else type(state[name]).__name__ for name in state}
    both = [name for name in expected if name in found]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [f"{name} {shape}" for name, shape in found.items() if name not in expected],
        "of another shape": [
            f"{name} {found[name]} instead of {expected[name]}" for name in both if found[name] != expected[name]
        ],
        "of integers, truth values or complex numbers": [
            name for name, value in tensors.items() if not (value.is_floating_point() or name.endswith(COUNTERS))
        ],
        "not finite": [name for name, value in tensors.items() if not value.isfinite().all()],
    }
    return "\n".join(
        f"  {len(names)} {kind}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        for kind, names in kinds.items()
        if names
    )


def check_fields(state: Mapping[str, Any], source: str, resuming: bool = False) -> None:
    """Check the kind and range of every field of a file that training wrote, but for `config` (see `from_dict`).

    resuming: the fields that only --resume reads must be there, too
    raises: UserError with the file and the field
    """
    needed = {"config", "model", "class_names", "selection"}
    if resuming:
        needed |= {"epoch", "iteration", "best", "history", "optimizer", "scaler"}
    if missing := sorted(needed - state.keys()):
        raise UserError(f"{source}: lacks {', '.join(missing)}; expected a checkpoint that train.py wrote")
    for name, (agrees, expected) in FIELDS.items():
        if name in state and not agrees(state[name]):
            found = " ".join(str(state[name]).split())[:80]
            raise UserError(f"{source}: {name} is {found!r}; expected {expected}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(k) and isinstance(v, Tensor) for k, v in value.items())


def _list_of(agrees: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(agrees, value))


def _is_record(value: Any) -> bool:
    numbers = isinstance(value, dict) and all(_is_text(k) and type(v) in (int, float) for k, v in value.items())
    return numbers and {"epoch", "iteration", "loss", "lr", "images_per_s"} <= value.keys()


def _is_optimizer(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"state", "param_groups"}:
        return False
    groups = _list_of(lambda group: isinstance(group, dict) and _list_of(_is_count)(group.get("params")))
    moments = value["state"]
    moments_are_right = isinstance(moments, dict) and all(_is_count(k) and _is_weights(v) for k, v in moments.items())
    return moments_are_right and groups(value["param_groups"])


def _is_cases(value: Any) -> bool:
    parts = ("train", "validation", "earlier")
    return isinstance(value, dict) and all(k in parts and _list_of(_is_text)(v) for k, v in value.items())


def _is_position(value: Any) -> bool:
    loss = value.get("loss") if isinstance(value, dict) else None
    return isinstance(loss, Tensor) and loss.ndim == 0 and loss.is_floating_point() and _is_count(value.get("batch"))


# field -> whether a value is one, and what to call one
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "config": (lambda v: isinstance(v, dict), "a dict of settings"),
    "model": (_is_weights, "a dict of tensors"),
    "ema": (lambda v: v is None or _is_weights(v), "a dict of tensors, or None"),
    "class_names": (lambda v: _list_of(_is_text)(v) and len(set(v)) == len(v), "a list of different names"),
    "selection": (_is_text, "a text without control characters"),
    "split": (_is_text, "a text without control characters"),
    "split_sha256": (lambda v: _is_text(v) and len(v) in (0, 64), "a SHA-256 in hexadecimal"),
    "cases": (_is_cases, "lists of hashes of case names"),
    "epoch": (_is_count, "a whole number from 0"),
    "iteration": (_is_count, "a whole number from 0"),
    "best": (lambda v: type(v) is float and (v == -math.inf or 0 <= v <= 1), "a Dice between 0 and 1, or -inf"),
    "history": (_list_of(_is_record), "a list of one record an epoch"),
    "optimizer": (_is_optimizer, "the state of an optimizer"),
    "scaler": (
        lambda v: isinstance(v, dict) and all(type(n) in (int, float) and math.isfinite(n) for n in v.values()),
        "the state of a loss scaler",
    ),
    "position": (lambda v: v is None or _is_position(v), "a place within an epoch, or None"),
}
