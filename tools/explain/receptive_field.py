"""Effective receptive fields of the encoder: which input pixels move the middle of a map, and how much.

The field of a stage is the gradient of its middle feature vector with respect to the input (Luo et al. 2016,
arXiv 1701.04128): at each pixel the root of the squared entries of the Jacobian, summed over channels and
averaged over inputs.

Shapes: M inputs, H/W their height and width, C channels of a stage.
"""

import contextlib
import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import HeteroMedSeg
from models.ssd import SSD_FORMS

STEM_REACH = 3  # of two 3x3 convolutions of stride 2: 1 + 2 * 1
CONVOLUTIONS = 3  # of size 3x3 one after another in a VSSD block: cpe1, the mixer's, cpe2


@dataclass(frozen=True)
class Field:
    """The field of one stage of the encoder in one SSD form.

    values: float64 (H, W) on the CPU; middle: the input pixel (row, column) at the middle of the measured feature;
    reach: how many pixels from there the convolutions alone can reach, on each side
    """

    form: str
    stage: int
    stride: int
    middle: tuple[int, int]
    reach: int
    values: Tensor


def receptive_fields(model: HeteroMedSeg, inputs: Tensor, seed: int = 0) -> list[Field]:
    """Fields of every stage with the weights of `model` in each of the three forms, whichever it was trained in.

    in: inputs (M, 1 or 3, H, W), normalised, on the model's device
    """
    fields = []
    for form, ssd in SSD_FORMS.items():
        network = copy.deepcopy(model).eval().requires_grad_(False)
        for stage in network.encoder:
            for block in stage:
                block.attn.ssd = ssd
        fields += fields_of(network, inputs, form, torch.Generator().manual_seed(seed))
    return fields


def fields_of(model: HeteroMedSeg, inputs: Tensor, form: str, generator: torch.Generator) -> list[Field]:
    """Fields of every stage of `model` as it is; `form` is their name.

    With random signs s, the mean of (s J)^2 is the sum of J^2 over the rows of J: one backward pass stands for C.
    """
    inputs = inputs.detach().clone().requires_grad_()
    fields, reach = [], STEM_REACH
    with torch.enable_grad():
        maps = stage_outputs(model, inputs)
    for stage, features in enumerate(maps):
        row, column = features.shape[1] // 2, features.shape[2] // 2
        middle = features[:, row, column]  # (M, C)
        signs = torch.randint(0, 2, middle.shape, generator=generator).to(middle) * 2 - 1
        (gradient,) = torch.autograd.grad((middle * signs).sum(), inputs, retain_graph=stage + 1 < len(maps))
        values = gradient.cpu().double().square().sum(1).mean(0).sqrt()
        stride = -(-inputs.shape[2] // features.shape[1])
        reach += stride * CONVOLUTIONS * len(model.encoder[stage])
        fields.append(Field(form, stage, stride, (stride * row, stride * column), reach, values))
        reach += stride  # of the 3x3 convolution to the next stage
    return fields


class _EncoderDone(Exception):
    """Ends a forward pass behind the encoder."""


def stage_outputs(model: HeteroMedSeg, image: Tensor) -> list[Tensor]:
    """The maps that leave the encoder's stages, (M, H / stride, W / stride, C), fine to coarse.

    They are taken from the model's own forward pass, which is left as soon as the last of them is there.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        kept.append(out)
        if len(kept) == len(model.encoder):
            raise _EncoderDone

    handles = [stage[-1].register_forward_hook(keep) for stage in model.encoder]
    try:
        with contextlib.suppress(_EncoderDone):
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def describe_field(field: Field) -> dict[str, float | int | None]:
    """Figures of a field; shares are of the sum of its values, None where all are zero.

    half_within, most_within: smallest r such that the square of side 2r + 1 around the middle holds 50 and 90 %
    beyond: share outside the square that the convolutions reach, where only SSD leads; before, behind: the parts
        of it above and below that square's rows
    reached: share of the pixels with any gradient; felt: with at least 1/1000 of the largest
    """
    values, (row, column), reach = field.values, field.middle, field.reach
    total, largest = float(values.sum()), float(values.max())
    if total == 0:
        names = ("half_within", "most_within", "beyond", "before", "behind", "reached", "felt")
        return dict.fromkeys(names)
    height, width = values.shape
    rows, columns = torch.arange(height) - row, torch.arange(width) - column
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None])
    within = torch.zeros(int(distance.max()) + 1, dtype=values.dtype)
    within = within.index_add(0, distance.flatten(), values.flatten()).cumsum(0) / total
    return {
        "half_within": int((within < 0.5).sum()),
        "most_within": int((within < 0.9).sum()),
        "beyond": float(values[distance > reach].sum()) / total,
        "before": float(values[rows < -reach].sum()) / total,
        "behind": float(values[rows > reach].sum()) / total,
        "reached": float((values > 0).double().mean()),
        "felt": float((values >= largest / 1000).double().mean()),
    }
