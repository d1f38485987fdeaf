"""The network's head: from the finest feature map to the logits of every input pixel.

Shapes: B batch, H/W map at stride 4, C channels, K classes.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import PatchExpand, pixel_shuffle, to_nchw


class Head(nn.Module):
    """Normalise, expand four times, normalise each pixel and classify it.

    The classifier sees one pixel at a time, so it may come before the shuffle, which then moves K numbers a pixel
    and not C.

    in:  (B, H, W, C)
    out: logits (B, K, 4H, 4W)
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = PatchExpand(dim, dim, scale=4)
        self.classify = nn.Conv2d(dim, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.expand.pixels(self.norm(x))  # (B, H, W, 16, C)
        logits = F.linear(pixels, self.classify.weight.flatten(1))
        return to_nchw(pixel_shuffle(logits, self.expand.scale)).contiguous()
