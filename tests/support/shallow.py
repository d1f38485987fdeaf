"""The network with one block a stage: every kind of part, and a third of the time to build, trace or compile."""

from unittest import mock

import torch

from models import build_model, hetero_medseg
from models.hetero_medseg import HeteroMedSeg

DEPTHS = {"ENCODER_DEPTHS": (1, 1, 1), "DECODER_DEPTHS": (1, 1, 1)}


def shallow_model(num_classes: int, ssd: str = "causal") -> HeteroMedSeg:
    torch.manual_seed(0)
    with mock.patch.multiple(hetero_medseg, **DEPTHS):
        return build_model(num_classes, ssd)
