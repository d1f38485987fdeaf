"""Small layers: convolutions, BatchNorm, PatchExpand, MLP, residual branches, and the head.

Shapes: B batch, H/W height and width of a feature map, C channels, K classes. Maps inside the network
are channels-last, (B, H, W, C). Convolutions see the same memory as a (B, C, H, W) view in
PyTorch's `channels_last` format, so that going in and out of them copies nothing.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from utils.distributed import all_reduce_sum, world_size


def to_nchw(x: Tensor) -> Tensor:
    """(B, H, W, C) seen as (B, C, H, W), the same memory."""
    return x.permute(0, 3, 1, 2)


def to_nhwc(x: Tensor) -> Tensor:
    """(B, C, H, W) seen as (B, H, W, C), the same memory."""
    return x.permute(0, 2, 3, 1)


def pad_to_multiples(image: Tensor, multiple: int) -> Tensor:
    """Extend the sides of (B, C, H, W) to multiples by repeating the last row and column.

    Zeros would add an edge, and mirroring does not work on the smallest images.
    """
    height, width = image.shape[2:]
    if height % multiple == 0 and width % multiple == 0:
        return image
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")


class DepthwiseConv(nn.Conv2d):
    """One k x k filter a channel, zero padding that keeps the size.

    in/out: (B, H, W, C)
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return to_nhwc(super().forward(to_nchw(x)))


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the global batch when several processes train.

    in/out: (B, C, H, W) in `channels_last` format: PyTorch's CPU backward is wrong for a single NCHW image whose
    gradient is channels-last. A channel with a single value has no variance; it is normalised as in evaluation.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if self.training and world_size() > 1:
            return self._forward_global(x)
        batch_statistics = False if x.numel() == x.shape[1] else self.training  # bool, even of symbolic sizes
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
    return rearrange(x, "b h w (p q) c -> b (h p) (w q) c", p=scale)


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
        return pixel_shuffle(self.pixels(x), self.scale)

    def pixels(self, x: Tensor) -> Tensor:
        """The output pixels of each input pixel, not yet in their places: (B, H, W, scale * scale, C_out)."""
        return self.norm(rearrange(self.expand(x), "b h w (p c) -> b h w p c", p=self.scale**2))


class Head(nn.Module):
    """Normalise, expand four times, normalise each pixel and classify it.

    The classifier sees one pixel at a time, so it may come before the shuffle, which then moves K numbers a pixel
    and not C.

    in:  (B, H, W, C)
    out: logits (B, K, 4H, 4W), of every input pixel
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


class Mlp(nn.Module):
    """Linear, GELU, Linear on the last axis; the hidden width is three times the input's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 3 * dim)
        self.fc2 = nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def add_branch(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    """x + keep * branch, with one factor a sample for stochastic depth; x + branch if `keep` is None.

    in/out: x and branch (B, H, W, C), keep (B,)
    """
    if keep is None:
        return x + branch
    return torch.addcmul(x, branch, keep.to(branch.dtype)[:, None, None, None])


class ConvBlock(nn.Module):
    """A residual branch of two 3x3 convolutions, each followed by BatchNorm; for ablations, in place of a BRABlock.

    in/out: (B, H, W, C); regions are not needed; keep (B, 2): the second factor is the branch's, or None
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(dim, dim, 3, padding=1, bias=False) for _ in range(2))
        self.branch = nn.Sequential(first, BatchNorm(dim), nn.GELU(), second, BatchNorm(dim))

    def forward(self, x: Tensor, regions: tuple[int, int], keep: Tensor | None = None) -> Tensor:
        return add_branch(x, to_nhwc(self.branch(to_nchw(x))), None if keep is None else keep[:, 1])
