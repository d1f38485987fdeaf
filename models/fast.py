"""Code that exists only to save time or memory on some device; the plain form of each function stands in its docstring.

Shapes: B batch, H/W map, C channels.
"""

from collections.abc import Callable
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Pixels of a map that `recomputed` takes together: a GPU needs many to be fast, a CPU does not.
PIXELS_AT_ONCE = {"cpu": 2 * 56**2, "cuda": 64 * 56**2}


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale * q k^T) v. Plain form: F.scaled_dot_product_attention(q, k, v, scale=scale).

    For bfloat16 on a CPU, the backward pass of that kernel is 5 times slower than that of two matrix products, and a
    training step a sixth slower.

    in:  q (B, heads, n, d), k, v (B, heads, m, d)
    out: (B, heads, n, d)
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def recomputed(part: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """part(*inputs), computed again in the backward pass to save memory. Plain form: part(*inputs).

    It takes a few images at a time: only what these need is in memory at once.

    part: mixes no images and changes no state, so it holds no BatchNorm
    inputs: tensors whose first axis is the batch, and anything that is the same for all images
    """
    count = images_at_once(*(x for x in inputs if torch.is_tensor(x)))
    pieces = zip(*(x.split(count) if torch.is_tensor(x) else repeat(x) for x in inputs))
    done = [checkpoint(part, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    return torch.cat(done) if len(done) > 1 else done[0]


def images_at_once(*inputs: Tensor) -> int:
    """How many images `recomputed` takes at a time.

    inputs: tensors whose first axis is the batch; at least one is a map (B, H, W, C)
    """
    if torch.compiler.is_compiling():
        return len(inputs[0])  # a compiled graph would hold every piece
    pixels = max(x.shape[1] * x.shape[2] for x in inputs if x.dim() == 4)
    return max(1, PIXELS_AT_ONCE.get(inputs[0].device.type, PIXELS_AT_ONCE["cuda"]) // pixels)
