"""The encoder's block and its mixer, a Mamba-2 layer on a 2-D map (VSSD, Shi et al. 2024, arXiv 2407.18559).

Shapes: B batch, H/W map, L = H * W tokens row by row, C channels, h heads of P = 64, N = 64 state size.
Maps are (B, H, W, C).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import DepthwiseConv, Mlp, add_branch
from models.ssd import SSD_FORMS

STATE_SIZE = 64
SMALLEST_DT, LARGEST_DT = 0.001, 0.1


class Mixer(nn.Module):
    """Exchange information between all pixels of a map with the chosen form of SSD.

    gated: z goes through SiLU before it is multiplied, as in Mamba-2; the published network multiplies by z itself
    in/out: (B, H, W, C)
    """

    def __init__(self, dim: int, num_heads: int, ssd: str, gated: bool = False) -> None:
        super().__init__()
        self.gated = gated
        self.dim_inner = 2 * dim
        self.num_heads = num_heads
        self.ssd = SSD_FORMS[ssd]
        dt = torch.exp(torch.empty(num_heads).uniform_(math.log(SMALLEST_DT), math.log(LARGEST_DT))).clamp_min(1e-4)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus(dt_bias) = dt
        self.A_log = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(num_heads))
        self.in_proj = nn.Linear(dim, 2 * self.dim_inner + 2 * STATE_SIZE + num_heads, bias=False)
        self.conv2d = DepthwiseConv(self.dim_inner + 2 * STATE_SIZE, 3)
        self.norm = nn.LayerNorm(self.dim_inner)
        self.out_proj = nn.Linear(self.dim_inner, dim, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        z, xbc, dt = self.in_proj(u).split([self.dim_inner, self.dim_inner + 2 * STATE_SIZE, self.num_heads], -1)
        high = torch.promote_types(dt.dtype, torch.float32)
        dt = F.softplus(dt.flatten(1, 2).to(high) + self.dt_bias)  # (B, L, h)
        xbc = F.silu(self.conv2d(xbc)).flatten(1, 2)  # (B, L, ...)
        x, b, c = xbc.split([self.dim_inner, STATE_SIZE, STATE_SIZE], -1)
        x = x.unflatten(-1, (self.num_heads, -1))  # (B, L, h, P)
        y = self.ssd(x, dt, -self.A_log.exp(), b, c)
        # y stays float32 under float16 until the norm brings it back into range
        y = torch.addcmul(y, x.to(y.dtype), self.D.to(y.dtype).unsqueeze(-1))
        y = self.norm(y.flatten(2)).view(z.shape) * (F.silu(z) if self.gated else z)
        return self.out_proj(y)


class VSSDBlock(nn.Module):
    """Mixer and MLP with residuals, a depthwise convolution before each for the position.

    gated: see Mixer
    in/out: (B, H, W, C); keep (B, 2) factors of the two branches under stochastic depth, or None
    """

    def __init__(self, dim: int, num_heads: int, ssd: str, gated: bool = False) -> None:
        super().__init__()
        self.cpe1 = DepthwiseConv(dim, 3)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Mixer(dim, num_heads, ssd, gated)
        self.cpe2 = DepthwiseConv(dim, 3)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        keep_mixer, keep_mlp = (None, None) if keep is None else keep.unbind(1)
        x = x + self.cpe1(x)
        x = add_branch(x, self.attn(self.norm1(x)), keep_mixer)
        x = x + self.cpe2(x)
        return add_branch(x, self.mlp(self.norm2(x)), keep_mlp)
