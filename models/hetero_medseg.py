"""HeteroMedSeg, the whole network from top to bottom.

Shapes: B batch, H/W height and width of the image or of the map at hand, C channels, K classes.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bra import HEAD_DIM, BRABlock
from models.fast import recomputed
from models.layers import ConvBlock, Head, PatchExpand, down_conv, pad_to_multiples, to_nchw, to_nhwc
from models.scsa import SCSA
from models.vssd import VSSDBlock
from utils.config import FIELDS
from utils.errors import UserError

WIDTH = 96  # channels at stride 4; each halving of the resolution doubles them
TOPK = (8, 4, 2)  # routes of a region in the decoder, coarse to fine
SKIP_HEADS = (16, 12, 8)  # of the skips' channel attention, coarse to fine
IN_BRA = ("residual_decoder", "single_norm", "head_scale")  # variants that change BRABlock
REGION = 32  # side of an attention region in input pixels; inputs are padded to multiples of it


class HeteroMedSeg(nn.Module):
    """Segment 2-D medical images: a state-space encoder, attention-gated skips, a routing-attention decoder.

    The stem halves the image twice. Three encoder stages of VSSD blocks work at strides 4, 8 and 16,
    each followed by a strided convolution; their outputs are the skips. From stride 32 the decoder climbs
    back: each stage doubles the resolution, joins the skip, weighs the two with SCSA, halves the channels
    and runs BRA blocks. The head expands the stride-4 map by four and classifies every pixel.

    Any height and width do: an image that is no multiple of 32 is extended to the right and below by
    repeating its last pixels, and the logits are cropped back. One channel is repeated to three.

    With `recompute` set, training keeps only the input of each part and computes the rest again in the backward
    pass: the same numbers from a fraction of the memory, in a third more time. Parts with BatchNorm are computed once.

    For ablations: skips "plain" leave SCSA out, decoder "conv" has a convolution block in the place of each BRA block,
    width and depths change the size, and a variant changes one formula of the blocks (`BRABlock`, `Mixer`).
    `build_model` has the defaults, which are the published network.

    in:  image (B, 1 or 3, H, W), float; keep (blocks, B, 2) from `draw_paths`, drawn here if None in training
    out: logits (B, K, H, W); K counts the background, or is 1 for a binary task. In training with deep supervision a
        list: first these, then those of the decoder's coarser stages, finer ones first
    """

    def __init__(
        self,
        num_classes: int,
        ssd: str,
        drop_path: float,
        skips: str,
        decoder: str,
        width: int,
        encoder_depths: Sequence[int],
        decoder_depths: Sequence[int],
        variant: str,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ssd = ssd
        self.recompute = False
        self.drop_rates = _drop_rates(drop_path, encoder_depths, decoder_depths)
        dims = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(*down_conv(3, width // 2), nn.GELU(), *down_conv(width // 2, width))
        self.encoder = nn.ModuleList(
            nn.ModuleList(VSSDBlock(dim, dim // HEAD_DIM, ssd, variant == "gated_z") for _ in range(depth))
            for dim, depth in zip(dims, encoder_depths)
        )
        self.downsample = nn.ModuleList(nn.Sequential(*down_conv(dim, 2 * dim)) for dim in dims)
        self.decoder = nn.ModuleList(
            DecoderStage(dim, stride, heads, topk, depth, skips, decoder, variant)
            for dim, stride, heads, topk, depth in zip(dims[::-1], (16, 8, 4), SKIP_HEADS, TOPK, decoder_depths)
        )
        self.head = Head(width, num_classes)
        self.deep_heads = nn.ModuleList()
        self.apply(_initialise_linear)

    def supervise_deeply(self) -> None:
        """Give the decoder's coarser stages heads of their own, for training only; checkpoints are loaded without."""
        widths = [stage.reduce.out_features for stage in self.decoder][:-1]
        self.deep_heads.extend(nn.Sequential(nn.LayerNorm(w), nn.Linear(w, self.num_classes)) for w in widths)
        self.deep_heads.apply(_initialise_linear)

    def forward(self, image: Tensor, keep: Tensor | None = None) -> Tensor | list[Tensor]:
        if keep is None and self.training:
            keep = self.draw_paths(len(image), image.device)
        paths = repeat(None) if keep is None else iter(keep.unbind())
        height, width = image.shape[2:]

        x = pad_to_multiples(image, REGION).expand(-1, 3, -1, -1)
        x = to_nhwc(self.stem(x.contiguous(memory_format=torch.channels_last)))
        skips = []
        for blocks, downsample in zip(self.encoder, self.downsample):
            for block in blocks:
                x = self._run(block, x, next(paths))
            skips.append(x)
            x = to_nhwc(downsample(to_nchw(x)))
        maps = []
        for stage in self.decoder:
            x = stage(x, skips.pop(), [next(paths) for _ in stage.blocks], self._run)
            maps.append(x)
        logits = self._run(self.head, x)[:, :, :height, :width]
        if not (self.training and self.deep_heads):
            return logits
        coarse = [
            F.interpolate(to_nchw(head(x)), scale_factor=stage.stride)[:, :, :height, :width]
            for head, x, stage in zip(self.deep_heads, maps, self.decoder)
        ]
        return [logits, *coarse[::-1]]

    def _run(self, part: Callable[..., Tensor], *inputs: Any) -> Tensor:
        return recomputed(part, *inputs) if self.recompute and self.training else part(*inputs)

    def draw_paths(self, num_images: int, device: torch.device) -> Tensor:
        """Stochastic depth: draw a factor for both branches of every block, 0 or 1 / (1 - rate).

        Several processes draw the same numbers for the whole batch, and each hands `forward` those of its own images.

        out: (blocks, num_images, 2)
        """
        draws = torch.rand(len(self.drop_rates), 2, num_images, device=device)
        return torch.stack([((draw >= rate) / (1 - rate)).T for draw, rate in zip(draws, self.drop_rates)])


class DecoderStage(nn.Module):
    """Double the resolution, join the skip, weigh both with SCSA, then bi-level routing attention.

    stride: input pixels in a pixel of the stage's map, in each direction
    in:  x (B, H, W, 2C), skip (B, 2H, 2W, C); keep: one entry for each block, see BRABlock
    run: calls each part; one with BatchNorm is called without it
    out: (B, 2H, 2W, C)
    """

    def __init__(
        self, dim: int, stride: int, num_heads: int, topk: int, depth: int, skips: str, decoder: str, variant: str
    ) -> None:
        super().__init__()
        self.stride = stride
        self.expand = PatchExpand(2 * dim, dim)
        self.attention = SCSA(2 * dim, math.gcd(num_heads, 2 * dim)) if skips == "scsa" else nn.Identity()
        self.reduce = nn.Linear(2 * dim, dim)
        self.blocks = nn.ModuleList(
            BRABlock(dim, topk, variant) if decoder == "bra" else ConvBlock(dim) for _ in range(depth)
        )

    def forward(self, x: Tensor, skip: Tensor, keep: list[Tensor | None], run: Callable[..., Tensor]) -> Tensor:
        x = run(self.join, x, skip)
        regions = (x.shape[1] * self.stride // REGION, x.shape[2] * self.stride // REGION)
        for block, keep_block in zip(self.blocks, keep):
            # the BatchNorm of a ConvBlock needs the whole batch, and once
            x = block(x, regions, keep_block) if isinstance(block, ConvBlock) else run(block, x, regions, keep_block)
        return x

    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat([self.expand(x), skip], dim=-1)
        return self.reduce(self.attention(x))


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        # six deviations: older PyTorch may return the bounds themselves, by default a hundred away
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.12, b=0.12)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _drop_rates(drop_path: float, encoder_depths: Sequence[int], decoder_depths: Sequence[int]) -> list[float]:
    """Rates of stochastic depth for all blocks, in the order of the forward pass.

    They rise from 0 to `drop_path` over the encoder, and again over each decoder stage. As in the published network,
    the encoder's ramp is that of two blocks more, which do not exist.
    """
    ramps = [torch.linspace(0, drop_path, sum(encoder_depths) + 2)[:-2]]
    ramps += [torch.linspace(0, drop_path, depth) for depth in decoder_depths]
    return torch.cat(ramps).tolist()


def build_model(
    num_classes: int,
    ssd: str = "causal",
    drop_path: float = 0.2,
    skips: str = "scsa",
    decoder: str = "bra",
    width: int = WIDTH,
    encoder_depths: Sequence[int] = (2, 2, 2),
    decoder_depths: Sequence[int] = (8, 2, 2),
    variant: str = "published",
) -> HeteroMedSeg:
    """Build a network with new weights; the defaults are the published one.

    ssd, skips, decoder, variant: as `utils.config.Config` has them
    drop_path: largest rate of stochastic depth
    width: channels at stride 4; encoder_depths: blocks at strides 4, 8, 16; decoder_depths: at strides 16, 8, 4
    raises: UserError for a value that is not possible
    """
    if num_classes < 1:
        raise UserError(f"num_classes: found {num_classes}, expected 1 (binary) or more; count the background too")
    if not 0 <= drop_path < 1:
        raise UserError(f"drop_path: found {drop_path}, expected a rate from 0 up to, not including, 1")
    for name, found in {"ssd": ssd, "skips": skips, "decoder": decoder, "variant": variant}.items():
        choices = FIELDS[name].metadata["choices"]
        if found not in choices:
            raise UserError(f"{name}: found {found!r}, expected one of {', '.join(choices)}")
    if variant in IN_BRA and decoder != "bra":
        raise UserError(f"variant {variant}: changes the blocks of decoder bra, found decoder {decoder}; leave one out")
    if width < HEAD_DIM or width % HEAD_DIM:
        raise UserError(f"width: found {width}, expected a multiple of {HEAD_DIM}, the channels of a head")
    for name, depths in (("encoder_depths", encoder_depths), ("decoder_depths", decoder_depths)):
        if len(depths) != 3 or min(depths) < 1:
            raise UserError(f"{name}: found {depths}, expected three numbers of blocks, each 1 or more")
    return HeteroMedSeg(num_classes, ssd, drop_path, skips, decoder, width, encoder_depths, decoder_depths, variant)


ARCHITECTURE = tuple(inspect.signature(build_model).parameters)  # the settings of a run that shape the network
