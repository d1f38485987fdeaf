"""Bi-level routing attention and the decoder's block (BiFormer, Zhu et al. 2023, arXiv 2303.08810).

The map is cut into equal regions. Each region picks the `topk` regions whose mean key suits its mean
query best, and its pixels attend to all pixels of those.

Shapes: B batch, H/W map, C channels in heads of 32, G = rows * columns regions, n pixels in a region, k routes.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from models.fast import attend
from models.layers import DepthwiseConv, Mlp, add_branch

HEAD_DIM = 32


def to_regions(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, H, W, C) -> (B, G, n, C), regions and the pixels in them row by row."""
    return rearrange(x, "b (r h) (c w) d -> b (r c) (h w) d", r=rows, c=columns)


def from_regions(x: Tensor, rows: int, columns: int, size: tuple[int, int]) -> Tensor:
    """(B, G, n, C) -> (B, H, W, C) with (H, W) = `size`; undoes `to_regions`."""
    return rearrange(x, "b (r c) (h w) d -> b (r h) (c w) d", r=rows, c=columns, h=size[0] // rows)


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

    The gradient of a flat `index_select` has the size of `x`; that of a gather from an expanded (B, G, G, n, C) view
    would be G times as large.

    in:  x (B, G, n, C), routes (B, G, k)
    out: (B * G, k * n, C)
    """
    first = torch.arange(0, x.shape[0] * x.shape[1], x.shape[1], device=x.device)  # row of each sample's first region
    rows = (routes + first[:, None, None]).flatten()
    gathered = rearrange(x, "b g n c -> (b g) n c").index_select(0, rows)
    return rearrange(gathered, "(m k) n c -> m (k n) c", k=routes.shape[2])


class BRA(nn.Module):
    """Attention of every pixel to the pixels of its region's routes, plus a depthwise convolution of the values.

    scale_dim: the attention's scale is scale_dim**-0.5; the full width as in BiFormer's code if None
    in:  x (B, H, W, C), regions (rows, columns) that divide (H, W)
    out: (B, H, W, C)
    """

    def __init__(self, dim: int, topk: int, scale_dim: int | None = None) -> None:
        super().__init__()
        self.topk = topk
        self.scale = (scale_dim or dim) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.lepe = DepthwiseConv(dim, 5)
        self.wo = nn.Linear(dim, dim)

    def forward(self, x: Tensor, regions: tuple[int, int]) -> Tensor:
        size = x.shape[1:3]
        x = to_regions(x, *regions)
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, G, n, C)
        routes = choose_routes(q, k, self.topk)
        heads = (
            rearrange(t, "m n (h d) -> m h n d", d=HEAD_DIM)
            for t in (q.flatten(0, 1), gather_regions(k, routes), gather_regions(v, routes))
        )
        y = rearrange(attend(*heads, scale=self.scale), "(b g) h n d -> b g n (h d)", g=x.shape[1])
        return self.wo(from_regions(y, *regions, size) + self.lepe(from_regions(v, *regions, size)))


class BRABlock(nn.Module):
    """Position, attention and MLP; the input is normalised first and has no residual around the block.

    `norm1` is applied twice with the same weights: that is how the released network was trained.

    variant: "residual_decoder" leaves the first norm out, so that the input goes on beside the branches as in BiFormer;
        "single_norm" leaves the second out; "head_scale" scales attention by the width of a head, not of all of them
    in/out: (B, H, W, C); regions (rows, columns); keep (B, 2) factors of the two branches, or None
    """

    def __init__(self, dim: int, topk: int, variant: str = "published") -> None:
        super().__init__()
        self.variant = variant
        self.pos_embed = DepthwiseConv(dim, 3)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = BRA(dim, topk, HEAD_DIM if variant == "head_scale" else None)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, regions: tuple[int, int], keep: Tensor | None = None) -> Tensor:
        keep_attention, keep_mlp = (None, None) if keep is None else keep.unbind(1)
        x = x if self.variant == "residual_decoder" else self.norm1(x)
        x = x + self.pos_embed(x)
        normalised = x if self.variant == "single_norm" else self.norm1(x)
        x = add_branch(x, self.attn(normalised, regions), keep_attention)
        return add_branch(x, self.mlp(self.norm2(x)), keep_mlp)
