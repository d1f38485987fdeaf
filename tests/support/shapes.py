"""A network for tests of inference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Shapes(nn.Module):
    """A small network with an opinion at every pixel; not symmetric under any flip."""

    def __init__(self, num_classes: int = 5, channels: int = 1, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(num_classes, channels, 5, 5, generator=generator, device="cpu")
        self.weight = nn.Parameter(weight.to(torch.get_default_device()))
        self.drop = nn.Dropout(0.5)  # a network left in training mode would give itself away

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return self.drop(F.conv2d(x, self.weight, padding=2))
