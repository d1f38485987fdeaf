"""HeteroMedSeg's forward pass written plainly: what the network costs when nothing is done about speed.

The parameters are those of `models`; the mathematics is the same, in the way such networks are usually first written:
every convolution between two permutes, attention with its softmax spelled out, routed regions gathered from an
expanded view, Mamba-2's scan in chunks of einsums over every head. The benchmarks take it as the baseline of
their ratios, the tests hold it to the same outputs and gradients. Sides must be multiples of 32.

Shapes: B batch, H/W map, C channels, h heads, L = H * W tokens, P channels a head, N state size, R regions,
n pixels in a region, k routes. Maps between the layers are (B, H, W, C).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from models import build_model

STATE_SIZE, CHUNK = 64, 64
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class Plain(nn.Module):
    """in: image (B, 1 or 3, H, W); out: logits (B, num_classes, H, W)."""

    def __init__(self, num_classes: int, ssd: str = "causal", drop_path: float = 0.2) -> None:
        super().__init__()
        network = build_model(num_classes, ssd, drop_path)
        self.stem, self.encoder, self.downsample = network.stem, network.encoder, network.downsample
        self.decoder, self.head = network.decoder, network.head
        self.scan = {"causal": causal, "noncausal": noncausal, "bidirectional": bidirectional}[ssd]
        self.drop_rates = network.drop_rates

    def forward(self, image: Tensor) -> Tensor:
        regions = image.shape[2] // 32, image.shape[3] // 32
        drops = iter([rate if self.training else 0.0 for rate in self.drop_rates])
        x = image.repeat(1, 3 // image.shape[1], 1, 1)
        x = rearrange(plain(self.stem, x), "b c h w -> b h w c").contiguous()
        skips = []
        for blocks, downsample in zip(self.encoder, self.downsample):
            for block in blocks:
                x = vssd_block(block, x, self.scan, next(drops))
            skips.append(x)
            x = on_map(downsample, x)
        for stage in self.decoder:
            x = torch.cat([expand(stage.expand, x, 2), skips.pop()], dim=-1)
            x = stage.reduce(scsa(stage.attention, x))
            for block in stage.blocks:
                x = bra_block(block, x, *regions, next(drops))
        x = expand(self.head.expand, self.head.norm(x), 4)
        return plain(self.head.classify, rearrange(x, "b h w c -> b c h w"))


def plain(layer: nn.Module, x: Tensor) -> Tensor:
    """PyTorch's own convolution or BatchNorm, without what `models` does about their speed; (B, C, H, W)."""
    if isinstance(layer, nn.Sequential):
        for one in layer:
            x = plain(one, x)
        return x
    own = next((kind for kind in (nn.Conv2d, nn.BatchNorm2d) if isinstance(layer, kind)), type(layer))
    return own.forward(layer, x)


def on_map(layer: nn.Module, x: Tensor) -> Tensor:
    """`plain` on a map (B, H, W, C)."""
    return rearrange(plain(layer, rearrange(x, "b h w c -> b c h w").contiguous()), "b c h w -> b h w c").contiguous()


def drop_path(x: Tensor, rate: float) -> Tensor:
    if rate == 0:
        return x
    return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - rate) / (1 - rate)


def expand(layer: nn.Module, x: Tensor, scale: int) -> Tensor:
    return layer.norm(rearrange(layer.expand(x), "b h w (p q c) -> b (h p) (w q) c", p=scale, q=scale))


def scsa(layer: nn.Module, x: Tensor) -> Tensor:
    convs = (layer.local_dwc, layer.global_dwc_s, layer.global_dwc_m, layer.global_dwc_l)

    def gate(line: Tensor, norm: nn.Module) -> Tensor:
        return norm(torch.cat([conv(part) for conv, part in zip(convs, line.chunk(4, dim=1))], dim=1)).sigmoid()

    x = rearrange(x, "b h w c -> b c h w").contiguous()
    x = x * gate(x.mean(3), layer.norm_h).unsqueeze(3) * gate(x.mean(2), layer.norm_w).unsqueeze(2)
    window = (min(7, x.shape[2]), min(7, x.shape[3]))
    y = layer.norm(F.avg_pool2d(x, window, window))
    q, k, v = (
        rearrange(conv(y), "b (m c) h w -> b m c (h w)", m=layer.num_heads) for conv in (layer.q, layer.k, layer.v)
    )
    y = (q @ k.transpose(2, 3) * q.shape[2] ** -0.5).softmax(-1) @ v
    x = x * rearrange(y.mean(3), "b m c -> b (m c) 1 1").sigmoid()
    return rearrange(x, "b c h w -> b h w c").contiguous()


def vssd_block(block: nn.Module, x: Tensor, scan: Scan, rate: float) -> Tensor:
    x = x + on_map(block.cpe1, x)
    x = x + drop_path(mixer(block.attn, block.norm1(x), scan), rate)
    x = x + on_map(block.cpe2, x)
    return x + drop_path(block.mlp(block.norm2(x)), rate)


def mixer(layer: nn.Module, u: Tensor, scan: Scan) -> Tensor:
    (height, width), inner, heads = u.shape[1:3], 2 * u.shape[-1], len(layer.A_log)
    z, xbc, dt = layer.in_proj(u).split([inner, inner + 2 * STATE_SIZE, heads], dim=-1)
    dt = F.softplus(rearrange(dt, "b y x h -> b (y x) h") + layer.dt_bias)
    xbc = rearrange(F.silu(on_map(layer.conv2d, xbc)), "b y x c -> b (y x) c")
    x, b, c = xbc.split([inner, STATE_SIZE, STATE_SIZE], dim=-1)
    x = rearrange(x, "b l (h p) -> b l h p", h=heads)
    y = scan(x, dt, -layer.A_log.exp(), b, c) + layer.D.unsqueeze(-1) * x
    return layer.out_proj(layer.norm(rearrange(y, "b (y x) h p -> b y x (h p)", y=height, x=width)) * z)


def segment_sums(x: Tensor) -> Tensor:
    """(..., t) -> (..., t, t): at [i, j] the sum of x over j+1 .. i, minus infinity for j > i."""
    sums = x.cumsum(-1)
    lower = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).tril()
    return (sums.unsqueeze(-1) - sums.unsqueeze(-2)).masked_fill(~lower, -torch.inf)


def causal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The chunked scan of the Mamba-2 paper (listing 1), B and C repeated for every head; arguments as models.ssd."""
    length, heads = x.shape[1:3]
    padding = -length % CHUNK
    x, decay = F.pad(x * dt.unsqueeze(-1), (0, 0, 0, 0, 0, padding)), F.pad(dt * A, (0, 0, 0, padding))
    B, C = (repeat(F.pad(t, (0, 0, 0, padding)), "b l n -> b l h n", h=heads) for t in (B, C))
    x, B, C = (rearrange(t, "b (c q) h d -> b c q h d", q=CHUNK) for t in (x, B, C))
    decay = rearrange(decay, "b (c q) h -> b h c q", q=CHUNK)
    sums = decay.cumsum(-1)
    scores = torch.einsum("bcqhn,bcshn->bhcqs", C, B) * segment_sums(decay).exp()
    inside = torch.einsum("bhcqs,bcshp->bcqhp", scores, x)
    to_end = (sums[..., -1:] - sums).exp()
    states = torch.einsum("bcqhn,bcqhp->bchpn", B * rearrange(to_end, "b h c q -> b c q h 1"), x)
    states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
    between = segment_sums(F.pad(sums[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchpn->bzhpn", between, states)[:, :-1]
    before = torch.einsum("bcqhn,bchpn->bcqhp", C, states) * rearrange(sums.exp(), "b h c q -> b c q h 1")
    return rearrange(inside + before, "b c q h p -> b (c q) h p")[:, :length]


def noncausal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """One state of all tokens (VSSD), B and C repeated for every head."""
    B, C = (repeat(t, "b l n -> b l h n", h=x.shape[2]) for t in (B, C))
    state = torch.einsum("blhn,blhp->bhnp", B, x * (dt * -A).unsqueeze(-1))
    return torch.einsum("blhn,bhnp->blhp", C, state)


def bidirectional(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    back = causal(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1)).flip(1)
    return (causal(x, dt, A, B, C) + back) / 2


def bra_block(block: nn.Module, x: Tensor, rows: int, columns: int, rate: float) -> Tensor:
    x = block.norm1(x)
    x = x + on_map(block.pos_embed, x)
    x = x + drop_path(bra(block.attn, block.norm1(x), rows, columns), rate)
    return x + drop_path(block.mlp(block.norm2(x)), rate)


def bra(layer: nn.Module, x: Tensor, rows: int, columns: int) -> Tensor:
    """Routed attention whose regions are gathered from a view of all regions for every region, (B, R, R, n, 2C)."""
    dim = x.shape[-1]
    heads = dim // 32
    parts = rearrange(x, "b (j h) (i w) c -> b (j i) h w c", j=rows, i=columns)
    q, kv = layer.qkv(parts).split([dim, 2 * dim], dim=-1)
    height, width = q.shape[2:4]
    q_mean, k_mean = q.mean([2, 3]).detach(), kv[..., :dim].mean([2, 3]).detach()
    routes = ((q_mean * dim**-0.5) @ k_mean.transpose(1, 2)).topk(min(layer.topk, rows * columns)).indices
    q, pixels = (rearrange(t, "b r h w c -> b r (h w) c") for t in (q, kv))
    b, r, n, c = pixels.shape
    everywhere = pixels.view(b, 1, r, n, c).expand(-1, r, -1, -1, -1)
    index = routes.view(b, r, -1, 1, 1).expand(-1, -1, -1, n, c)
    k, v = everywhere.gather(2, index).split([dim, dim], dim=-1)
    q = rearrange(q, "b r n (m d) -> (b r) m n d", m=heads)
    k = rearrange(k, "b r k n (m d) -> (b r) m d (k n)", m=heads)
    v = rearrange(v, "b r k n (m d) -> (b r) m (k n) d", m=heads)
    y = ((q * dim**-0.5) @ k).softmax(-1) @ v
    y = rearrange(y, "(b j i) m (h w) d -> b (j h) (i w) (m d)", j=rows, i=columns, h=height, w=width).contiguous()
    values = rearrange(kv[..., dim:], "b (j i) h w c -> b (j h) (i w) c", j=rows, i=columns)
    return layer.wo(y + on_map(layer.lepe, values))
