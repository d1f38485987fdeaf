"""Effective receptive fields of the encoder (Luo et al. 2016, arXiv 1701.04128).

The field of a stage is the gradient of the middle feature vector of its map with respect to the input. Its value
at a pixel is the root of the squared Jacobian, summed over channels and averaged over inputs.

Shapes: M inputs, H/W their height and width, C channels of a stage.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models import HeteroMedSeg
from models.hetero_medseg import REGION
from models.ssd import SSD_FORMS
from tools.explain.internals import recording

STEM_REACH = 3  # pixels to each side: two 3x3 convolutions of stride 2 reach 1 + 2 * 1
CONVOLUTIONS = 3  # 3x3, one after another in a VSSD block: cpe1, the mixer's, cpe2


@dataclass(frozen=True)
class Field:
    """The field of one stage of the encoder in one form of SSD.

    stage: from 0, fine to coarse; middle: input pixel (row, column) of the measured feature; reach: of the
    convolutions alone, in pixels to each side of the middle; values: float64 (H, W) on the CPU
    """

    form: str
    stage: int
    stride: int
    middle: tuple[int, int]
    reach: int
    values: Tensor


def receptive_fields(model: HeteroMedSeg, inputs: Tensor, seed: int = 0) -> list[Field]:
    """Fields of every stage in each of the three forms of SSD, with the weights of `model`.

    in: inputs (M, 1 or 3, H, W), normalised, on the model's device
    """
    fields = []
    for form, ssd in SSD_FORMS.items():
        network = copy.deepcopy(model).eval().requires_grad_(False)
        network.decoder, network.head = nn.ModuleList(), nn.Identity()  # their gradients would take memory
        for stage in network.encoder:
            for block in stage:
                block.attn.ssd = ssd
        fields += fields_of(network, inputs, form, torch.Generator().manual_seed(seed))
    return fields


def fields_of(model: HeteroMedSeg, inputs: Tensor, form: str, generator: torch.Generator) -> list[Field]:
    """Fields of every stage of `model`, in the form of SSD that it has and that `form` names.

    With random signs s, the expectation of (s J)^2 is the sum of J^2 over the rows of J. One backward pass therefore
    does the work of C.
    """
    inputs = inputs.detach().clone().requires_grad_()
    (height, width), fields, reach = inputs.shape[2:], [], STEM_REACH
    last_blocks = [blocks[-1] for blocks in model.encoder]
    with torch.enable_grad(), recording(last_blocks) as seen:
        model(inputs)
    for stage, (_, features) in enumerate(seen[block] for block in last_blocks):
        stride = -(-height // REGION) * REGION // features.shape[1]  # the map is that of the padded input
        row, column = height // 2 // stride, width // 2 // stride
        middle = features[:, row, column]  # (M, C)
        signs = torch.randint(0, 2, middle.shape, generator=generator).to(middle) * 2 - 1
        (gradient,) = torch.autograd.grad((middle * signs).sum(), inputs, retain_graph=stage + 1 < len(last_blocks))
        values = gradient.cpu().double().square().sum(1).mean(0).sqrt()
        reach += stride * CONVOLUTIONS * len(model.encoder[stage])
        fields.append(Field(form, stage, stride, (stride * row, stride * column), reach, values))
        reach += stride  # of the 3x3 convolution to the next stage
    return fields


def describe_field(field: Field) -> dict[str, Any]:
    """A field for explain.json. Stages count from 1. Shares are of the sum of the values; None where all are zero.

    half_within, most_within: smallest r so that the square of side 2r + 1 around the middle holds 50 and 90 %
    beyond: share outside the square that the convolutions reach, where only SSD leads
    before, behind: shares in the rows above and below that square
    reached: share of the pixels with any gradient; felt: with at least 1/1000 of the largest
    """
    values, (row, column), reach = field.values, field.middle, field.reach
    found = {"form": field.form, "stage": field.stage + 1, "stride": field.stride}
    found |= {"middle": [row, column], "convolutions_reach": reach}
    if not values.any():
        return found | dict.fromkeys(("half_within", "most_within", "beyond", "before", "behind", "reached", "felt"))
    rows, columns = torch.arange(values.shape[0]) - row, torch.arange(values.shape[1]) - column
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None])
    shares = values / values.sum()
    within = torch.bincount(distance.flatten(), shares.flatten()).cumsum(0)
    found |= {"half_within": int((within < 0.5).sum()), "most_within": int((within < 0.9).sum())}
    beyond = {"beyond": distance > reach, "before": rows < -reach, "behind": rows > reach}
    found |= {name: float(shares[place].sum()) for name, place in beyond.items()}
    felt = values >= values.max() / 1000
    return found | {"reached": float((values > 0).double().mean()), "felt": float(felt.double().mean())}
