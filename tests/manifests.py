"""State dicts with the names and shapes of the published files, from the manifests in tests/golden/."""

import json
from pathlib import Path

import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `synapse`, `binary`, `biformer_base` or `vssd_base`."""
    manifest = json.loads((GOLDEN / f"state_dict_{network}.json").read_text())
    return {name: tuple(shape) for name, shape in manifest.items()}


def state_of(network: str, salt: int = 0) -> dict[str, Tensor]:
    """Tensors that differ from each other and along every axis: tensor i counts up from i + salt in small steps.

    The steps of 2^-24 of a tensor's size keep the whole tensor below i + salt + 1.
    """
    state = {}
    for i, (name, shape) in enumerate(shapes_of(network).items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(i + salt)
        else:
            values = torch.zeros(shape).flatten()
            values += torch.arange(values.numel()) / max(values.numel(), 1)
            state[name] = (values + i + salt).view(shape)
    return state
