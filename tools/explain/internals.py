"""What the decoder decides on one image: the routes of bi-level routing attention and the gates of SCSA.

Hooks read both from a normal forward pass.

Shapes: H/W map, C channels, G = rows * columns regions, k routes, K classes.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models import HeteroMedSeg
from models.bra import BRA, BRABlock, choose_routes, to_regions
from models.hetero_medseg import REGION
from models.scsa import SCSA


@dataclass(frozen=True)
class Routes:
    """The regions that every region chose in one block, best first, and their affinities.

    stage, block: from 0, the coarsest stage first; stride: of the stage; regions: (rows, columns), of 32 x 32 pixels
    of the padded input; chosen, affinity: (G, k)
    """

    stage: int
    block: int
    stride: int
    regions: tuple[int, int]
    chosen: Tensor
    affinity: Tensor

    def describe(self, pixel: tuple[int, int]) -> dict[str, Any]:
        """The routes of an input pixel for explain.json. Stages and blocks count from 1; regions are (row, column)."""
        region = [place // REGION for place in pixel]
        number = region[0] * self.regions[1] + region[1]
        names = {"stage": self.stage + 1, "block": self.block + 1, "stride": self.stride}
        names |= {"regions": list(self.regions), "region": region}
        chosen = [list(divmod(other, self.regions[1])) for other in self.chosen[number].tolist()]
        return names | {"chosen": chosen, "affinity": self.affinity[number].tolist()}


@dataclass(frozen=True)
class Gates:
    """The factors of one SCSA, all in (0, 1): rows (H, 2C), columns (W, 2C), channels (2C).

    The first half of the channels comes from the coarser stage of the decoder. The second half is the skip.
    """

    stage: int
    stride: int
    rows: Tensor
    columns: Tensor
    channels: Tensor

    def describe(self) -> dict[str, Any]:
        """For explain.json: the gates of all channels, and the means over the channels of those of rows and columns."""
        coarser, skip = self.channels.chunk(2)
        lines = {"rows": self.rows.mean(1).tolist(), "columns": self.columns.mean(1).tolist()}
        channels = {"channels_from_coarser_stage": coarser.tolist(), "channels_of_skip": skip.tolist()}
        return {"stride": self.stride} | lines | channels


@torch.inference_mode()
def look_inside(model: HeteroMedSeg, image: Tensor) -> tuple[Tensor, list[Routes], list[Gates]]:
    """Logits, routes of all blocks in their order, and gates of the three skips, coarse to fine, of one image.

    A network without routing attention (--decoder conv) has no routes, one without SCSA (--skips plain) no gates.

    in:  image (1, 1 or 3, H, W); the model is in evaluation mode
    out: logits (K, H, W) and the rest, on the CPU
    """
    with recording(list(model.modules())) as seen:
        logits = model(image)[0]
    routes, gates = [], []
    for number, stage in enumerate(model.decoder):
        for block, part in enumerate(part for part in stage.blocks if isinstance(part, BRABlock)):
            x, regions = seen[part.attn][0]
            chosen, affinity = ranked_routes(part.attn, x, regions)
            routes.append(Routes(number, block, stage.stride, regions, chosen[0].cpu(), affinity[0].cpu()))
        skip = stage.attention
        if not isinstance(skip, SCSA):
            continue
        rows, columns = (seen[norm][1][0].sigmoid().T for norm in (skip.norm_h, skip.norm_w))
        (x,), out = seen[skip]
        gated = x[0] * rows[:, None] * columns[None]  # SCSA multiplies this by the gates of the channels
        channels = (gated * out[0]).sum((0, 1)) / gated.square().sum((0, 1))
        gates.append(Gates(number, stage.stride, rows.cpu(), columns.cpu(), channels.cpu()))
    return logits.cpu(), routes, gates


def ranked_routes(attention: BRA, x: Tensor, regions: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The routes that `attention` chooses for its input x (B, H, W, C), best first, and their affinities: (B, G, k)."""
    q, k, _ = attention.qkv(to_regions(x, *regions)).chunk(3, dim=-1)  # (B, G, n, C)
    chosen = choose_routes(q, k, attention.topk)
    affinity = q.mean(2) @ k.mean(2).transpose(1, 2) * q.shape[-1] ** -0.5  # (B, G, G)
    affinity, order = affinity.gather(2, chosen).sort(2, descending=True)
    return chosen.gather(2, order), affinity


@contextlib.contextmanager
def recording(modules: list[nn.Module]) -> Iterator[dict[nn.Module, tuple[tuple[Any, ...], Tensor]]]:
    """The last inputs and the last output of each module that runs while the context lasts."""
    seen: dict[nn.Module, tuple[tuple[Any, ...], Tensor]] = {}
    handles = [module.register_forward_hook(lambda *ran: seen.update({ran[0]: ran[1:]})) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
