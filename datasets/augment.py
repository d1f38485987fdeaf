"""Augmentation of whole batches on the training device.

Every sample draws its own operations; all its spatial ones become one resampling (datasets/warp.py).
Nothing here asks the device for a value, so the host never waits. Letters: B batch, C channels,
H/W height and width. Images are float in [0, 1], targets integer labels.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.warp import Warp, compose, identity, rotation, scaling, shearing, shifting, warp

# The flips and what leaves pixels where they are first, then what needs resampling.
OPERATIONS = ("flip_y", "flip_x", "noise", "blur", "scale", "rotate", "shear", "piecewise", "shift")
MAX_OPERATIONS = 4
NOISE_STD = 0.005
HOLES, HOLE_SIDE = 8, 8


class Draws:
    """Random numbers for this process's rows, `offset` to `offset + batch`, of a global batch of `total`.

    The whole global batch is drawn and cut, so that any number of processes with equally seeded
    generators augments a global batch as one process does. All results lie on the generator's device.
    """

    def __init__(self, generator: torch.Generator, batch: int, total: int | None = None, offset: int = 0) -> None:
        self.generator = generator
        self.total = batch if total is None else total
        self.rows = slice(offset, offset + batch)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape), low <= value < high."""
        numbers = torch.rand(self.total, *shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * numbers[self.rows]

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) of mean 0 and standard deviation 1."""
        return torch.randn(self.total, *shape, generator=self.generator, device=self.generator.device)[self.rows]

    def coin(self, probability: float, *shape: int) -> Tensor:
        """(B, *shape) bool, true with `probability`."""
        return self.uniform(0, 1, *shape) < probability

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64, low to high - 1."""
        return torch.randint(low, high, (self.total, *shape), generator=self.generator, device=self.generator.device)[
            self.rows
        ]

    def permutation(self, length: int) -> Tensor:
        """(B, length): the numbers 0 to length - 1 in an order of each row's own."""
        return self.uniform(0, 1, length).argsort(dim=1)


# --- Synapse -----------------------------------------------------------------------------------


class SynapseChoice(NamedTuple):
    """What each sample does: the first `count` operations of `order`, with these values.

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


def augment_synapse(images: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Between 0 and 4 of the 9 OPERATIONS, a subset and an order of each sample's own (the published recipe).

    Spatial operations are composed in the drawn order. Blur comes before their resampling and noise
    (std 0.005 in [0, 1]) after it, whatever the order: noise is then never smoothed by either.

    in and out: images (B, C, H, W), targets (B, H, W)
    """
    height, width = images.shape[-2:]
    choice = draw_synapse(draws)
    noise = draws.normal(*images.shape[1:])
    chosen = _chosen(choice)
    with torch.no_grad():
        images = torch.where(_column(chosen, "blur"), _blur(images), images)
        images, targets = warp(images, targets, synapse_warp(choice, height, width))
        return torch.where(_column(chosen, "noise"), images + (NOISE_STD * noise).to(images.dtype), images), targets


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
    nothing, one = identity(batch, device), torch.ones(batch, device=device)
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


def _blur(images: Tensor) -> Tensor:
    """Gaussian of sigma 1 over 5 x 5 pixels, the edge repeated; sums, since a convolution may run in TF32."""
    weights = [math.exp(-0.5 * distance**2) for distance in range(3)]
    centre, near, far = (weight / (weights[0] + 2 * weights[1] + 2 * weights[2]) for weight in weights)
    for dim in (-1, -2):
        padded = F.pad(images, (2, 2, 0, 0) if dim == -1 else (0, 0, 2, 2), mode="replicate")
        shifted = [padded.narrow(dim, start, images.shape[dim]) for start in range(5)]
        images = centre * shifted[2] + near * (shifted[1] + shifted[3]) + far * (shifted[0] + shifted[4])
    return images


# --- one foreground class ------------------------------------------------------------------------


def augment_binary(images: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Flips (0.25 each), rotation within 45 degrees with scale 0.9-1.1 (0.25), up to 8 holes in the image (0.5).

    in and out: images (B, C, H, W), targets (B, H, W)
    """
    plan, covered = binary_warp(draws), holes(draws, *images.shape[-2:])
    with torch.no_grad():
        images, targets = warp(images, targets, plan)
        return images * ~covered[:, None], targets


def binary_warp(draws: Draws) -> Warp:
    """Flips first, then rotation and scale about the centre together."""
    angle, scale = torch.deg2rad(draws.uniform(-45, 45)), draws.uniform(0.9, 1.1)
    before = compose(rotation(angle), scaling(scale, scale))
    return Warp(draws.coin(0.25), draws.coin(0.25), moved=draws.coin(0.25), before=before)


def holes(draws: Draws, height: int, width: int) -> Tensor:
    """(B, H, W) bool: in half of the samples 1 to 8 squares of 8 pixels, each wholly inside where it fits."""
    number = draws.integers(1, HOLES + 1) * draws.coin(0.5)
    place = draws.uniform(0, 1, 2, HOLES)
    exists = torch.arange(HOLES, device=number.device) < number[:, None]
    spans = []
    for axis, length in enumerate((height, width)):
        start = (place[:, axis] * max(length - HOLE_SIDE + 1, 1)).floor()[..., None]
        position = torch.arange(length, device=number.device)
        spans.append((position >= start) & (position < start + HOLE_SIDE) & exists[..., None])
    rows, columns = (span.float() for span in spans)  # (B, 8, H), (B, 8, W)
    return rows.transpose(1, 2) @ columns > 0
