"""Small layers shared by the encoder and the decoder: convolutions, BatchNorm, PatchExpand, MLP, residual branches.

Shapes: B batch, H/W height and width of a feature map, C channels, K classes. Maps inside the network
are channels-last, (B, H, W, C). Convolutions see the same memory as a (B, C, H, W) view in
PyTorch's `channels_last` format, so that going in and out of them copies nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from utils.distributed import all_reduce_sum, world_size


def to_nchw(x: Tensor) -> Tensor:
    """(B, H, W, C) seen as (B, C, H, W), the same memory."""
    return x.permute(0, 3, 1, 2)


def to_nhwc(x: Tensor) -> Tensor:
    """(B, C, H, W) seen as (B, H, W, C), the same memory."""
    return x.permute(0, 2, 3, 1)


class DepthwiseConv(nn.Conv2d):
    """One k x k filter a channel, zero padding that keeps the size.

    in/out: (B, H, W, C)
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (5, 5) and x.device.type == "cpu" and torch.is_grad_enabled():
            return to_nhwc(Depthwise5OnCPU.apply(to_nchw(x), self.weight, self.bias))
        return to_nhwc(super().forward(to_nchw(x)))


class Depthwise5OnCPU(torch.autograd.Function):
    """Depthwise 5x5 convolution whose weight gradient avoids PyTorch's slow CPU kernel for that size.

    The gradients of the four 3x3 corners of the filter, which overlap in its middle row and column, come
    from the fast kernel for 3x3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=2, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        channels, height, width = x.shape[1:]
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = F.conv2d(grad, weight.to(grad.dtype).flip(2, 3), padding=2, groups=channels)
        padded = F.pad(x.to(grad.dtype), (2, 2, 2, 2))
        grad_weight = torch.empty_like(weight)
        for i in (0, 2):
            for j in (0, 2):
                part = padded[:, :, i : i + height + 2, j : j + width + 2]
                part = part.contiguous(memory_format=torch.channels_last)
                corner = conv2d_weight(part, (channels, 1, 3, 3), grad, groups=channels)
                grad_weight[:, :, i : i + 3, j : j + 3] = corner
        return grad_x.to(x.dtype), grad_weight, grad.sum((0, 2, 3), dtype=weight.dtype)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the global batch when several processes train.

    in/out: (B, C, H, W), kept in `channels_last` format: PyTorch's CPU backward is wrong for one
    NCHW image whose gradient arrives from a channels-last tensor (SPEC section 8).
    A channel with a single value has no variance; it is normalised as in evaluation.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if self.training and world_size() > 1:
            return self._forward_global(x)
        batch_statistics = self.training and x.numel() > x.shape[1]
        if batch_statistics:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, batch_statistics, self.momentum, self.eps
        )

    def _forward_global(self, x: Tensor) -> Tensor:
        # sums of squares lose digits where the mean is large, so they are taken around the running mean
        values = x.to(self.running_mean.dtype) - self.running_mean[:, None, None]
        count = values.new_full((1,), values.numel() // self.num_features)
        local = torch.cat([count, values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        count, mean, square = all_reduce_sum(local).split([1, self.num_features, self.num_features])
        mean = mean / count
        var = (square / count - mean.square()).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.add_(mean, alpha=self.momentum)
            self.running_var.lerp_(var * count / (count - 1).clamp_min(1), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def down_conv(dim_in: int, dim_out: int) -> list[nn.Module]:
    """Halve the resolution: Conv 3x3 stride 2, BatchNorm; (B, C, H, W) -> (B, C_out, H/2, W/2)."""
    return [nn.Conv2d(dim_in, dim_out, 3, stride=2, padding=1), BatchNorm(dim_out)]


def pixel_shuffle(x: Tensor, scale: int) -> Tensor:
    """(B, H, W, scale * scale, C) -> (B, H * scale, W * scale, C), block p1 * scale + p2 to pixel (p1, p2)."""
    b, h, w, _, c = x.shape
    x = x.view(b, h, w, scale, scale, c).transpose(2, 3)
    return x.reshape(b, h * scale, w * scale, c)


class PatchExpand(nn.Module):
    """Upsample by `scale` with a linear layer and a pixel shuffle.

    The norm acts on each output pixel alone, so it may come before the shuffle.

    in:  (B, H, W, C)
    out: (B, H * scale, W * scale, C_out)
    """

    def __init__(self, dim: int, dim_out: int, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, dim_out * scale**2, bias=False)
        self.norm = nn.LayerNorm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.expand(x).unflatten(-1, (self.scale**2, -1)))
        return pixel_shuffle(x, self.scale)


class Mlp(nn.Module):
    """Linear, GELU, Linear on the last axis; the hidden width is three times the input's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 3 * dim)
        self.fc2 = nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def add_branch(x: Tensor, branch: Callable[[Tensor], Tensor], keep: Tensor | None) -> Tensor:
    """x + keep * branch(x), with one factor a sample (stochastic depth); `keep` None adds the branch whole.

    The factors are zero or all the same. On a CPU the branch is computed only for the samples that keep it
    (a GPU would have to wait for their number); for all where none does, so that its weights have a gradient.

    in/out: x (B, H, W, C), keep (B,); branch: any number of samples to as many
    """
    if keep is None:
        return x + branch(x)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        kept = keep.nonzero().flatten()
        if 0 < len(kept) < len(keep):
            return x.index_add(0, kept, branch(x[kept]).to(x.dtype), alpha=keep[kept[0]].item())
    y = branch(x)
    return torch.addcmul(x, y, keep.to(y.dtype)[:, None, None, None])
