"""Loading the published network's released weights, whose names differ from ours.

A released file is the bare state dict of 467 entries, every name under `bra_unet.`. 425 of them are our network,
under other names. The other 42 belong to a fourth encoder stage, which the published forward pass never calls. They
are dropped by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

import torch
from torch import Tensor, nn

from models.bra import HEAD_DIM
from models.hetero_medseg import WIDTH
from models.vssd import VSSDBlock
from utils.checkpoint_content import compare
from utils.errors import UserError

RULES = (
    # released name begins        ours begins
    ("downsample_layers.0.", "stem."),
    *((f"downsample_layers.{i + 1}.", f"downsample.{i}.") for i in range(3)),
    *((f"stages.{i}.", f"encoder.{i}.") for i in range(3)),
    ("layers_up.0.", "decoder.0.expand."),
    *((f"layers_up.{i}.upsample.", f"decoder.{i}.expand.") for i in (1, 2)),
    *((f"sccsa{3 - i}.", f"decoder.{i}.attention.") for i in range(3)),
    *((f"concat_back_dim.{i + 1}.", f"decoder.{i}.reduce.") for i in range(3)),
    *((f"layers_up.{i + 1}.blocks.", f"decoder.{i}.blocks.") for i in range(3)),
    ("norm_up.", "head.norm."),
    ("up4.", "head.expand."),
    ("output.", "head.classify."),
)
PREFIX = "bra_unet."  # of every name in a released file
# inside a decoder block: released, ours
BLOCK_RULES = ((".attn.qkv.qkv.", ".attn.qkv."), (".mlp.0.", ".mlp.fc1."), (".mlp.3.", ".mlp.fc2."))


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

    def __str__(self) -> str:
        taken = f"{self.tensors} tensors, {self.values:,} values, {self.values / self.total:.1%} of the network"
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


@cache
def dead_stage() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the fourth encoder stage: two VSSD blocks. The random state stays as it was."""
    with torch.random.fork_rng(devices=()):
        block = VSSDBlock(8 * WIDTH, 8 * WIDTH // HEAD_DIM, "causal").state_dict()
    return {f"stages.3.{i}.{name}": tuple(value.shape) for i in (0, 1) for name, value in block.items()}


def released_name(name: str) -> str:
    """The released name, without prefix, of one of our entries. raises: KeyError if unknown"""
    for released, ours in RULES:
        if name.startswith(ours):
            local = name.removeprefix(ours)
            if ours.endswith(".blocks."):
                for there, here in BLOCK_RULES:
                    local = local.replace(here, there)
            return released + local
    raise KeyError(name)


def is_released(checkpoint: Mapping[str, object]) -> bool:
    """Whether a checkpoint has the names of released weights; our own checkpoints do not."""
    return {"output.weight", "layers_up.0.expand.weight"} <= bare_state(checkpoint, "checkpoint").keys()


def released_num_classes(checkpoint: Mapping[str, object], source: str) -> int:
    """The number of output channels of a released checkpoint. raises: UserError for another network's"""
    state = bare_state(checkpoint, source)
    weight = state.get("output.weight")
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise UserError(
            f"{source}: not a released HeteroMedSeg checkpoint: none of its {len(state)} entries "
            f"({', '.join(sorted(state)[:2])}, …) is output.weight. Give a released file, such as synapse_84.00.pth"
        )
    return len(weight)


def load_released(model: nn.Module, checkpoint: Mapping[str, object], source: str) -> LoadSummary:
    """Load a released checkpoint into `model` and account for all 467 entries.

    The network must run the causal SSD form, as in the training of the released weights.

    raises: UserError, before anything is loaded, when an entry is missing, unknown, of another shape or not finite
    """
    own, state = model.state_dict(), bare_state(checkpoint, source)
    expected = {released_name(name): tuple(value.shape) for name, value in own.items()} | dead_stage()
    if problems := compare(state, expected):
        raise UserError(
            f"{source}: differs from the published network's {len(expected)} entries:\n{problems}\n  "
            "Give a released file as it was published; this project's own checkpoints need no conversion"
        )
    model.load_state_dict({name: state[released_name(name)] for name in own})
    total = sum(value.numel() for value in own.values())
    dead = (len(dead_stage()), sum(map(prod, dead_stage().values())))
    left_out = {"the fourth encoder stage, which the forward pass never calls": dead}
    note = "SSD form set to causal, the one that the released weights were trained with"
    return LoadSummary(source, len(own), total, total, left_out, (note,))
