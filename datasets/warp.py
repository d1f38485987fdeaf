"""One resampling for all the spatial operations of each sample of a batch, image and mask alike.

Coordinates are pixels from the centre of the image, x to the right and y down. Angles and aspects are therefore true
on images that are not square. Matrices are (B, 2, 3): the linear part, then the translation. They are inverse: they
say where an output pixel is read. So they compose from the last operation back to the first.
Letters: B batch, C channels, H/W height and width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Warp(NamedTuple):
    """A resampling per sample: flips, then read at before(after(p) + displacement there).

    flip_x, flip_y, moved: (B,) bool; before, after: (B, 2, 3); displacement: (B, 2, h, w) in pixels, x first, on
    control points spread from edge to edge of the image. A sample that is not `moved` is only flipped, bit for bit.
    """

    flip_x: Tensor
    flip_y: Tensor
    moved: Tensor
    before: Tensor
    after: Tensor | None = None
    displacement: Tensor | None = None


def warp(images: Tensor, targets: Tensor, plan: Warp, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Resample images bilinearly and targets by the nearest pixel, once.

    Outside is 0 (air, background), or with `mirror` what lies as far inside the outermost pixel (OpenCV's reflect 101).

    in and out: images float (B, C, H, W); targets integer (B, H, W), their types kept
    """
    height, width = images.shape[-2:]
    images, targets = _flip(images, plan), _flip(targets[:, None], plan)
    grid = _read_at(plan, height, width, mirror)
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    labels = F.grid_sample(targets.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    moved = plan.moved[:, None, None, None]
    images = torch.where(moved, sampled.to(images.dtype), images)
    return images, torch.where(moved, labels.to(targets.dtype), targets)[:, 0]


def _flip(batch: Tensor, plan: Warp) -> Tensor:
    batch = torch.where(plan.flip_x[:, None, None, None], batch.flip(-1), batch)
    return torch.where(plan.flip_y[:, None, None, None], batch.flip(-2), batch)


def _read_at(plan: Warp, height: int, width: int, mirror: bool) -> Tensor:
    """Where each output pixel is read, in the units of grid_sample: (B, H, W, 2)."""
    device = plan.before.device
    x = (torch.arange(width, device=device) - (width - 1) / 2)[None, None, :]
    y = (torch.arange(height, device=device) - (height - 1) / 2)[None, :, None]
    if plan.displacement is not None:
        x, y = _apply(plan.after, x, y)
        # Control points lie on the edges, half a pixel outside the outer pixel centres: +-1 of these units.
        at = _units(x, y, height, width)
        bend = F.grid_sample(plan.displacement, at, mode="bilinear", padding_mode="border", align_corners=True)
        x, y = x + bend[:, 0], y + bend[:, 1]
    x, y = _apply(plan.before, x, y)
    if mirror:
        x, y = _mirrored(x, width), _mirrored(y, height)
    return _units(x, y, height, width)


def _mirrored(place: Tensor, length: int) -> Tensor:
    """Coordinates from the centre, mirrored about the outermost of `length` pixels until they lie between these."""
    last = length - 1
    return last / 2 - ((place + last / 2).remainder(2 * last) - last).abs() if last else torch.zeros_like(place)


def _apply(matrix: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The points (x, y) moved by each sample's matrix, each (B, H, W).

    Written out: a matrix product may run in TF32 and may round by the size of the batch.
    """
    m = matrix[:, :, :, None, None]
    return m[:, 0, 0] * x + (m[:, 0, 1] * y + m[:, 0, 2]), m[:, 1, 0] * x + (m[:, 1, 1] * y + m[:, 1, 2])


def _units(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """Pixels from the centre -> -1 to 1 from edge to edge, (B, H, W, 2)."""
    return torch.stack([x * (2 / width), y * (2 / height)], dim=-1)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Content x and y times as large; -1 mirrors."""
    return _matrix([1 / x, 0, 0], [0, 1 / y, 0])


def rotation(angle: Tensor) -> Tensor:
    """Content turned counter-clockwise as seen, by `angle` in radians."""
    return _matrix([angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0])


def shearing(angle: Tensor) -> Tensor:
    """Content below the centre pushed to the right, by `angle` in radians."""
    return _matrix([1, -angle.tan(), 0], [0, 1, 0])


def shifting(x: Tensor, y: Tensor) -> Tensor:
    """Content moved by x pixels to the right and y down."""
    return _matrix([1, 0, -x], [0, 1, -y])


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """outer(inner(p)): (B, 2, 3), (B, 2, 3) -> (B, 2, 3)."""
    product = (outer[..., :2, None] * inner[..., None, :, :]).sum(-2)
    return torch.cat([product[..., :2], product[..., 2:] + outer[..., 2:]], dim=-1)


def _matrix(*rows: list[Tensor | float]) -> Tensor:
    """Rows of tensors (B,) and of numbers that every sample shares -> (B, 2, 3)."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    full = [[e if isinstance(e, Tensor) else torch.full_like(like, e) for e in row] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in full], dim=-2)
