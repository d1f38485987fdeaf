"""The state-space operator alone (SSD of Mamba-2), in three forms over the same arguments.

With a state S (P, N) a head that starts at zero, the causal form is (Dao & Gu 2024, arXiv 2405.21060)

    S_t = exp(dt_t * A) * S_{t-1} + dt_t * outer(x_t, B_t)        y_t = S_t @ C_t

Shapes: B batch, L tokens (rows of the map after one another), h heads, P channels a head, N state size.
    x (B, L, h, P)   dt (B, L, h) positive   A (h,) negative   B, C (B, L, N) shared by all heads
Inside the chunked form the tokens are (chunks c, tokens in a chunk q).

Precision: the large products run in the type of `x`, with float32 accumulation (float16 is
lifted to float32, whose range the sums need); decays and the state are float32, or float64 if `x` is.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST_CHUNK = 64  # the decays inside a chunk and the states between chunks weigh the same at P = N = 64


def ssd_causal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Each token sees itself and those before it; out: (B, L, h, P)."""
    kernel = mamba_kernel() if x.is_cuda and not torch.compiler.is_compiling() else None
    if kernel is not None:
        return kernel(x, dt, A, B.unsqueeze(2), C.unsqueeze(2), chunk_size=256)
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


def _lift_half(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Float16 tensors as float32: a sum over thousands of tokens leaves float16's range."""
    return tuple(t.float() if t.dtype == torch.float16 else t for t in tensors)


def _chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, both_ways: bool) -> Tensor:
    """One or both directions as matrix products inside chunks, and a state passed between chunks."""
    x, B, C = _lift_half(x, B, C)
    with torch.autocast(x.device.type, enabled=False):
        return _chunked_products(x, dt, A, B, C, both_ways)


def chunk_length(length: int) -> int:
    """Tokens in a chunk: about the square root of `length` for long sequences, with little padding."""
    target = max(SHORTEST_CHUNK, int(length**0.5))
    num_chunks = -(-length // target)
    return -(-length // (num_chunks * 8)) * 8


def _chunked_products(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, both_ways: bool) -> Tensor:
    low = x.dtype
    high = torch.promote_types(low, torch.float32)
    length, heads = x.shape[1:3]
    q = chunk_length(length)
    padding = -length % q
    if padding:  # dt = 0 neither decays nor adds
        x, dt = F.pad(x, (0, 0, 0, 0, 0, padding)), F.pad(dt, (0, 0, 0, padding))
        B, C = F.pad(B, (0, 0, 0, padding)), F.pad(C, (0, 0, 0, padding))
    x, dt, B, C = (t.unflatten(1, (-1, q)) for t in (x, dt.to(high), B, C))  # (B, c, q, ...)

    # Differences of a float32 running sum would cost three digits: the sum is float64, its float32 rounding
    # error `rest` is tiny, and exp(rest) moves out of the q x q decays into factors of the tokens.
    wide = torch.float64 if x.device.type != "mps" else high
    log_decay = dt.to(wide) * A.to(wide)  # (B, c, q, h)
    passed = log_decay.cumsum(2)
    coarse = passed.to(high)
    rest = (passed - coarse).detach().to(high)
    rows = coarse.transpose(2, 3)  # (B, c, h, q)
    decay = (rows.unsqueeze(-1) - rows.unsqueeze(-2)).clamp(max=0).exp()  # token j seen from i >= j
    scores = (C @ B.transpose(-1, -2)).tril().unsqueeze(2)  # (B, c, 1, q, q)
    inside = (dt * torch.exp(-rest)).to(low).unsqueeze(-1) * x
    y = (scores * decay.to(low)) @ inside.transpose(2, 3)  # (B, c, h, q, P)
    y = y.transpose(2, 3) * rest.exp().to(low).unsqueeze(-1)

    if x.shape[1] > 1:
        total = passed[:, :, -1:]
        to_end = (dt * (total - passed).to(high).exp()).to(low)
        state = B.transpose(-1, -2) @ (x * to_end.unsqueeze(-1)).flatten(3)  # (B, c, N, h * P)
        state = _pass_states(state.unflatten(-1, (heads, -1)).to(high), total.squeeze(2))
        seen = C @ state.to(low).flatten(3)
        y = y + seen.unflatten(-1, (heads, -1)) * passed.to(high).exp().to(low).unsqueeze(-1)
    y = y.flatten(1, 2)[:, :length]
    if both_ways:
        back = (t.flatten(1, 2)[:, :length].flip(1) for t in (x, dt, B, C))
        x, dt, B, C = back
        y = (y + _chunked_products(x, dt, A, B, C, False).flip(1)) / 2
    return y


def _pass_states(state: Tensor, total: Tensor) -> Tensor:
    """What each chunk receives from all chunks before it.

    in:  state (B, c, N, h, P) that each chunk adds, total (B, c, h) log decay over a chunk
    out: (B, c, N, h, P) before the chunk's first token
    """
    end = total.cumsum(1).transpose(1, 2)  # (B, h, c)
    start = end - total.transpose(1, 2)
    num_chunks = end.shape[-1]
    earlier = torch.ones(num_chunks, num_chunks, dtype=torch.bool, device=end.device).tril(-1)
    decay = (start.unsqueeze(-1) - end.unsqueeze(-2)).masked_fill(~earlier, -torch.inf).to(state.dtype).exp()
    rows = state.permute(0, 3, 1, 2, 4)  # (B, h, c, N, P)
    return (decay @ rows.flatten(3)).view(rows.shape).permute(0, 2, 3, 1, 4)
