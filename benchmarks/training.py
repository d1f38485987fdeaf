"""The real training loop: does the input keep up with the network, and how long would the Synapse training take?

    python -m benchmarks.training [--device auto] [--batch 24] [--size 224] [--compile] [--updates 200]

Synthetic files of the real kinds and sizes, 512 x 512 npz slices and 384 x 288 PNG pictures, are decoded and resized
once into memory, as training does it. Then batches (index, move to the device, scale, augment, normalise) and
training steps at the best precision of the device take turns. The ratio says how many times faster batches come than
steps need them; on a CPU, where both share the cores, `share_of_update` is the part of an update that the input takes.

Last, `train_one_epoch` runs about `--updates` updates of the published Synapse recipe on noise of the size of its 2,211
slices. The first epoch, of a few batches, compiles and warms up and is not counted. The whole training is extrapolated
from the rate; reading the files, validation and checkpoints are not in it.
"""

import dataclasses
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

import isic_polyp_rectal.task as pictures
import synapse_train_test.task as volumes
from benchmarks.machine import new_parser, numbers, write_json
from benchmarks.measure import in_turns, ratio, timer
from benchmarks.station import TRAIN, Station
from benchmarks.variants import NUM_CLASSES, parse_variant
from datasets.augment import augment_binary, augment_synapse
from datasets.augment_intensity import augment
from datasets.images.pairs import ImageMaskSet, pair_files
from datasets.memory import InMemory
from datasets.volumes.sets import SynapseSlices
from models import build_model
from utils.device import choose_device, choose_precision, describe_device
from utils.training.batches import EpochBatches, train_loader
from utils.training.engine import prepare, train_one_epoch
from utils.training.losses import loss_for
from utils.training.run import start
from utils.training.stopping import StopRequest
from utils.training.task import Task

IMAGES = 96  # files to write and decode
SLICES = 2211  # of the Synapse training set
IMAGE_STEPS = SLICES * volumes.SYNAPSE.epochs


def main(argv: list[str]) -> None:
    parser = new_parser(__doc__, "training.json")
    parser.add_argument("--batch", type=int, default=volumes.SYNAPSE.batch_size)
    parser.add_argument("--size", type=numbers, default=[224], help="sides with commas; the loop runs at the first")
    parser.add_argument("--compile", action="store_true", help="the network through torch.compile")
    parser.add_argument("--updates", type=int, default=200, help="of the loop; 0 leaves it out")
    args = parser.parse_args(argv)
    images, slices = IMAGES, SLICES
    if args.smoke:
        args.batch, args.size, args.repeats, args.updates, images, slices = 2, [32], 1, 1, 3, 3
    device = choose_device(args.device)
    results: dict[str, Any] = {"device": describe_device(device), "input": []}
    for size in args.size:
        for kind in INPUTS:
            row = measure_input(kind, device, args.batch, size, images, args.compile, args.repeats)
            results["input"].append(row)
            write_json(args.output, results)
    if args.updates:
        results["loop"] = run_loop(device, args.batch, args.updates, args.compile, args.size[0], slices)
        write_json(args.output, results)
    print(f"written: {args.output}")


def measure_input(
    kind: str, device: torch.device, batch: int, size: int, images: int, compiled: bool, repeats: int
) -> dict[str, Any]:
    """Decode `images` files once, or as many as a batch needs, then time batches and training steps in turns."""
    images = max(images, batch)
    with tempfile.TemporaryDirectory() as folder:
        task = INPUTS[kind](Path(folder), images, size)
        began = perf_counter()
        task = dataclasses.replace(task, train_set=InMemory(task.train_set))
        decoding = perf_counter() - began
    variant = parse_variant(f"ours-{choose_precision('auto', device)}-{'compiled' if compiled else 'eager'}")
    station = Station(variant, TRAIN, device, batch, size)
    batches = prepared_batches(task, batch, device)
    times = in_turns({"batch": timer(lambda: next(batches), device), "step": station.seconds}, repeats)
    station.close()
    faster = ratio(times["step"], times["batch"])
    row = {"input": kind, "size": size, "batch": batch, "step_variant": variant.name}
    row["decode_images_per_s"] = images / decoding
    row["batches_images_per_s"], row["step_images_per_s"] = (batch / statistics.median(t) for t in times.values())
    row |= {"ratio": faster, "share_of_update": 1 / (1 + faster["median"])}
    rates = ", ".join(f"{what} {row[f'{what}_images_per_s']:.1f}" for what in ("decode", "batches", "step"))
    print(f"{kind}, {size}x{size}, batch {batch}: images/s: {rates}; batches {faster['median']:.1f} times faster than")
    print(f"  steps, {row['share_of_update']:.1%} of an update", flush=True)
    return row


def prepared_batches(task: Task, batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of full size as the training loop makes them, epoch after epoch."""
    cfg = volumes.SYNAPSE
    order = EpochBatches(len(task.train_set), batch, cfg.seed, drop_last=True)
    loader, position = train_loader(task.train_set, order, cfg, pin=device.type == "cuda"), 0
    while True:
        for images, targets in loader:
            position += 1
            yield prepare(images, targets, task, cfg, device, position, batch, 0)
        order.epoch += 1


def slices_task(folder: Path, images: int, size: int) -> Task:
    """A task whose slices are files of noise in `folder`."""
    rng = np.random.default_rng(0)
    for index in range(images):
        image = cv2.GaussianBlur(rng.random((512, 512), np.float32), (0, 0), 2)
        np.savez(folder / f"case0001_slice{index:03}.npz", image=image, label=(image > 0.5).astype(np.uint8))
    return volume_task(SynapseSlices(folder, sorted(path.stem for path in folder.iterdir()), (size, size)))


def volume_task(data: Dataset) -> Task:
    organs, operations = ("organ",) * (NUM_CLASSES - 1), partial(augment_synapse, native=(512, 512))
    augmented = partial(augment, recipe=operations, strong=False)
    return Task("slices", organs, data, augmented, volumes.SYNAPSE.preprocess, loss_for("ce_dice", NUM_CLASSES))


def pictures_task(folder: Path, images: int, size: int) -> Task:
    """A task whose pictures are files of noise in `folder`."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for index in range(images):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (288, 384, 3), np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), (picture[..., 0] > 127).astype(np.uint8) * 255)
    data = ImageMaskSet(pair_files(folder), (size, size))
    augmented = partial(augment, recipe=augment_binary, strong=False)
    return Task("pictures", ("polyp",), data, augmented, pictures.RECTAL.preprocess, loss_for("dice", 1))


INPUTS = {"slices": slices_task, "pictures": pictures_task}


def run_loop(device: torch.device, batch: int, updates: int, compiled: bool, side: int, slices: int) -> dict[str, Any]:
    """Rate of about `updates` updates of the real loop, and the whole training's time at that rate."""
    precision = choose_precision("auto", device)
    cfg = dataclasses.replace(volumes.SYNAPSE, batch_size=batch, img_size=(side, side), compile=compiled)
    run = start(build_model(cfg.num_classes, cfg.ssd, cfg.drop_path), cfg, device, precision)
    noise = torch.rand(slices, 1, side, side), torch.randint(0, NUM_CLASSES, (slices, side, side), dtype=torch.uint8)
    everything = InMemory(TensorDataset(*noise))

    def epoch_seconds(data: Dataset) -> float:
        batches = EpochBatches(len(data), batch, cfg.seed)
        batches.epoch = run.epoch
        loader = train_loader(data, batches, cfg, pin=device.type == "cuda")

        def epoch() -> None:
            run.batch = 0
            train_one_epoch(run, volume_task(data), cfg, loader, "last", Path(), StopRequest())

        return timer(epoch, device)(1)

    an_epoch = math.ceil(slices / batch)
    epochs = max(1, round(updates / an_epoch))
    warm_up = epoch_seconds(Subset(everything, range(min(slices, 3 * batch + slices % batch))))
    seconds = 0.0
    for run.epoch in range(epochs):
        seconds += epoch_seconds(everything)
    rate = epochs * slices / seconds
    minutes = IMAGE_STEPS / rate / 60
    print(f"loop, batch {batch}, {precision}, {'compiled' if compiled else 'eager'}: {rate:.1f} images/s over")
    updates = epochs * an_epoch
    print(f"  {updates} updates, after {warm_up:.0f} s of warming up; extrapolated: {IMAGE_STEPS:,} image steps")
    print(f"  in {minutes:.1f} minutes", flush=True)
    return {
        "batch": batch,
        "precision": precision,
        "compiled": compiled,
        "updates": updates,
        "seconds": seconds,
        "warm_up_seconds": warm_up,
        "images_per_s": rate,
        "whole_training_minutes_extrapolated": minutes,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
