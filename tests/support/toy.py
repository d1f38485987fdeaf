"""A network of a few parameters and a task of a few images, for tests of the training loop."""

import math

import torch
from torch import nn
from torch.utils.data import TensorDataset

from utils import checkpoint
from utils.config import Config, to_dict
from utils.preprocess import Preprocess
from utils.training.engine import fit
from utils.training.folder import LAST, claim_folder, hold_folder
from utils.training.losses import loss_for
from utils.training.run import start
from utils.training.task import Task
from utils.training.validation import ValidationSet

CLASSES = ("one", "two")
HALF = Preprocess(channels=1, resize="area", mean=(0.5,), std=(1.0,))


class ToyNetwork(nn.Module):
    """A convolution, a norm and, like HeteroMedSeg, random draws for the whole global batch."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.GroupNorm(1, 4)
        self.A_log = nn.Parameter(torch.zeros(4, 1, 1))
        self.out = nn.Conv2d(4, num_classes, 1, bias=False)

    def forward(self, x, keep=None):
        x = self.norm(self.conv(x)) * self.A_log.exp()
        if keep is not None:
            x = x * keep[0, :, None, None, None]
        return self.out(torch.relu(x))

    def draw_paths(self, num_images, device):
        return (torch.rand(1, num_images, device=device) > 0.3).float()


def toy_task(num_images=11, size=8, validate=True):
    """Blobs of two classes on noise; the image is not a function of its target."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (num_images, size // 4, size // 4), generator=generator)
    target = target.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    image = target[:, None] / 4 + torch.rand(num_images, 1, size, size, generator=generator) / 4
    data = TensorDataset(image, target)
    held = ValidationSet(image[:4], target[:4], torch.tensor([0, 0, 1, 1]), CLASSES, 3, 3, (size, size))
    return Task(
        "toy", CLASSES, data, add_noise, HALF, loss_for("ce_dice", 3), held if validate else None, split="toy split"
    )


def add_noise(images, targets, generator, total, offset):
    noise = torch.randn(total, *images.shape[1:], generator=generator, device=images.device)
    return images + 0.05 * noise[offset : offset + len(images)], targets


def toy_config(folder, **fields):
    settings = {
        "num_classes": 3,
        "img_size": (8, 8),
        "epochs": 4,
        "batch_size": 4,
        "lr": 0.05,
        "workers": 0,
        "precision": "fp32",
    }
    settings |= {"schedule": "warm_restarts", "restart_iterations": 4, "output_dir": str(folder)}
    return Config(**(settings | fields))


def train_toy(folder, task=None, device=torch.device("cpu"), precision="fp32", **fields):  # noqa: B008
    """Train the toy network in `folder`; returns what is in its epoch_last.pth."""
    cfg = toy_config(folder, **fields)
    torch.manual_seed(3)
    model = ToyNetwork()
    claim_folder(cfg)
    with hold_folder(cfg):
        fit(model, task or toy_task(), cfg, device, precision)
    return checkpoint.read(folder / LAST)


def saved_state(cfg, model=None, **changed):
    """A checkpoint as training writes it before its first update."""
    model = model or ToyNetwork()
    run = start(model, cfg, torch.device("cpu"), "fp32")
    return {
        "format": "heteromedseg",
        "config": to_dict(cfg),
        "class_names": [f"class {k}" for k in range(1, max(cfg.num_classes, 2))],
        "split": "toy split",
        "selection": "last",
        "epoch": 0,
        "iteration": 0,
        "best": -math.inf,
        "history": [],
        "model": model.state_dict(),
        "ema": None,
        "optimizer": run.optimizer.state_dict(),
        "scaler": {},
    } | changed


def losses(state):
    return [record["loss"] for record in state["history"]]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
