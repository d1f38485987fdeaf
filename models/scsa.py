"""Spatial and channel synergistic attention on the skips (SCSA, Si et al. 2024, arXiv 2407.05128).

Shapes: B batch, H/W map, C channels, h heads. Maps are (B, H, W, C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import to_nchw

POOL = 7


class SCSA(nn.Module):
    """Gate rows, columns and channels of a map.

    The rows' gate comes from the means over columns and the columns' from the means over rows, through four
    depthwise 1-D convolutions of growing width that serve both; the channels' gate from attention
    between channels on the 7x7-pooled map.

    in/out: (B, H, W, C)
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        group = dim // 4
        self.local_dwc = nn.Conv1d(group, group, 3, padding=1, groups=group)
        self.global_dwc_s = nn.Conv1d(group, group, 5, padding=2, groups=group)
        self.global_dwc_m = nn.Conv1d(group, group, 7, padding=3, groups=group)
        self.global_dwc_l = nn.Conv1d(group, group, 9, padding=4, groups=group)
        self.norm_h = nn.GroupNorm(4, dim)
        self.norm_w = nn.GroupNorm(4, dim)
        self.norm = nn.GroupNorm(1, dim)
        self.q = nn.Conv2d(dim, dim, 1, groups=dim, bias=False)
        self.k = nn.Conv2d(dim, dim, 1, groups=dim, bias=False)
        self.v = nn.Conv2d(dim, dim, 1, groups=dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self._line_gate(x.mean(2), self.norm_h)  # (B, H, C)
        columns = self._line_gate(x.mean(1), self.norm_w)  # (B, W, C)
        x = x * rows.unsqueeze(2) * columns.unsqueeze(1)
        return x * self._channel_gate(x)[:, None, None]

    def _line_gate(self, line: Tensor, norm: nn.GroupNorm) -> Tensor:
        """Means along one axis, (B, length, C), to that axis' gate of the same shape."""
        convs = (self.local_dwc, self.global_dwc_s, self.global_dwc_m, self.global_dwc_l)
        groups = line.transpose(1, 2).chunk(4, dim=1)
        line = torch.cat([conv(group) for conv, group in zip(convs, groups)], dim=1)
        return norm(line).sigmoid().transpose(1, 2)

    def _channel_gate(self, x: Tensor) -> Tensor:
        """Attention between channels on the pooled map, (B, H, W, C) to a gate (B, C).

        A side under 7 pixels is pooled whole, where the published pool would be empty.
        """
        pool = (min(POOL, x.shape[1]), min(POOL, x.shape[2]))
        pooled = self.norm(F.avg_pool2d(to_nchw(x), pool, pool)).flatten(2)  # (B, C, pixels)
        q, k, v = (
            (pooled * conv.weight.flatten(1)).unflatten(1, (self.num_heads, -1)) for conv in (self.q, self.k, self.v)
        )  # (B, h, C / h, pixels); a 1x1 depthwise convolution is a factor a channel
        y = F.scaled_dot_product_attention(q, k, v, scale=q.shape[2] ** -0.5)
        return y.mean(-1).flatten(1).sigmoid()
