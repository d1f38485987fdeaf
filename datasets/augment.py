"""Augmentation of whole batches on the training device.

Every sample draws its own operations; all its spatial ones become one resampling (datasets/warp.py).
Nothing here asks the device for a value, so the host never waits. Letters: B batch, C channels,
H/W height and width. Images are float in [0, 1], targets integer labels.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.warp import Warp, compose, rotation, scaling, shearing, shifting, warp
from utils.preprocess.sizes import spline_matrix

# The flips and what leaves pixels where they are first, then what needs resampling.
OPERATIONS = ("flip_y", "flip_x", "noise", "blur", "scale", "rotate", "shear", "piecewise", "shift")
MAX_OPERATIONS = 4
NOISE_STD, BLUR_SIGMA = 0.005, 1.0  # in slices of their own size
HOLES, HOLE_SIDE = 8, 8


class Draws:
    """Random numbers for this process's rows, `offset` to `offset + batch`, of a global batch of `total`.

    Every process draws the whole global batch and keeps its rows. So several processes with equally seeded
    generators augment a global batch as one process does. All results lie on the generator's device.
    """

    def __init__(self, generator: torch.Generator, batch: int, total: int | None = None, offset: int = 0) -> None:
        self.total = batch if total is None else total
        self.rows = slice(offset, offset + batch)
        self.where = {"generator": generator, "device": generator.device}

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape), low <= value < high."""
        return low + (high - low) * torch.rand(self.total, *shape, **self.where)[self.rows]

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) of mean 0 and standard deviation 1."""
        return torch.randn(self.total, *shape, **self.where)[self.rows]

    def coin(self, probability: float) -> Tensor:
        """(B,) bool, true with `probability`."""
        return self.uniform(0, 1) < probability

    def integers(self, low: int, high: int) -> Tensor:
        """(B,) int64, low to high - 1."""
        return torch.randint(low, high, (self.total,), **self.where)[self.rows]

    def permutation(self, length: int) -> Tensor:
        """(B, length): the numbers 0 to length - 1, each row in another order."""
        return self.uniform(0, 1, length).argsort(dim=1)


class SynapseChoice(NamedTuple):
    """Each sample does the first `count` operations of its `order`, with these values.

    order: (B, 9) indices into OPERATIONS; count, mirror_x, mirror_y, angle, shear: (B,); scale, shift: (B, 2), x first,
    the shift as a share of the side; control: (B, 2, 4, 4), the displacement of control points likewise.
    """

    order: Tensor
    count: Tensor
    mirror_x: Tensor
    mirror_y: Tensor
    scale: Tensor
    angle: Tensor
    shear: Tensor
    control: Tensor
    shift: Tensor


def augment_synapse(images: Tensor, targets: Tensor, draws: Draws, native: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Apply 0 to 4 of the 9 OPERATIONS to each sample, drawn with their order (the published recipe).

    Spatial operations are composed in the drawn order. Blur always comes before their resampling and noise after it,
    so that neither smooths the noise.

    in and out: images (B, C, H, W), targets (B, H, W)
    native: the slices' own size. The published blur (sigma 1 pixel) and noise (std 0.005 in [0, 1]) act there, before
        the slices are resized; both are scaled to what resizing leaves of them
    """
    height, width = images.shape[-2:]
    choice = draw_synapse(draws)
    chosen = _chosen(choice)
    noise = noise_std(native, (height, width)) * draws.normal(*images.shape[1:])
    sigmas = [BLUR_SIGMA * size / own for size, own in zip((height, width), native)]
    with torch.no_grad():
        images = torch.where(_column(chosen, "blur"), _blur(images, sigmas), images)
        images, targets = warp(images, targets, synapse_warp(choice, height, width))
        return torch.where(_column(chosen, "noise"), images + noise.to(images.dtype), images), targets


@cache
def noise_std(native: tuple[int, int], size: tuple[int, int]) -> float:
    """Standard deviation of the published noise after the cubic spline from `native` to `size`: 0.0044 from 512 to 224.

    The spline interpolates and does not average, so the noise loses little.
    """
    rows = (spline_matrix(n, m) if n != m else np.eye(n) for n, m in zip(native, size))
    return NOISE_STD * math.prod(math.sqrt((matrix.astype(np.float64) ** 2).sum(1).mean()) for matrix in rows)


def draw_synapse(draws: Draws) -> SynapseChoice:
    """The published ranges: scale 0.5-2, rotate 40 and shear 16 degrees, piecewise 0.008-0.03, shift 20 %."""
    return SynapseChoice(
        order=draws.permutation(len(OPERATIONS)),
        count=draws.integers(0, MAX_OPERATIONS + 1),
        mirror_x=draws.coin(0.5),
        mirror_y=draws.coin(0.5),
        scale=draws.uniform(0.5, 2, 2),
        angle=torch.deg2rad(draws.uniform(-40, 40)),
        shear=torch.deg2rad(draws.uniform(-16, 16)),
        control=draws.uniform(0.008, 0.03, 1, 1, 1) * draws.normal(2, 4, 4),
        shift=draws.uniform(-0.2, 0.2, 2),
    )


def synapse_warp(choice: SynapseChoice, height: int, width: int) -> Warp:
    """The spatial operations of each sample, in its order, as one resampling."""
    batch, device = len(choice.count), choice.count.device
    chosen = _chosen(choice)
    flip_x = chosen[:, OPERATIONS.index("flip_x")] & choice.mirror_x
    flip_y = chosen[:, OPERATIONS.index("flip_y")] & choice.mirror_y
    nothing, one = torch.eye(2, 3, device=device).repeat(batch, 1, 1), torch.ones(batch, device=device)
    mirror_x, mirror_y = (one - 2 * flip.float() for flip in (flip_x, flip_y))
    matrices = {
        "flip_x": scaling(mirror_x, one),
        "flip_y": scaling(one, mirror_y),
        "scale": scaling(*choice.scale.unbind(1)),
        "rotate": rotation(choice.angle),
        "shear": shearing(choice.shear),
        "shift": shifting(choice.shift[:, 0] * width, choice.shift[:, 1] * height),
    }
    table = torch.stack([matrices.get(name, nothing) for name in OPERATIONS], dim=1)  # (B, 9, 2, 3)
    place = choice.order.argsort(dim=1)[:, OPERATIONS.index("piecewise")]
    # The image is flipped exactly before it is sampled, so the flips are undone in what is read.
    before, after = scaling(mirror_x, mirror_y), nothing
    for step in range(MAX_OPERATIONS):
        index = choice.order[:, step, None, None, None].expand(-1, 1, 2, 3)
        matrix = torch.where((step < choice.count)[:, None, None], table.gather(1, index)[:, 0], nothing)
        before = torch.where((step < place)[:, None, None], compose(before, matrix), before)
        after = torch.where((step > place)[:, None, None], compose(after, matrix), after)
    pixels = torch.stack([choice.control[:, 0] * width, choice.control[:, 1] * height], dim=1)
    displacement = pixels * _column(chosen, "piecewise")
    moved = chosen[:, OPERATIONS.index("scale") :].any(dim=1)
    return Warp(flip_x, flip_y, moved, before, after, displacement)


def _chosen(choice: SynapseChoice) -> Tensor:
    """(B, 9) bool: which operations each sample does."""
    return choice.order.argsort(dim=1) < choice.count[:, None]


def _column(chosen: Tensor, name: str) -> Tensor:
    return chosen[:, OPERATIONS.index(name), None, None, None]


def _blur(images: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Gaussian blur, cut off at two sigmas; edges are repeated. Weighted sums, since a convolution may run in TF32.

    sigmas: of rows and of columns, in pixels. Up to half a pixel, samples of a Gaussian have too little spread; three
        weights of the right variance take their place.
    """
    for dim, sigma in zip((-2, -1), sigmas):
        reach = math.ceil(2 * sigma)
        weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(-reach, reach + 1)]
        if reach == 1:
            weights = [sigma**2 / 2, 1 - sigma**2, sigma**2 / 2]
        padded = F.pad(images, (reach, reach, 0, 0) if dim == -1 else (0, 0, reach, reach), mode="replicate")
        shifted = (padded.narrow(dim, start, images.shape[dim]) for start in range(len(weights)))
        images = sum(weight / sum(weights) * part for weight, part in zip(weights, shifted))
    return images


def augment_binary(images: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Flips (0.25 each), rotation within 45 degrees with scale 0.9-1.1 (0.25), 8 holes in the image (0.5).

    Outside the border, rotation mirrors image and mask about the outermost pixels.
    in and out: images (B, C, H, W), targets (B, H, W)
    """
    plan, covered = binary_warp(draws), holes(draws, *images.shape[-2:])
    with torch.no_grad():
        images, targets = warp(images, targets, plan, mirror=True)
        return images * ~covered[:, None], targets


def binary_warp(draws: Draws) -> Warp:
    """Flips first, then rotation and scale about the centre together."""
    angle, scale = torch.deg2rad(draws.uniform(-45, 45)), draws.uniform(0.9, 1.1)
    before = compose(rotation(angle), scaling(scale, scale))
    return Warp(draws.coin(0.25), draws.coin(0.25), moved=draws.coin(0.25), before=before)


def holes(draws: Draws, height: int, width: int) -> Tensor:
    """(B, H, W) bool: in half of the samples 8 squares of 8 pixels, each wholly inside where it fits."""
    exists = draws.coin(0.5)[:, None, None]
    place = draws.uniform(0, 1, 2, HOLES)
    spans = []
    for axis, length in enumerate((height, width)):
        start = (place[:, axis] * max(length - HOLE_SIDE + 1, 1)).floor()[..., None]
        position = torch.arange(length, device=place.device)
        spans.append((position >= start) & (position < start + HOLE_SIDE) & exists)
    rows, columns = (span.float() for span in spans)  # (B, 8, H), (B, 8, W)
    return rows.transpose(1, 2) @ columns > 0
