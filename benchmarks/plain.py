"""HeteroMedSeg written plainly: what the network costs when nothing is done about speed.

The same mathematics and parameter names as `models`, so that weights load strictly, in the way such networks are
usually first written: every convolution between two permutes, attention with its softmax spelled out, routed
regions gathered from an expanded view, the scan of Mamba-2 in chunks of einsums over every head.
Only the benchmarks use it, as the baseline of their ratios; it wants sides that are multiples of 32.

Maps between the layers are (B, H, W, C).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from benchmarks.plain_blocks import BRABlock, VSSDBlock, on_map

DIMS = (96, 192, 384, 768)


def down_conv(dim_in: int, dim_out: int) -> list[nn.Module]:
    return [nn.Conv2d(dim_in, dim_out, 3, stride=2, padding=1), nn.BatchNorm2d(dim_out)]


class SCSA(nn.Module):
    """in/out: (B, C, H, W)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, group = heads, dim // 4
        for name, kernel in (("local_dwc", 3), ("global_dwc_s", 5), ("global_dwc_m", 7), ("global_dwc_l", 9)):
            setattr(self, name, nn.Conv1d(group, group, kernel, padding=kernel // 2, groups=group))
        self.norm_h, self.norm_w, self.norm = nn.GroupNorm(4, dim), nn.GroupNorm(4, dim), nn.GroupNorm(1, dim)
        self.q, self.k, self.v = (nn.Conv2d(dim, dim, 1, groups=dim, bias=False) for _ in range(3))

    def lines(self, line: Tensor) -> Tensor:
        convs = (self.local_dwc, self.global_dwc_s, self.global_dwc_m, self.global_dwc_l)
        return torch.cat([conv(group) for conv, group in zip(convs, line.chunk(4, dim=1))], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm_h(self.lines(x.mean(3))).sigmoid().unsqueeze(3)
        columns = self.norm_w(self.lines(x.mean(2))).sigmoid().unsqueeze(2)
        x = x * rows * columns
        window = (min(7, x.shape[2]), min(7, x.shape[3]))
        y = self.norm(F.avg_pool2d(x, window, window))
        q, k, v = (rearrange(conv(y), "b (m c) h w -> b m c (h w)", m=self.heads) for conv in (self.q, self.k, self.v))
        y = (q @ k.transpose(2, 3) * q.shape[2] ** -0.5).softmax(-1) @ v
        return x * rearrange(y.mean(3), "b m c -> b (m c) 1 1").sigmoid()


class Expand(nn.Module):
    def __init__(self, dim: int, dim_out: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.expand, self.norm = nn.Linear(dim, dim_out * scale**2, bias=False), nn.LayerNorm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        s = self.scale
        return self.norm(rearrange(self.expand(x), "b h w (p q c) -> b (h p) (w q) c", p=s, q=s))


class DecoderStage(nn.Module):
    def __init__(self, dim: int, heads: int, topk: int, depth: int, largest_rate: float) -> None:
        super().__init__()
        self.expand, self.attention, self.reduce = (
            Expand(2 * dim, dim, 2),
            SCSA(2 * dim, heads),
            nn.Linear(2 * dim, dim),
        )
        rates = torch.linspace(0, largest_rate, depth).tolist()
        self.blocks = nn.ModuleList(BRABlock(dim, topk, rate) for rate in rates)

    def forward(self, x: Tensor, skip: Tensor, rows: int, columns: int) -> Tensor:
        x = self.reduce(on_map(self.attention, torch.cat([self.expand(x), skip], dim=-1)))
        for block in self.blocks:
            x = block(x, rows, columns)
        return x


class Head(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm, self.expand = nn.LayerNorm(dim), Expand(dim, dim, 4)
        self.classify = nn.Conv2d(dim, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(rearrange(self.expand(self.norm(x)), "b h w c -> b c h w"))


class Plain(nn.Module):
    """in: image (B, 1 or 3, H, W), sides multiples of 32; out: logits (B, num_classes, H, W)."""

    def __init__(self, num_classes: int, ssd: str = "causal", largest_rate: float = 0.2) -> None:
        super().__init__()
        rates = iter(torch.linspace(0, largest_rate, 8).tolist())
        self.stem = nn.Sequential(*down_conv(3, DIMS[0] // 2), nn.GELU(), *down_conv(DIMS[0] // 2, DIMS[0]))
        self.encoder = nn.ModuleList(
            nn.ModuleList(VSSDBlock(dim, dim // 32, ssd, next(rates)) for _ in range(2)) for dim in DIMS[:3]
        )
        self.downsample = nn.ModuleList(nn.Sequential(*down_conv(dim, 2 * dim)) for dim in DIMS[:3])
        settings = zip(DIMS[2::-1], (16, 12, 8), (8, 4, 2), (8, 2, 2))
        self.decoder = nn.ModuleList(DecoderStage(*setting, largest_rate) for setting in settings)
        self.head = Head(DIMS[0], num_classes)

    def forward(self, image: Tensor) -> Tensor:
        rows, columns = image.shape[2] // 32, image.shape[3] // 32
        x = self.stem(image.repeat(1, 3 // image.shape[1], 1, 1))
        x = rearrange(x, "b c h w -> b h w c").contiguous()
        skips = []
        for blocks, downsample in zip(self.encoder, self.downsample):
            for block in blocks:
                x = block(x)
            skips.append(x)
            x = on_map(downsample, x)
        for stage in self.decoder:
            x = stage(x, skips.pop(), rows, columns)
        return self.head(x)
