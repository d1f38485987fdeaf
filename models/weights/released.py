"""Loading the published network's released weights, whose names differ from ours.

A released file is the bare state dict of 467 entries, every name under `bra_unet.`. 425 of them are our network,
under other names. The other 42 belong to a fourth encoder stage that the published forward pass never calls;
they are dropped by name. `utils.checkpoint` reads the files.
"""

from collections.abc import Iterable, Mapping
from math import prod

import torch
from torch import Tensor, nn

from models.hetero_medseg import DIMS
from models.ssd import SSD_FORMS
from models.vssd import Mixer, VSSDBlock
from models.weights.state_dicts import LoadSummary, bare_state, compare
from utils.errors import UserError

RULES = (
    # released name begins        ours begins
    ("downsample_layers.0.", "stem."),
    ("downsample_layers.1.", "downsample.0."),
    ("downsample_layers.2.", "downsample.1."),
    ("downsample_layers.3.", "downsample.2."),
    ("stages.0.", "encoder.0."),
    ("stages.1.", "encoder.1."),
    ("stages.2.", "encoder.2."),
    ("layers_up.0.", "decoder.0.expand."),
    ("layers_up.1.upsample.", "decoder.1.expand."),
    ("layers_up.2.upsample.", "decoder.2.expand."),
    ("sccsa3.", "decoder.0.attention."),
    ("sccsa2.", "decoder.1.attention."),
    ("sccsa1.", "decoder.2.attention."),
    ("concat_back_dim.1.", "decoder.0.reduce."),
    ("concat_back_dim.2.", "decoder.1.reduce."),
    ("concat_back_dim.3.", "decoder.2.reduce."),
    ("layers_up.1.blocks.", "decoder.0.blocks."),
    ("layers_up.2.blocks.", "decoder.1.blocks."),
    ("layers_up.3.blocks.", "decoder.2.blocks."),
    ("norm_up.", "head.norm."),
    ("up4.", "head.expand."),
    ("output.", "head.classify."),
)
BLOCK_RULES = (
    # inside a decoder block      ours
    (".attn.qkv.qkv.", ".attn.qkv."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.3.", ".mlp.fc2."),
)


def _dead_stage() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the fourth encoder stage: two VSSD blocks, built without memory for their weights."""
    with torch.device("meta"):
        block = VSSDBlock(DIMS[3], DIMS[3] // 32, "causal")
    shapes = {name: tuple(value.shape) for name, value in block.state_dict().items()}
    return {f"stages.3.{i}.{name}": shape for i in (0, 1) for name, shape in shapes.items()}


DEAD = _dead_stage()


def translate(name: str) -> str | None:
    """Our name of a released entry, given without prefix; None in the dead stage. raises: KeyError if unknown"""
    return None if name in DEAD else rename(name, RULES, BLOCK_RULES)


def released_name(name: str) -> str:
    """The released name, without prefix, of one of our entries. raises: KeyError if unknown"""
    return rename(name, ((b, a) for a, b in RULES), tuple((b, a) for a, b in BLOCK_RULES))


def rename(name: str, rules: Iterable[tuple[str, str]], block_rules: Iterable[tuple[str, str]]) -> str:
    """Replace the beginning of `name` by the first rule that fits; apply `block_rules` inside decoder blocks."""
    for old, new in rules:
        if name.startswith(old):
            local = name.removeprefix(old)
            if old.endswith(".blocks."):
                for old_local, new_local in block_rules:
                    local = local.replace(old_local, new_local)
            return new + local
    raise KeyError(name)


def is_released(checkpoint: Mapping[str, object]) -> bool:
    """Whether a checkpoint has the names of released weights; our own checkpoints do not."""
    return {"output.weight", "layers_up.0.expand.weight"} <= bare_state(checkpoint, "checkpoint").keys()


def released_num_classes(checkpoint: Mapping[str, object], source: str = "checkpoint") -> int:
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

    The SSD form becomes causal, as in the training of the released weights.

    raises: UserError, before anything is loaded, when an entry is missing, unknown, of another shape or not finite
    """
    own = model.state_dict()
    num_classes, built = released_num_classes(checkpoint, source), len(own["head.classify.weight"])
    if num_classes != built:
        raise UserError(
            f"{source}: weights of {num_classes} output channels, but the network was built with {built}; "
            f"choose a data set or --num_classes that needs {num_classes}, or a checkpoint trained for {built}"
        )
    state = bare_state(checkpoint, source)
    expected = {released_name(name): tuple(value.shape) for name, value in own.items()} | DEAD
    problems = compare(state, expected)
    if problems:
        raise UserError(
            f"{source}: differs from the published network's {len(expected)} entries:\n{problems}\n"
            "Give a released file as it was published; this project's own checkpoints need no conversion"
        )
    model.load_state_dict({translate(name): value for name, value in state.items() if name not in DEAD})
    set_ssd(model, "causal")
    total = sum(value.numel() for value in own.values())
    dead = (len(DEAD), sum(map(prod, DEAD.values())))
    return LoadSummary(
        source,
        tensors=len(own),
        values=total,
        total=total,
        left_out={"the fourth encoder stage, which the forward pass never calls": dead},
        notes=("SSD form set to causal, the one that the released weights were trained with",),
    )


def set_ssd(model: nn.Module, form: str) -> None:
    """Switch a network to another form of SSD; all forms have the same parameters."""
    model.ssd = form
    for module in model.modules():
        if isinstance(module, Mixer):
            module.ssd = SSD_FORMS[form]
