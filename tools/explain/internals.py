"""What happens inside the decoder on one image: the routes of bi-level routing attention, the gates of SCSA.

Both are read from a normal forward pass by hooks; the network knows nothing of it.

Shapes: H/W map, C channels, G = rows * columns regions, k routes, K classes.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models import HeteroMedSeg
from models.bra import BRA, choose_routes, to_regions
from models.hetero_medseg import REGION


@dataclass(frozen=True)
class Routes:
    """The regions chosen by every region in one block: `chosen` (G, k), best first, `affinity` (G, k) theirs.

    stage counts from the coarsest, block in it, both from 0; a region is 32 x 32 pixels of the padded input
    """

    stage: int
    block: int
    stride: int
    regions: tuple[int, int]
    chosen: Tensor
    affinity: Tensor

    def of_pixel(self, pixel: tuple[int, int]) -> tuple[int, list[int], list[float]]:
        """Region that holds an input pixel (row, column), the regions it chose, and their affinities."""
        region = pixel[0] // REGION * self.regions[1] + pixel[1] // REGION
        return region, self.chosen[region].tolist(), self.affinity[region].tolist()


@dataclass(frozen=True)
class Gates:
    """Factors of one SCSA, all in (0, 1): rows (H, 2C), columns (W, 2C), channels (2C).

    The first half of the channels comes from the decoder's coarser stage, the second half is the skip.
    """

    stage: int
    stride: int
    rows: Tensor
    columns: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Inside:
    """logits (K, H, W) of the image, routes of all blocks in their order, gates of the three skips, coarse to fine"""

    logits: Tensor
    routes: list[Routes]
    gates: list[Gates]


@torch.inference_mode()
def look_inside(model: HeteroMedSeg, image: Tensor) -> Inside:
    """Run `model`, in evaluation mode, on one image (1, 1 or 3, H, W), and keep what its decoder decided."""
    watched = {}
    for stage, part in enumerate(model.decoder):
        watched[part.attention] = ("gate", stage)
        watched |= dict.fromkeys((part.attention.norm_h, part.attention.norm_w), ("line", stage))
        watched |= {block.attn: ("route", stage, number) for number, block in enumerate(part.blocks)}
    with recording(list(watched)) as seen:
        logits = model(image)[0]
    routes, gates = [], []
    for module, key in watched.items():
        stride = model.decoder[key[1]].stride
        if key[0] == "route":
            x, regions = seen[module][0]
            chosen, affinity = ranked_routes(module, x, regions)
            routes.append(Routes(key[1], key[2], stride, regions, chosen[0].cpu(), affinity[0].cpu()))
        elif key[0] == "gate":
            lines = [seen[norm][1][0].sigmoid().T for norm in (module.norm_h, module.norm_w)]
            (x,), out = seen[module]
            parts = (*lines, channel_factors(x[0], out[0], *lines))
            gates.append(Gates(key[1], stride, *(part.cpu() for part in parts)))
    return Inside(logits.cpu(), routes, gates)


def ranked_routes(attention: BRA, x: Tensor, regions: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The routes that `attention` chooses for its input x (B, H, W, C), best first, and their affinities: (B, G, k)."""
    q, k, _ = attention.qkv(to_regions(x, *regions)).chunk(3, dim=-1)  # (B, G, n, C)
    chosen = choose_routes(q, k, attention.topk)
    affinity = q.mean(2) @ k.mean(2).transpose(1, 2) * q.shape[-1] ** -0.5  # (B, G, G)
    affinity, order = affinity.gather(2, chosen).sort(2, descending=True)
    return chosen.gather(2, order), affinity


def channel_factors(x: Tensor, out: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The one factor a channel between the map gated along its lines and SCSA's output, both (H, W, C); out: (C,)"""
    gated = x * rows[:, None] * columns[None]
    return (gated * out).sum((0, 1)) / gated.square().sum((0, 1))


@contextlib.contextmanager
def recording(modules: list[nn.Module]) -> Iterator[dict[nn.Module, tuple[tuple[Any, ...], Tensor]]]:
    """While the context lasts, the last inputs and output of each module that ran."""
    seen: dict[nn.Module, tuple[tuple[Any, ...], Tensor]] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        seen[module] = (inputs, out)

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def predicted_pixel(logits: Tensor) -> tuple[tuple[int, int], bool]:
    """The predicted foreground pixel that is nearest to the foreground's centre of mass, and True.

    Without any foreground it is the middle of the image, and False. in: (K, H, W)
    """
    foreground = labels_of(logits) > 0
    if not foreground.any():
        return (logits.shape[1] // 2, logits.shape[2] // 2), False
    places = foreground.nonzero().double()
    nearest = (places - places.mean(0)).square().sum(1).argmin()
    row, column = places[nearest].long().tolist()
    return (row, column), True


def labels_of(logits: Tensor) -> Tensor:
    """Labels (H, W) of logits (K, H, W), where K = 1 is one class against the background."""
    return (logits[0] > 0).long() if len(logits) == 1 else logits.argmax(0)
