"""The network's head: from the finest feature map to the logits of every input pixel.

Shapes: B batch, H/W map at stride 4, C channels, K classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.layers import PatchExpand, pixel_shuffle, to_nchw


class Head(nn.Module):
    """Normalise, expand four times, normalise each pixel and classify it.

    The last three steps work on one pixel at a time, in the largest map of the network. With W the
    classifier, g and b the second norm's weight and bias, and E the expansion with the mean of its C output
    channels taken out, a pixel's logits are

        W (g * E x / sqrt(mean((E x)^2) + eps) + b)  =  (W g E) x / sqrt(mean((E x)^2) + eps) + W b

    so that the map E x is only measured, neither normalised nor rearranged; the pixel shuffle moves K channels.

    in:  (B, H, W, C)
    out: logits (B, K, 4H, 4W)
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = PatchExpand(dim, dim, scale=4)
        self.classify = nn.Conv2d(dim, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        norm, classes = self.expand.norm, self.classify.weight.flatten(1)  # (K, C)
        with torch.autocast(x.device.type, enabled=False):
            expand = self.expand.expand.weight.unflatten(0, (-1, norm.normalized_shape[0]))  # (16, C, C)
            expand = expand - expand.mean(1, keepdim=True)
            to_logits = (classes * norm.weight) @ expand  # (16, K, C)
            offset = classes @ norm.bias
        pixels = F.linear(x, expand.flatten(0, 1)).unflatten(-1, expand.shape[:2])  # (B, H, W, 16, C)
        scale = torch.rsqrt(SumOfSquares.apply(pixels) / expand.shape[1] + norm.eps)
        logits = F.linear(x, to_logits.flatten(0, 1)).unflatten(-1, to_logits.shape[:2]) * scale.unsqueeze(-1) + offset
        return to_nchw(pixel_shuffle(logits, self.expand.scale)).contiguous()


class SumOfSquares(torch.autograd.Function):
    """Sum of squares over the last axis, without a squared copy of the input in memory; float32 or wider.

    in:  (..., C)
    out: (...)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.linalg.vector_norm(x, dim=-1).to(torch.promote_types(x.dtype, torch.float32)).square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (2 * grad).to(x.dtype).unsqueeze(-1)
