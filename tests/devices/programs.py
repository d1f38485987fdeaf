"""What the project runs on a device, one function each: the only place here that knows its signatures.

Every function is called inside `fake_device`. `device` is a name with its number, e.g. "cuda:0".
"""

import copy
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from datasets.augment import Draws, augment_binary, augment_synapse
from datasets.augment_intensity import augment, augment_intensities
from tests.support.shallow import shallow_model
from tests.support.toy import ToyNetwork, toy_config
from utils.config import Config
from utils.inference.forward import forward_fn
from utils.inference.predict import predict_images, predict_volume
from utils.preprocess import PICTURES, SLICES
from utils.preprocess.intensities import normalise
from utils.training.batches import EpochBatches
from utils.training.engine import prepare, train_one_epoch, train_step, validate
from utils.training.losses import BINARY, MULTI_CLASS, loss_for
from utils.training.run import Run, start
from utils.training.stopping import StopRequest
from utils.training.task import Task
from utils.training.validation import Validation, ValidationSet

SIZE = (64, 96)
AUGMENT = partial(augment, recipe=partial(augment_synapse, native=(120, 130)), strong=False)
# ours: what other packages do inside their losses is theirs
LOSSES = [(9, name) for name in MULTI_CLASS if name != "lovasz"] + [(1, name) for name in BINARY if name != "lovasz"]
AUGMENTATIONS = {
    "strong": (lambda images, targets, draws: (augment_intensities(images, draws), targets), PICTURES),
    "synapse": (partial(augment_synapse, native=(120, 130)), SLICES),
    "binary": (augment_binary, PICTURES),
}

# where the program may wait for the device
LOG_INTERVAL = "utils/training/engine.py::train_one_epoch"
END_OF_VALIDATION = "utils/training/validation.py::__call__"
PREVIEWS = "utils/training/validation.py::previews"
END_OF_VOLUME = "utils/inference/predict.py::predict_volume"
EVERY_IMAGE = "utils/inference/predict.py::predict_images"
# where a training step copies a batch to the device
BATCH_ARRIVES = "utils/training/engine.py::prepare"


@cache
def _built(num_classes: int, form: str) -> nn.Module:
    """Every kind of part once; more blocks of a stage would tell nothing new."""
    return shallow_model(num_classes, form)


def network(num_classes: int, form: str, recompute: bool = False) -> nn.Module:
    """On the CPU: the program moves it."""
    model = copy.deepcopy(_built(num_classes, form))
    model.recompute = recompute
    return model.train()


def one_convolution(num_classes: int) -> nn.Module:
    """A network where only what is around it is looked at."""
    return nn.Conv2d(1, num_classes, 1)


def host_batch(count: int) -> tuple[Tensor, Tensor]:
    """Images (B, 1, H, W) and targets (B, H, W) as a loader hands them out."""
    return torch.zeros(count, 1, *SIZE, dtype=torch.uint8), torch.zeros(count, *SIZE, dtype=torch.uint8)


def task(num_classes: int = 9, validation: ValidationSet | None = None) -> Task:
    name, names = ("ce_dice", tuple("abcdefgh")) if num_classes > 1 else ("dice_bce", ("a",))
    return Task("dry", names, [], AUGMENT, SLICES, loss_for(name, num_classes), validation)


def run_of(model: nn.Module, device: str, precision: str = "fp32", **fields: object) -> Run:
    cfg = toy_config("unused", num_classes=9, img_size=SIZE, **fields)
    return start(model, cfg, torch.device(device), precision)


def training_step(run: Run, num_classes: int = 9, **fields: object) -> Tensor:
    """A batch from the host through augmentation, network, loss, gradients and optimizer; out: the loss."""
    cfg = toy_config("unused", num_classes=num_classes, img_size=SIZE, **fields)
    batch = prepare(*host_batch(2), task(num_classes), cfg, run.device, position=3, total=2, offset=0)
    return train_step(run, task(num_classes), cfg, *batch, added=1, update=True)


def stand_in_for_backward(run: Run):
    """Gradients out of nothing, where the device has no backward pass."""

    def fill(loss: Tensor) -> None:
        for parameter in run.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    return mock.patch.object(Tensor, "backward", fill)


def epoch(device: str, num_batches: int, log_every: int) -> None:
    """One epoch of the training loop with a small network."""
    cfg = toy_config("unused", batch_size=2, log_every=log_every)
    run = start(ToyNetwork(), cfg, torch.device(device), "fp32")
    small = Task("dry", ("one", "two"), [], AUGMENT, SLICES, loss_for("ce_dice", 3))

    class Loader(list):
        batch_sampler = EpochBatches(2 * num_batches, 2, seed=0)

    batches = [(torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8)) for _ in range(num_batches)]
    with stand_in_for_backward(run):
        train_one_epoch(run, small, cfg, Loader(batches), "last", None, StopRequest())


def loss(device: str, num_classes: int, name: str) -> Tensor:
    logits = torch.zeros(2, num_classes, *SIZE, device=device, requires_grad=True)
    return loss_for(name, num_classes)(logits, torch.zeros(2, *SIZE, dtype=torch.uint8, device=device))


def augmented(device: str, kind: str) -> tuple[Tensor, Tensor]:
    operations, preprocess = AUGMENTATIONS[kind]
    images = torch.zeros(4, preprocess.channels, *SIZE, device=device)
    targets = torch.zeros(4, *SIZE, dtype=torch.uint8, device=device)
    images, targets = operations(images, targets, Draws(torch.Generator(device).manual_seed(0), 4, 8, 4))
    return normalise(images, preprocess), targets


def validation(run: Run, num_images: int, num_classes: int) -> tuple[Validation, ValidationSet]:
    """The end of an epoch, in batches of two images; half of them are one case."""
    images, targets = host_batch(num_images)
    names = tuple("abcdefgh") if num_classes > 1 else ("a",)
    cases = torch.arange(num_images) // max(num_images // 2, 1)
    held = ValidationSet(images, targets, cases, names, num_classes, 2, SIZE)
    return validate(run, task(num_classes, held), toy_config("unused"), Path(), StopRequest()), held


def forward(device: str, num_classes: int = 9, form: str = "causal", precision: str = "fp32", **settings: object):
    """Inference of networks on the device: images on the device -> logits."""
    return forward_fn([network(num_classes, form)], torch.device(device), precision, Config(**settings))


def label_volume(function, device: str, num_slices: int, protocol: str) -> np.ndarray:
    image = np.zeros((num_slices, 80, 72), np.float32)
    cfg = Config(img_size=SIZE, batch_size=2, protocol=protocol)
    return predict_volume(function, image, cfg, torch.device(device))


def label_images(function, device: str, count: int, protocol: str) -> list[np.ndarray]:
    images = [np.zeros((70 + i, 50, 3), np.uint8) for i in range(count)]
    cfg = Config(img_size=SIZE, preprocess=PICTURES, protocol=protocol)
    return predict_images(function, images, cfg, torch.device(device))
