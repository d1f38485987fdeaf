"""The published Synapse training, simulated: how long would its 663,300 image steps take here?

    python -m benchmarks.recipe [--device auto] [--batch 24] [--steps 200] [--eager]

The real training loop (batches from memory, augmentation on the device, forward, loss, backward, optimizer, learning
rate) runs on 2,211 synthetic slices of 224 x 224 in the number and form of the real ones; the last batch of an epoch is
smaller, as there. A first epoch of a few batches compiles and warms up and is not counted. The whole training is
extrapolated from the rate; reading the files, validation and checkpoints are not in it.
"""

import argparse
import dataclasses
import math
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.machine import ROOT, write_json
from datasets.memory import InMemory
from models import build_model
from synapse_train_test.task import SYNAPSE, augment
from utils.device import choose_device, choose_precision, describe_device
from utils.preprocess import normalise
from utils.training.batches import EpochBatches, train_loader
from utils.training.engine import train_one_epoch
from utils.training.losses import loss_for
from utils.training.run import start
from utils.training.task import Task

SLICES = 2211
IMAGE_STEPS = SLICES * SYNAPSE.epochs


class RandomSlices(Dataset):
    """Noise with as many slices, of the type and size, that the Synapse training set has."""

    def __init__(self, number: int, side: int) -> None:
        self.number, self.side = number, side

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(1, self.side, self.side, generator=generator)
        return image, torch.randint(0, 9, image.shape[1:], generator=generator, dtype=torch.uint8)


def simulate(device: torch.device, batch: int, steps: int, compiled: bool, side: int, slices: int) -> dict[str, Any]:
    """Rate of about `steps` updates of the real loop, and the whole training's time at that rate."""
    precision = choose_precision("auto", device)
    cfg = dataclasses.replace(SYNAPSE, batch_size=batch, img_size=(side, side), compile=compiled)
    run = start(build_model(cfg.num_classes, cfg.ssd, cfg.drop_path), cfg, device, precision)
    everything = InMemory(RandomSlices(slices, side))
    first = torch.utils.data.Subset(everything, range(min(slices, 3 * batch + slices % batch)))
    epochs = max(1, round(steps / math.ceil(slices / batch)))
    with tempfile.TemporaryDirectory() as out:
        began = perf_counter()
        _epoch(run, first, cfg, device, Path(out))
        warm_up = perf_counter() - began
        began = perf_counter()
        for run.epoch in range(epochs):
            _epoch(run, everything, cfg, device, Path(out))
        seconds = perf_counter() - began
    rate = epochs * slices / seconds
    return {
        "batch": batch,
        "precision": precision,
        "compiled": compiled,
        "updates": epochs * math.ceil(slices / batch),
        "seconds": seconds,
        "warm_up_seconds": warm_up,
        "images_per_s": rate,
        "whole_training_minutes_extrapolated": IMAGE_STEPS / rate / 60,
    }


def _epoch(run: Any, data: Dataset, cfg: Any, device: torch.device, out: Path) -> None:
    task = Task(
        "synapse", ("organ",) * 8, data, augment, partial(normalise, pre=SLICES), loss_for(cfg.loss, cfg.num_classes)
    )
    batches = EpochBatches(len(data), cfg.batch_size, cfg.seed)
    batches.epoch = run.epoch
    train_one_epoch(run, task, cfg, train_loader(data, batches, cfg, pin=device.type == "cuda"), "last", out)
    if device.type == "cuda":
        torch.cuda.synchronize()


def sentence(r: dict[str, Any]) -> str:
    return (
        f"batch {r['batch']}, {r['precision']}, {'compiled' if r['compiled'] else 'eager'}: {r['images_per_s']:.1f} "
        f"images/s over {r['updates']} updates, after {r['warm_up_seconds']:.0f} s of warming up; extrapolated: "
        f"{IMAGE_STEPS:,} image steps in {r['whole_training_minutes_extrapolated']:.1f} minutes"
    )


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=SYNAPSE.batch_size)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--output", default=ROOT / "results" / "recipe.json")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run?")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    if args.smoke:
        result = simulate(device, batch=2, steps=1, compiled=False, side=32, slices=3)
    else:
        result = simulate(device, args.batch, args.steps, not args.eager, SYNAPSE.img_size[0], SLICES)
    print(sentence(result))
    write_json(args.output, {"device": describe_device(device), "result": result})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main(sys.argv[1:])
