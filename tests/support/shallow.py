"""The network with one block a stage: every kind of part, and a third of the time to build, trace or compile."""

import torch

from models import HeteroMedSeg, build_model

# fields of Config and arguments of build_model: the smallest network that has every kind of part
SMALL = {"width": 32, "encoder_depths": (1, 1, 1), "decoder_depths": (1, 1, 1)}


def shallow_model(num_classes: int, ssd: str = "causal", **parts: str) -> HeteroMedSeg:
    torch.manual_seed(0)
    return build_model(num_classes, ssd, encoder_depths=(1, 1, 1), decoder_depths=(1, 1, 1), **parts)
