"""The state-space operator alone (SSD of Mamba-2), in three forms over the same arguments.

With a state S (P, N) a head that starts at zero, the causal form is (Dao & Gu 2024, arXiv 2405.21060)

    S_t = exp(dt_t * A) * S_{t-1} + dt_t * outer(x_t, B_t)        y_t = S_t @ C_t

Shapes: B batch, L tokens (rows of the map after one another), h heads, P channels a head, N state size.
    x (B, L, h, P)   dt (B, L, h) positive   A (h,) negative   B, C (B, L, N) shared by all heads
Inside the chunked form the tokens are (chunks c, tokens in a chunk q).

Precision: the large products run in the type of `x`, with float32 accumulation; decays and the state are
float32, or float64 if `x` is. The result has the type of `x`, but float16 is computed and returned in float32,
because sums over thousands of tokens leave float16's range.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

SHORTEST_CHUNK = 64  # the decays inside a chunk and the states between chunks weigh the same at P = N = 64


def ssd_causal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Each token sees itself and those before it; out: (B, L, h, P)."""
    x, B, C = _lift_half(x, B, C)
    if runs_mamba(x):
        return mamba_kernel()(x, dt, A, B.unsqueeze(2), C.unsqueeze(2), chunk_size=256)
    with torch.autocast(x.device.type, enabled=False):
        return _chunked(x, dt, A, B, C, both_ways=False)


def ssd_noncausal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Every token sees the sum over all of them (VSSD, Shi et al. 2024, arXiv 2407.18559); out: (B, L, h, P).

    K = sum_t outer(B_t, -A * dt_t * x_t),  y_t = C_t @ K
    """
    x, B, C = _lift_half(x, B, C)
    with torch.autocast(x.device.type, enabled=False):
        weighted = x * (-A * dt).to(x.dtype).unsqueeze(-1)
        state = B.transpose(1, 2) @ weighted.flatten(2)  # (B, N, h * P)
        return (C @ state).view(x.shape)


def ssd_bidirectional(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Mean of the causal form and of the causal form on the reversed sequence, reversed back; out: (B, L, h, P)."""
    x, B, C = _lift_half(x, B, C)
    with torch.autocast(x.device.type, enabled=False):
        return _chunked(x, dt, A, B, C, both_ways=True)


SSD_FORMS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "causal": ssd_causal,
    "noncausal": ssd_noncausal,
    "bidirectional": ssd_bidirectional,
}


def backend_name(form: str, device: torch.device | str) -> str:
    """What computes `form` on `device`, in words for the log."""
    if form == "noncausal":
        return "noncausal: two matrix products, PyTorch"
    if form == "causal" and torch.device(device).type == "cuda" and mamba_kernel() is not None:
        return "causal: mamba_ssm (chunked PyTorch inside torch.compile)"
    return f"{form}: chunked, PyTorch"


@cache
def mamba_kernel() -> Callable[..., Tensor] | None:
    """mamba_ssm's fused scan (CUDA only), or None where the package does not import."""
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return None
    return mamba_chunk_scan_combined


def runs_mamba(x: Tensor) -> bool:
    """Whether the causal form of `x` goes to mamba_ssm; torch.compile captures our own products instead."""
    return x.is_cuda and not torch.compiler.is_compiling() and mamba_kernel() is not None


def _lift_half(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Float16 tensors as float32, others as they are."""
    return tuple(t.float() if t.dtype == torch.float16 else t for t in tensors)


def chunk_length(length: int) -> int:
    """Tokens in a chunk: about the square root of `length` for long sequences, with little padding.

    In an exported network `length` is a symbol and the chunk is the shortest.
    """
    if isinstance(length, torch.SymInt):
        return SHORTEST_CHUNK
    target = max(SHORTEST_CHUNK, int(length**0.5))
    num_chunks = -(-length // target)
    return -(-length // (num_chunks * 8)) * 8


def _chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, both_ways: bool) -> Tensor:
    """One or both directions as matrix products inside chunks, and a state passed between chunks."""
    low = x.dtype
    high = torch.promote_types(low, torch.float32)
    wide = torch.float64 if x.device.type != "mps" else high
    length, heads = x.shape[1:3]
    q = chunk_length(length)
    padding = -length % q
    if isinstance(padding, torch.SymInt) or padding:  # dt = 0 neither decays nor adds
        x, dt = F.pad(x, (0, 0, 0, 0, 0, padding)), F.pad(dt, (0, 0, 0, padding))
        B, C = F.pad(B, (0, 0, 0, padding)), F.pad(C, (0, 0, 0, padding))
    x, dt, B, C = (t.unflatten(1, (-1, q)) for t in (x, dt.to(high), B, C))  # (B, c, q, ...)
    log_decay = dt.to(wide) * A.to(wide)  # (B, c, q, h)
    passed = log_decay.cumsum(2)  # from the chunk's start to behind each token

    scores = (C @ B.transpose(-1, -2)).unsqueeze(2)  # (B, c, 1, q, q)
    if both_ways:
        decay, row, column = _decays_both_ways(passed, log_decay, high)
        scores = scores * (torch.eye(q, dtype=low, device=x.device) / 2 + 0.5)  # a token sees itself both ways
    else:
        decay, row, column = _decays_causal(passed, high)
        scores = scores.tril()
    inside = (dt * column).to(low).unsqueeze(-1) * x
    y = (scores * decay.to(low)) @ inside.transpose(2, 3)  # (B, c, h, q, P)
    y = y.transpose(2, 3) * row.to(low).unsqueeze(-1)  # (B, c, q, h, P)

    if x.shape[1] > 1:
        total = passed[:, :, -1:]
        between = _decays_between(total.squeeze(2), high)
        before = passed - log_decay
        ways = [(total - passed, passed, between)]
        if both_ways:
            ways.append((before, total - before, between.transpose(-1, -2)))
        for to_edge, from_edge, between_chunks in ways:
            added = x * (dt * decayed(to_edge, high)).to(low).unsqueeze(-1)
            state = B.transpose(-1, -2) @ added.flatten(3)  # (B, c, N, h * P)
            state = rearrange(state, "b c n (h p) -> b h c (n p)", h=heads).to(high)
            state = rearrange(between_chunks @ state, "b h c (n p) -> b c n (h p)", n=B.shape[-1])
            seen = C @ state.to(low)  # (B, c, q, h * P)
            weight = decayed(from_edge, high) / len(ways)
            y = y + seen.unflatten(-1, (heads, -1)) * weight.to(low).unsqueeze(-1)
    return y.flatten(1, 2)[:, :length]


def decayed(log: Tensor, dtype: torch.dtype) -> Tensor:
    """exp of the logarithm of a decay in `dtype`, kept so large that the product of two is a normal number.

    Below that a CPU computes several times slower, and nothing is left to add anyway: 1e-19 in float32.
    """
    return log.clamp_min(math.log(torch.finfo(dtype).tiny) / 2).exp().to(dtype)


def _decays_causal(passed: Tensor, high: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Decay between the tokens of a chunk, exp(passed_i - passed_j) for i >= j, and two factors of the tokens.

    Differences of a float32 running sum would lose three digits. The sum is float64; its float32 rounding
    error `rest` is tiny, and exp(rest) moves out of the q x q decays into factors of the tokens.

    in:  passed (B, c, q, h)
    out: decay (B, c, h, q, q), 1 for i < j; factors of token i and of token j (B, c, q, h)
    """
    coarse = passed.to(high)
    rest = (passed - coarse).detach().to(high)
    rows = coarse.transpose(2, 3)
    return decayed((rows.unsqueeze(-1) - rows.unsqueeze(-2)).tril(), high), rest.exp(), (-rest).exp()


def _decays_both_ways(passed: Tensor, log_decay: Tensor, high: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Decay between the tokens of a chunk in whichever direction j comes to i.

    Forwards, the tokens j+1 .. i decay what j added; backwards, the tokens i .. j-1.

    in/out: as `_decays_causal`; the factors are 1
    """
    rows, before = passed.transpose(2, 3), (passed - log_decay).transpose(2, 3)
    forwards = rows.unsqueeze(-1) - rows.unsqueeze(-2)
    backwards = before.unsqueeze(-2) - before.unsqueeze(-1)
    one = torch.ones((1,), dtype=high, device=passed.device)
    later = torch.ones(rows.shape[-1], rows.shape[-1], dtype=torch.bool, device=rows.device).triu(1)
    return decayed(torch.where(later, backwards, forwards).to(high), high), one, one


def _decays_between(total: Tensor, high: torch.dtype) -> Tensor:
    """Decay from behind chunk j to before chunk i > j; zero for the others.

    in:  total (B, c, h), log decay over each chunk
    out: (B, h, c, c)
    """
    end = total.cumsum(1).transpose(1, 2)
    start = end - total.transpose(1, 2)
    return decayed((start.unsqueeze(-1) - end.unsqueeze(-2)).tril(-1), high).tril(-1)
