"""Networks under the names of the released files."""

import torch
from torch import Tensor, nn

from models.weights.released import PREFIX, dead_stage, released_name


def to_released(model: nn.Module) -> dict[str, Tensor]:
    """The 467 entries of a released file with the weights of `model`; the stage that is never called is zeros."""
    state = {released_name(name): value.detach().clone() for name, value in model.state_dict().items()}
    state |= {name: torch.zeros(shape) for name, shape in dead_stage().items()}
    return {PREFIX + name: value for name, value in state.items()}
