"""State dicts with the names and shapes of the published files, from the manifests in tests/golden/."""

import json
from unittest import mock

import torch
from torch import Tensor

from models import HeteroMedSeg, build_model
from tests.support.places import GOLDEN


def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `synapse`, `binary`, `biformer_base` or `vssd_base`."""
    manifest = json.loads((GOLDEN / f"state_dict_{network}.json").read_text(encoding="utf-8"))
    return {name: tuple(shape) for name, shape in manifest.items()}


def state_of(network: str) -> dict[str, Tensor]:
    """Entry i is filled with the number i: no two are alike, and a filled tensor takes the space of one number."""
    return {
        name: torch.tensor(i if name.endswith("num_batches_tracked") else float(i)).expand(shape)
        for i, (name, shape) in enumerate(shapes_of(network).items())
    }


def quick_model(num_classes: int = 9, ssd: str = "causal") -> HeteroMedSeg:
    """`build_model` without its slow truncated normal, for tests that do not look at initial weights."""
    with mock.patch("torch.nn.init.trunc_normal_"):
        return build_model(num_classes, ssd)
