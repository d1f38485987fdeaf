"""The network with one block a stage, and one block of every kind: less to build, trace, compile or export."""

import torch
from torch import Tensor, nn

from models import HeteroMedSeg, build_model
from models.hetero_medseg import DecoderStage
from models.layers import down_conv, to_nchw, to_nhwc
from models.vssd import VSSDBlock

# fields of Config and arguments of build_model: the smallest network that has every kind of part
SMALL = {"width": 32, "encoder_depths": (1, 1, 1), "decoder_depths": (1, 1, 1)}


def shallow_model(num_classes: int, ssd: str = "causal", **parts: str | float) -> HeteroMedSeg:
    torch.manual_seed(0)
    return build_model(num_classes, ssd, **SMALL, **parts)


class OneOfEach(nn.Module):
    """A block of the encoder, a step down, and a stage of the decoder.

    stride: input pixels in a pixel of the map, in each direction
    in:  x (B, H, W, 32); keep (2, B, 2) as HeteroMedSeg draws it, for the two blocks
    out: (B, H, W, 32)
    """

    def __init__(self, form: str, stride: int) -> None:
        super().__init__()
        self.block = VSSDBlock(32, 1, form)
        self.downsample = nn.Sequential(*down_conv(32, 64))
        self.stage = DecoderStage(
            32, stride, num_heads=4, topk=2, depth=1, skips="scsa", decoder="bra", variant="published"
        )

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        first, second = (None, None) if keep is None else keep.unbind()
        skip = self.block(x, first)
        x = to_nhwc(self.downsample(to_nchw(skip)))
        return self.stage(x, skip, [second], lambda part, *inputs: part(*inputs))
