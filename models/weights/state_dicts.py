"""Shared by all loading of weights: find the state dict in a checkpoint, compare it, summarise what was taken."""

from collections.abc import Mapping
from dataclasses import dataclass

from utils.errors import UserError

PREFIX = "bra_unet."  # of every name in a released file


@dataclass(frozen=True)
class LoadSummary:
    """What was taken from one file; str() gives the report that a run prints.

    total: values in the network's state dict; left_out: reason -> (tensors, values) of the file that were not taken
    """

    source: str
    tensors: int
    values: int
    total: int
    left_out: dict[str, tuple[int, int]]
    notes: tuple[str, ...] = ()

    @property
    def fraction(self) -> float:
        return self.values / self.total

    def __str__(self) -> str:
        taken = f"{self.tensors} tensors, {self.values:,} values, {self.fraction:.1%} of the network"
        left_out = [f"left out {n} tensors, {v:,} values: {why}" for why, (n, v) in self.left_out.items()]
        return "\n  ".join([f"{self.source}: loaded {taken}", *left_out, *self.notes])


def bare_state(checkpoint: Mapping[str, object], source: str) -> dict[str, object]:
    """Find the state dict in a checkpoint, bare or under `model` or `state_dict`; remove the prefixes of wrappers."""
    for key in ("model", "state_dict"):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    state = {str(name).removeprefix("module.").removeprefix(PREFIX): value for name, value in checkpoint.items()}
    if len(state) < len(checkpoint):
        raise UserError(f"{source}: holds the same entry with and without the prefix `module.` or `{PREFIX}`")
    return state
