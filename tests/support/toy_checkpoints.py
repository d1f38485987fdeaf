"""Checkpoints of a tiny network, for tests of what is done with one."""

import torch
from torch import nn

from models import build
from utils import checkpoint
from utils.config import Config, to_dict

TOY = "toy"


def toy_network(cfg: Config) -> nn.Module:
    """A few convolutions: what they find depends on a pixel's neighbours, and on which way is up."""
    channels = cfg.preprocess.channels
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2),
        nn.ReLU(),
        CoordinateHead(8, cfg),
    )


class CoordinateHead(nn.Module):
    """Logits from features and the place in the image."""

    def __init__(self, dim: int, cfg: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(dim + 2, 32, 1), nn.ReLU(), nn.Conv2d(32, cfg.num_classes, 1))

    def forward(self, x):
        places = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in x.shape[2:]), indexing="ij"))
        return self.layers(torch.cat([x, places.expand(len(x), -1, -1, -1)], 1))


def save_toy(path, monkeypatch, cfg: Config, class_names, model: nn.Module | None = None):
    """A checkpoint as train.py writes it, of `model` or of a network with fixed weights that finds every class."""
    monkeypatch.setitem(build.NETWORKS, TOY, toy_network)
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = toy_network(cfg)
        for weight in model.parameters():
            weight.data *= 3
    state = {"format": "heteromedseg", "config": to_dict(cfg), "class_names": list(class_names), "epoch": 1}
    checkpoint.save(path, state | {"selection": "last", "split": "toy", "model": model.state_dict()})
    return path
