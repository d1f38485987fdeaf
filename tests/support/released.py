"""Networks under the names of the released files."""

import torch
from torch import Tensor, nn

from models.weights.released import DEAD, PREFIX, released_name


def to_released(model: nn.Module) -> dict[str, Tensor]:
    """The 467 entries of a released file with the weights of `model`; the stage that is never called is zeros."""
    state = {released_name(name): value.detach().clone() for name, value in model.state_dict().items()}
    return {PREFIX + name: value for name, value in (state | {n: torch.zeros(s) for n, s in DEAD.items()}).items()}
