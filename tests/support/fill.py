"""Golden inputs and networks filled with golden weights.

The figures in tests/golden were computed with every tensor drawn from a seed made of its released name.
"""

import zlib
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from models.hetero_medseg import HeteroMedSeg
from models.weights.released import PREFIX, released_name
from tests.support.golden_weights import golden_tensor
from tests.support.manifests import quick_model
from tests.support.places import SHARED

REFERENCE = SHARED / "reference"


def golden_image(tag: str, shape: tuple[int, int, int, int]) -> Tensor:
    """A sum of six plane waves a channel with a little noise, about [-1, 1]; float32 (B, C, H, W)."""
    rng = np.random.default_rng(zlib.crc32(tag.encode()))
    height, width = shape[2:]
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    planes = []
    for _ in range(shape[0] * shape[1]):
        frequency, phase = rng.uniform(1, 9, (6, 2)), rng.uniform(0, 2 * np.pi, 6)
        height_of = rng.uniform(0.1, 0.5, 6)
        angles = 2 * np.pi * (frequency[:, :1, None] * rows + frequency[:, 1:, None] * columns) + phase[:, None, None]
        planes.append((height_of[:, None, None] * np.sin(angles)).sum(0))
    image = np.stack(planes).reshape(shape) + 0.05 * rng.standard_normal(shape)
    return torch.from_numpy(image.astype(np.float32))


def fill_module(module: nn.Module, prefix: str, renamed: dict[str, str] | None = None) -> nn.Module:
    """Golden weights for a module alone; `renamed` maps our local names to released ones where they differ."""
    renamed = renamed or {}
    state = module.state_dict()
    state = {k: golden_tensor(f"{prefix}.{renamed.get(k, k)}", tuple(v.shape)) for k, v in state.items()}
    module.load_state_dict(state)
    return module.eval()


@cache
def _golden_state(num_classes: int) -> dict[str, Tensor]:
    """Drawn once: the forms of the state-space operator have the same weights."""
    shapes = {name: tuple(value.shape) for name, value in quick_model(num_classes).state_dict().items()}
    return {name: golden_tensor(PREFIX + released_name(name), shape) for name, shape in shapes.items()}


def golden_network(num_classes: int, ssd: str) -> HeteroMedSeg:
    """The network with golden weights, in evaluation mode."""
    model = quick_model(num_classes, ssd)
    model.load_state_dict(_golden_state(num_classes))
    return model.eval()
