"""Stronger augmentation: brightness, contrast, low resolution and gamma as in nnU-Net, for whole batches on the device.

Ranges and probabilities are those of nnU-Net (Isensee et al. 2021; version 2, 2-D). A sample draws whether it does an
operation, each of its channels how much. Noise and blur are left to the recipes. nnU-Net multiplies images of mean 0
for brightness; here, values in [0, 1] are multiplied.
Letters: B batch, C channels, H/W height and width. Amounts are (B, C).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from datasets.augment import Draws

BRIGHTNESS, CONTRAST, GAMMA, SCALE = (0.75, 1.25), (0.75, 1.25), (0.7, 1.5), (0.5, 1.0)
# probability of each operation for a sample, in the order in which they are done
BRIGHTEN, SHARPEN, COARSEN, GAMMA_INVERTED, GAMMA_PLAIN = 0.15, 0.15, 0.25, 0.1, 0.3
COARSEN_CHANNEL = 0.5  # of the channels of a sample that is coarsened
TINY = 1e-7  # in place of the range, or the deviation, of a channel that is constant
PLANE = {"dim": (2, 3), "keepdim": True}


def augment(
    images: Tensor, targets: Tensor, generator: torch.Generator, total: int, offset: int, recipe: Callable, strong: bool
) -> tuple[Tensor, Tensor]:
    """A training batch by the operations of a recipe, such as `augment_binary`; if `strong` by those of here, too.

    total, offset: the size of the global batch and the place of the first image in it
    """
    draws = Draws(generator, len(images), total, offset)
    images, targets = recipe(images, targets, draws)
    return augment_intensities(images, draws) if strong else images, targets


@torch.no_grad()
def augment_intensities(images: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast, low resolution, gamma of the inverted image, gamma; each in a share of the samples.

    in and out: images (B, C, H, W), out in [0, 1]
    """
    channels, x = images.shape[1], images.float()
    x = torch.where(_some(draws, BRIGHTEN), x * _amount(draws, BRIGHTNESS, channels)[..., None, None], x)
    x = torch.where(_some(draws, SHARPEN), contrast(x, _amount(draws, CONTRAST, channels)), x)
    coarse = _some(draws, COARSEN) & (draws.uniform(0, 1, channels, 1, 1) < COARSEN_CHANNEL)
    x = torch.where(coarse, low_resolution(x, draws.uniform(*SCALE, channels)), x)
    x = torch.where(_some(draws, GAMMA_INVERTED), 1 - gamma(1 - x, _amount(draws, GAMMA, channels)), x)
    x = torch.where(_some(draws, GAMMA_PLAIN), gamma(x, _amount(draws, GAMMA, channels)), x)
    return x.clamp(0, 1).to(images.dtype)


def _some(draws: Draws, probability: float) -> Tensor:
    """(B, 1, 1, 1) bool"""
    return draws.coin(probability)[:, None, None, None]


def _amount(draws: Draws, bounds: tuple[float, float], channels: int) -> Tensor:
    """(B, C): in half of the cases between the lower bound and 1, else between 1 and the upper bound."""
    low, high = bounds
    below = draws.uniform(0, 1, channels) < 0.5
    return torch.where(below, draws.uniform(low, 1, channels), draws.uniform(1, high, channels))


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Distances from each channel's mean, multiplied; values stay within the channel's range."""
    mean = x.mean(**PLANE)
    return (mean + (x - mean) * factor[..., None, None]).clamp(x.amin(**PLANE), x.amax(**PLANE))


def gamma(x: Tensor, exponent: Tensor) -> Tensor:
    """Power of the values as shares of each channel's range; then mean and deviation are made what they were."""
    low = x.amin(**PLANE)
    reach = x.amax(**PLANE) - low
    y = ((x - low) / reach.clamp_min(TINY)) ** exponent[..., None, None] * reach
    deviation, changed = (values.std(**PLANE, correction=0) for values in (x, y))
    return x.mean(**PLANE) + (y - y.mean(**PLANE)) * (deviation / changed.clamp_min(TINY))


def low_resolution(x: Tensor, scale: Tensor) -> Tensor:
    """Down by `scale` to the nearest pixels and up again by linear interpolation, all channels and samples at once.

    Both are done in one step: each output pixel is a mean of pixels that the smaller image would have kept.
    """
    for dim in (2, 3):
        length = x.shape[dim]
        small = (length * scale).round().clamp_min(1)[..., None]  # (B, C, 1) pixels
        place = torch.arange(length, device=x.device)
        place = ((place + 0.5) * small / length - 0.5).clamp_min(0)  # (B, C, length), in pixels of the smaller image
        share = (place - place.floor()).unsqueeze(5 - dim)
        pixels = (torch.minimum(pixel, small - 1) for pixel in (place.floor(), place.floor() + 1))
        indices = (((pixel + 0.5) * length / small).long().unsqueeze(5 - dim).expand_as(x) for pixel in pixels)
        first, second = (x.gather(dim, index) for index in indices)
        x = first + (second - first) * share
    return x
