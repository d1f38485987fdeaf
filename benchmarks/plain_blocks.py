"""The blocks of the plainly written network in `benchmarks.plain`: VSSD with Mamba-2's scan, BRA with its gather.

Shapes: B batch, H/W map, C channels, h heads, L = H * W tokens, P channels a head, N state size,
R regions, n pixels in a region, k routes. Maps between the layers are (B, H, W, C).
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

STATE_SIZE, CHUNK = 64, 64


def on_map(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer for (B, C, H, W) on a map (B, H, W, C)."""
    return rearrange(layer(rearrange(x, "b h w c -> b c h w").contiguous()), "b c h w -> b h w c").contiguous()


def depthwise(dim: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    if not training or rate == 0:
        return x
    return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - rate) / (1 - rate)


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


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


class Mixer(nn.Module):
    def __init__(self, dim: int, heads: int, ssd: str) -> None:
        super().__init__()
        self.inner, self.heads = 2 * dim, heads
        self.ssd = {"causal": causal, "noncausal": noncausal, "bidirectional": bidirectional}[ssd]
        self.dt_bias, self.A_log = nn.Parameter(torch.full((heads,), -4.0)), nn.Parameter(torch.ones(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.in_proj = nn.Linear(dim, 2 * self.inner + 2 * STATE_SIZE + heads, bias=False)
        self.conv2d = depthwise(self.inner + 2 * STATE_SIZE, 3)
        self.norm = nn.LayerNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, dim, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        height, width = u.shape[1:3]
        z, xbc, dt = self.in_proj(u).split([self.inner, self.inner + 2 * STATE_SIZE, self.heads], dim=-1)
        dt = F.softplus(rearrange(dt, "b y x h -> b (y x) h") + self.dt_bias)
        xbc = rearrange(F.silu(on_map(self.conv2d, xbc)), "b y x c -> b (y x) c")
        x, b, c = xbc.split([self.inner, STATE_SIZE, STATE_SIZE], dim=-1)
        x = rearrange(x, "b l (h p) -> b l h p", h=self.heads)
        y = self.ssd(x, dt, -self.A_log.exp(), b, c) + self.D.unsqueeze(-1) * x
        y = self.norm(rearrange(y, "b (y x) h p -> b y x (h p)", y=height, x=width)) * z
        return self.out_proj(y)


class VSSDBlock(nn.Module):
    def __init__(self, dim: int, heads: int, ssd: str, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.cpe1, self.norm1, self.attn = depthwise(dim, 3), nn.LayerNorm(dim), Mixer(dim, heads, ssd)
        self.cpe2, self.norm2, self.mlp = depthwise(dim, 3), nn.LayerNorm(dim), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + on_map(self.cpe1, x)
        x = x + drop_path(self.attn(self.norm1(x)), self.rate, self.training)
        x = x + on_map(self.cpe2, x)
        return x + drop_path(self.mlp(self.norm2(x)), self.rate, self.training)


class BRA(nn.Module):
    """Routed attention whose regions are gathered from a view of all regions for every region, (B, R, R, n, 2C)."""

    def __init__(self, dim: int, topk: int) -> None:
        super().__init__()
        self.heads, self.topk = dim // 32, topk
        self.qkv, self.lepe, self.wo = nn.Linear(dim, 3 * dim), depthwise(dim, 5), nn.Linear(dim, dim)

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        dim = x.shape[-1]
        parts = rearrange(x, "b (j h) (i w) c -> b (j i) h w c", j=rows, i=columns)
        q, kv = self.qkv(parts).split([dim, 2 * dim], dim=-1)
        height, width = q.shape[2:4]
        q_mean, k_mean = q.mean([2, 3]).detach(), kv[..., :dim].mean([2, 3]).detach()
        routes = ((q_mean * dim**-0.5) @ k_mean.transpose(1, 2)).topk(min(self.topk, rows * columns)).indices
        q, pixels = (rearrange(t, "b r h w c -> b r (h w) c") for t in (q, kv))
        b, r, n, c = pixels.shape
        everywhere = pixels.view(b, 1, r, n, c).expand(-1, r, -1, -1, -1)
        index = routes.view(b, r, -1, 1, 1).expand(-1, -1, -1, n, c)
        k, v = everywhere.gather(2, index).split([dim, dim], dim=-1)
        q = rearrange(q, "b r n (m d) -> (b r) m n d", m=self.heads)
        k = rearrange(k, "b r k n (m d) -> (b r) m d (k n)", m=self.heads)
        v = rearrange(v, "b r k n (m d) -> (b r) m (k n) d", m=self.heads)
        y = ((q * dim**-0.5) @ k).softmax(-1) @ v
        y = rearrange(y, "(b j i) m (h w) d -> b (j h) (i w) (m d)", j=rows, i=columns, h=height, w=width).contiguous()
        values = rearrange(kv[..., dim:], "b (j i) h w c -> b (j h) (i w) c", j=rows, i=columns)
        return self.wo(y + on_map(self.lepe, values))


class BRABlock(nn.Module):
    def __init__(self, dim: int, topk: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.pos_embed, self.norm1, self.attn = depthwise(dim, 3), nn.LayerNorm(dim, eps=1e-6), BRA(dim, topk)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim)

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        x = self.norm1(x)
        x = x + on_map(self.pos_embed, x)
        x = x + drop_path(self.attn(self.norm1(x), rows, columns), self.rate, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.rate, self.training)
