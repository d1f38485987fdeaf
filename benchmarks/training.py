"""The real training loop: does the input keep up with the network, and how long would the Synapse training take?

    python -m benchmarks.training [--device auto] [--batch 24] [--size 224] [--compile] [--updates 200]

Synthetic files of the real kinds and sizes, 512 x 512 npz slices and 384 x 288 PNG pictures, are decoded and resized
once into memory, as training does it. Then batches (index, move to the device, scale, augment, normalise) and
training steps at the best precision of the device take turns. `times` is how many times faster batches come than
steps need them; on a CPU, where both share the cores, `share` is the part of an update that the input takes.

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
from benchmarks.machine import align, new_parser, numbers, write_json
from benchmarks.measure import in_turns, ratio, timer
from benchmarks.station import TRAIN, Station
from benchmarks.variants import NUM_CLASSES, parse_variant
from datasets.images.pairs import ImageMaskSet, pair_files
from datasets.memory import InMemory
from datasets.volumes.sets import SynapseSlices
from models import build_model
from utils.config import Config
from utils.device import choose_device, choose_precision, describe_device
from utils.training.batches import EpochBatches, train_loader
from utils.training.engine import prepare, train_one_epoch
from utils.training.losses import loss_for
from utils.training.run import Run, start
from utils.training.task import Task

IMAGES = 96  # files to write and decode
SLICES = 2211  # of the Synapse training set
IMAGE_STEPS = SLICES * volumes.SYNAPSE.epochs
WIDTHS = (-9, 5, 6, 16, 17, 14, 8, 8)
HEADER = ("input", "size", "batch", "decode images/s", "batches images/s", "step images/s", "times", "share")


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
    print(align(HEADER, WIDTHS))
    for size in args.size:
        for kind in INPUTS:
            row = measure_input(kind, device, args.batch, size, images, args.compile, args.repeats)
            results["input"].append(row)
            cells = [kind, str(size), str(args.batch)]
            cells += [f"{row[f'{what}_images_per_s']:.1f}" for what in ("decode", "batches", "step")]
            cells += [f"{row['ratio']['median']:.1f}", f"{row['share_of_update']:.1%}"]
            print(align(cells, WIDTHS), flush=True)
            write_json(args.output, results)
    if args.updates:
        results["loop"] = run_loop(device, args.batch, args.updates, args.compile, args.size[0], slices)
        print(sentence(results["loop"]))
        write_json(args.output, results)
    print(f"written: {args.output}")


# --- does the input keep up? -----------------------------------------------------------------------


def measure_input(
    kind: str, device: torch.device, batch: int, size: int, images: int, compiled: bool, repeats: int
) -> dict[str, Any]:
    """Decode `images` files once, or as many as a batch needs, then time batches and training steps in turns."""
    images = max(images, batch)
    with tempfile.TemporaryDirectory() as folder:
        files = INPUTS[kind](Path(folder), images, size)
        began = perf_counter()
        data = InMemory(files)
        decoding = perf_counter() - began
    variant = parse_variant(f"ours-{choose_precision('auto', device)}-{'compiled' if compiled else 'eager'}")
    station = Station(variant, TRAIN, device, batch, size)
    batches = prepared_batches(data, task_of(kind, data), Config(img_size=(size, size), batch_size=batch), device)
    times = in_turns({"batch": timer(lambda: next(batches), device), "step": station.seconds}, repeats)
    station.close()
    faster = ratio(times["step"], times["batch"])
    return {
        "input": kind,
        "size": size,
        "batch": batch,
        "step_variant": variant.name,
        "decode_images_per_s": images / decoding,
        "batches_images_per_s": batch / statistics.median(times["batch"]),
        "step_images_per_s": batch / statistics.median(times["step"]),
        "ratio": faster,
        "share_of_update": 1 / (1 + faster["median"]),
    }


def prepared_batches(data: InMemory, task: Task, cfg: Config, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of full size as the training loop makes them, epoch after epoch."""
    order = EpochBatches(len(data), cfg.batch_size, cfg.seed)
    loader, position = train_loader(data, order, cfg, pin=device.type == "cuda"), 0
    while True:
        for images, targets in loader:
            position += 1
            if len(images) == order.batch_size:
                yield prepare(images, targets, task, cfg, device, position, len(images), 0)
        order.epoch += 1


def write_slices(folder: Path, images: int, size: int) -> SynapseSlices:
    rng = np.random.default_rng(0)
    for index in range(images):
        image = cv2.GaussianBlur(rng.random((512, 512), np.float32), (0, 0), 2)
        np.savez(folder / f"case0001_slice{index:03}.npz", image=image, label=(image > 0.5).astype(np.uint8))
    return SynapseSlices(folder, sorted(path.stem for path in folder.iterdir()), (size, size))


def write_pictures(folder: Path, images: int, size: int) -> ImageMaskSet:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for index in range(images):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (288, 384, 3), np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), (picture[..., 0] > 127).astype(np.uint8) * 255)
    return ImageMaskSet(pair_files(folder), (size, size))


INPUTS = {"slices": write_slices, "pictures": write_pictures}


def task_of(kind: str, data: Dataset) -> Task:
    if kind == "pictures":
        return Task(kind, ("polyp",), data, pictures.augment, pictures.CVC_CLINICDB.preprocess, loss_for("dice", 1))
    organs, augment = ("organ",) * (NUM_CLASSES - 1), partial(volumes.augment, native=(512, 512))
    return Task(kind, organs, data, augment, volumes.SYNAPSE.preprocess, loss_for("ce_dice", NUM_CLASSES))


# --- how long would the whole training take? -------------------------------------------------------


def run_loop(device: torch.device, batch: int, updates: int, compiled: bool, side: int, slices: int) -> dict[str, Any]:
    """Rate of about `updates` updates of the real loop, and the whole training's time at that rate."""
    precision = choose_precision("auto", device)
    cfg = dataclasses.replace(volumes.SYNAPSE, batch_size=batch, img_size=(side, side), compile=compiled)
    run = start(build_model(cfg.num_classes, cfg.ssd, cfg.drop_path), cfg, device, precision)
    noise = torch.rand(slices, 1, side, side), torch.randint(0, NUM_CLASSES, (slices, side, side), dtype=torch.uint8)
    everything = InMemory(TensorDataset(*noise))
    first = Subset(everything, range(min(slices, 3 * batch + slices % batch)))
    an_epoch = math.ceil(slices / batch)
    epochs = max(1, round(updates / an_epoch))
    warm_up = epoch_seconds(run, first, cfg)
    seconds = 0.0
    for run.epoch in range(epochs):
        seconds += epoch_seconds(run, everything, cfg)
    rate = epochs * slices / seconds
    return {
        "batch": batch,
        "precision": precision,
        "compiled": compiled,
        "updates": epochs * an_epoch,
        "seconds": seconds,
        "warm_up_seconds": warm_up,
        "images_per_s": rate,
        "whole_training_minutes_extrapolated": IMAGE_STEPS / rate / 60,
    }


def epoch_seconds(run: Run, data: Dataset, cfg: Config) -> float:
    batches = EpochBatches(len(data), cfg.batch_size, cfg.seed)
    batches.epoch = run.epoch
    loader = train_loader(data, batches, cfg, pin=run.device.type == "cuda")
    task = task_of("slices", data)
    return timer(lambda: train_one_epoch(run, task, cfg, loader, "last", Path()), run.device)(1)


def sentence(r: dict[str, Any]) -> str:
    return (
        f"loop, batch {r['batch']}, {r['precision']}, {'compiled' if r['compiled'] else 'eager'}: "
        f"{r['images_per_s']:.1f} images/s over {r['updates']} updates, after {r['warm_up_seconds']:.0f} s of warming "
        f"up; extrapolated: {IMAGE_STEPS:,} image steps in {r['whole_training_minutes_extrapolated']:.1f} minutes"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
