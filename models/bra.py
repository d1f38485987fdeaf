"""Bi-level routing attention and the decoder's block (BiFormer, Zhu et al. 2023, arXiv 2303.08810).

The map is cut into equal regions. Each region picks the `topk` regions whose mean key suits its mean
query best, and its pixels attend to all pixels of those.

Shapes: B batch, H/W map, C channels in heads of 32, G = rows * columns regions, n pixels in a region, k routes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.layers import DepthwiseConv, Mlp, add_branch

HEAD_DIM = 32


def to_regions(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, H, W, C) -> (B, G, n, C), regions and the pixels in them row by row."""
    b, h, w, c = x.shape
    x = x.reshape(b, rows, h // rows, columns, w // columns, c).transpose(2, 3)
    return x.reshape(b, rows * columns, -1, c)


def from_regions(x: Tensor, rows: int, columns: int, size: tuple[int, int]) -> Tensor:
    """(B, G, n, C) -> (B, H, W, C) with (H, W) = `size`; undoes `to_regions`."""
    h, w = size
    x = x.reshape(x.shape[0], rows, columns, h // rows, w // columns, -1).transpose(2, 3)
    return x.reshape(x.shape[0], h, w, -1)


@torch.no_grad()
def choose_routes(q: Tensor, k: Tensor, topk: int) -> Tensor:
    """The regions that each region attends to, in no order; min(topk, G) of them. No gradient, in float32.

    in:  q, k (B, G, n, C)
    out: (B, G, k) indices of regions
    """
    high = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k = q.mean(2, dtype=high), k.mean(2, dtype=high)
        affinity = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)  # (B, G, G)
    return affinity.topk(min(topk, q.shape[1]), sorted=False).indices


def gather_regions(x: Tensor, routes: Tensor) -> Tensor:
    """The routed regions' pixels of every region, one after another.

    in:  x (B, G, n, C), routes (B, G, k)
    out: (B * G, k * n, C)
    """
    b, g, _, c = x.shape
    return SelectRegions.apply(x.flatten(2), routes.flatten(1)).view(b * g, -1, c)


class SelectRegions(torch.autograd.Function):
    """Rows of x, one flat `index_select`.

    Its backward adds into a tensor of the size of `x`, where a gather from an expanded (B, G, G, n, C) view
    would fill one G times as large. The compiler would add number by number with atomic operations, tens
    of times slower on a CPU; there the same sum is a product with the matrix of who chose whom.

    in:  x (B, G, S), chosen (B, M) indices of rows
    out: (B, M, S)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: Tensor) -> Tensor:
        b, g, s = x.shape
        rows = (chosen + torch.arange(0, b * g, g, device=x.device).unsqueeze(1)).flatten()
        ctx.save_for_backward(chosen, rows)
        ctx.num_rows = g
        return x.reshape(b * g, s).index_select(0, rows).view(b, -1, s)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        chosen, rows = ctx.saved_tensors
        b, _, s = grad.shape
        if torch.compiler.is_compiling():
            all_rows = torch.arange(ctx.num_rows, device=grad.device)
            return (all_rows.unsqueeze(1) == chosen.unsqueeze(1)).to(grad.dtype) @ grad, None
        total = grad.new_zeros(b * ctx.num_rows, s)
        return total.index_add_(0, rows, grad.reshape(-1, s)).view(b, ctx.num_rows, s), None


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale * q k^T) v.

    The CPU kernel's backward in bfloat16 takes 5 times the time of the plain products on blocks this small.

    in:  q (B * G, heads, n, 32), k, v (B * G, heads, k * n, 32)
    out: (B * G, heads, n, 32)
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


class BRA(nn.Module):
    """Attention of every pixel to the pixels of its region's routes, plus a depthwise convolution of the values.

    in:  x (B, H, W, C), regions (rows, columns) that divide (H, W)
    out: (B, H, W, C)
    """

    def __init__(self, dim: int, topk: int) -> None:
        super().__init__()
        self.num_heads = dim // HEAD_DIM
        self.topk = topk
        self.qkv = nn.Linear(dim, 3 * dim)
        self.lepe = DepthwiseConv(dim, 5)
        self.wo = nn.Linear(dim, dim)

    def forward(self, x: Tensor, regions: tuple[int, int]) -> Tensor:
        size, dim = x.shape[1:3], x.shape[-1]
        x = to_regions(x, *regions)
        # three products instead of one: no slice of a wider tensor, whose backward would fill it with zeros
        q, k, v = (F.linear(x, w, b) for w, b in zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)))  # (B, G, n, C)
        routes = choose_routes(q, k, self.topk)
        heads = (self._heads(t) for t in (q.flatten(0, 1), gather_regions(k, routes), gather_regions(v, routes)))
        # the scale is that of the full width, as in BiFormer's code, not of one head
        y = attend(*heads, scale=dim**-0.5).transpose(1, 2).reshape(q.shape)
        return self.wo(from_regions(y, *regions, size) + self.lepe(from_regions(v, *regions, size)))

    def _heads(self, x: Tensor) -> Tensor:
        """(B * G, n, C) -> (B * G, heads, n, 32), the same memory."""
        return x.unflatten(-1, (self.num_heads, HEAD_DIM)).transpose(1, 2)


class BRABlock(nn.Module):
    """Position, attention and MLP; the input is normalised first and has no residual around the block.

    `norm1` is applied twice with the same weights: that is how the released network was trained.

    in/out: (B, H, W, C); regions (rows, columns); keep (B, 2) factors of the two branches, or None
    """

    def __init__(self, dim: int, topk: int) -> None:
        super().__init__()
        self.pos_embed = DepthwiseConv(dim, 3)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = BRA(dim, topk)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, regions: tuple[int, int], keep: Tensor | None = None) -> Tensor:
        keep_attention, keep_mlp = (None, None) if keep is None else keep.unbind(1)
        x = self.norm1(x)
        x = x + self.pos_embed(x)
        x = add_branch(x, lambda x: self.attn(self.norm1(x), regions), keep_attention)
        return add_branch(x, lambda x: self.mlp(self.norm2(x)), keep_mlp)
