"""`--fit slide`: an image at its own resolution, seen through overlapping windows of the network's input size.

The rules are those of MONAI's `sliding_window_inference` with mode "gaussian": windows on a regular raster, the last
one moved back to the border, logits averaged with Gaussian weights. The overlap is one half, as in nnU-Net; MONAI's own
default is a quarter. B batch, C channels, K classes, H/W the image's height and width, S/T the network's.
"""

import math
from functools import cache

import torch
from torch import Tensor

from utils.inference.forward import Forward

OVERLAP = 0.5
SIGMA = 0.125  # standard deviation of the weights, as a share of the window's side
LEAST_WEIGHT = 1e-3


def in_windows(forward: Forward, images: Tensor, size: tuple[int, int], batch_size: int) -> Tensor:
    """Logits of images that may be larger than the network's input `size`; one pass where they have that size.

    in:  (B, C, H, W), H and W at least those of `size`; batch_size: windows at a time
    out: float32 (B, K, H, W)
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return forward(images).float()
    rows, columns = (starts(length, window) for length, window in zip(images.shape[-2:], size, strict=True))
    places = [(image, top, left) for image in range(len(images)) for top in rows for left in columns]
    total = weights = None
    for begin in range(0, len(places), batch_size):
        chosen = places[begin : begin + batch_size]
        parts = [images[i, :, top : top + size[0], left : left + size[1]] for i, top, left in chosen]
        logits = forward(torch.stack(parts)).float()
        if total is None:
            total = logits.new_zeros(len(images), logits.shape[1], *images.shape[-2:])
            weights, weight = logits.new_zeros(images.shape[-2:]), gaussian(tuple(size)).to(logits.device)
        for (i, top, left), one in zip(chosen, logits):
            total[i, :, top : top + size[0], left : left + size[1]] += weight * one
    for top in rows:
        for left in columns:
            weights[top : top + size[0], left : left + size[1]] += weight
    return total / weights


def starts(length: int, window: int) -> list[int]:
    """Where windows along one side begin; the last one ends at the border."""
    step = max(1, int(window * (1 - OVERLAP)))
    number = 1 + math.ceil((length - window) / step)
    return [min(k * step, length - window) for k in range(number)]


@cache
def gaussian(size: tuple[int, int]) -> Tensor:
    """Weights (S, T) of a window: 1 in its middle, at least 0.001 at its border."""
    sides = [torch.arange(n) - (n - 1) / 2 for n in size]
    rows, columns = (torch.exp(-(x**2) / (2 * (SIGMA * n) ** 2)) for x, n in zip(sides, size))
    return (rows[:, None] * columns).clamp_min(LEAST_WEIGHT)
