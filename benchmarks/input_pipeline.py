"""Does the input keep up? Images a second of decoding and of batches with augmentation, against the training step.

    python -m benchmarks.input_pipeline [--device auto] [--batch 24] [--size 224,256,512] [--mode eager] [--repeats 5]

Synthetic files of the real kinds and sizes, 512 x 512 npz slices and 384 x 288 PNG pictures, are decoded and resized
once into memory, as training does it. Then batches (index, move to the device, scale, augment, normalise) and
training steps at the best precision of the device take turns. `times` is how many times faster batches come than
steps need them; on a CPU, where both share the cores, `share` is the part of an update that the input takes.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

import isic_polyp_rectal.task as pictures
import synapse_train_test.task as volumes
from benchmarks.machine import ROOT, spread, write_json
from benchmarks.measure import in_turns, ratio
from benchmarks.station import TRAIN, Station
from benchmarks.tables import align
from benchmarks.variants import parse_variant
from datasets.augment import normalise_imagenet, normalise_synapse
from datasets.images.pairs import ImageMaskSet, pair_files
from datasets.memory import InMemory
from datasets.volumes.sets import SynapseSlices
from utils.config import Config
from utils.device import choose_device, choose_precision, describe_device
from utils.training.batches import EpochBatches, train_loader
from utils.training.engine import prepare
from utils.training.losses import loss_for
from utils.training.task import Task

WIDTHS = (9, 5, 6, 16, 17, 14, 8, 8)
HEADER = ("input", "size", "batch", "decode images/s", "batches images/s", "step images/s", "times", "share")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", default="224,256,512", help="sides with commas")
    parser.add_argument("--images", type=int, default=96, help="files to write and decode")
    parser.add_argument("--mode", default="eager", choices=("eager", "compiled"), help="of the training step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", default=ROOT / "results" / "input_pipeline.json")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: does it run?")
    args = parser.parse_args(argv)
    if args.smoke:
        args.batch, args.size, args.images, args.repeats = 1, "64", 3, 1
    device = choose_device(args.device)
    results: dict[str, Any] = {"device": describe_device(device), "rows": []}
    print(align(HEADER, WIDTHS, left=(0,)))
    with tempfile.TemporaryDirectory() as folder:
        for size in (int(size) for size in args.size.split(",")):
            for kind in KINDS:
                row = measure(kind, Path(folder) / kind, device, args.batch, size, args.images, args.mode, args.repeats)
                results["rows"].append(row)
                print(align(_cells(row), WIDTHS, left=(0,)), flush=True)
                write_json(args.output, results)
    print(f"written: {args.output}")


def measure(
    kind: str, folder: Path, device: torch.device, batch: int, size: int, images: int, mode: str, repeats: int
) -> dict[str, Any]:
    """Decode `images` files once, then time batches and training steps in turns."""
    write, read, task = KINDS[kind]
    if not folder.exists():
        write(folder, images)
    began = perf_counter()
    data = InMemory(read(folder, (size, size)))
    decoding = perf_counter() - began
    word = f"ours-{choose_precision('auto', device)}-{mode}"
    station = Station(parse_variant(word), TRAIN, device, batch, size)
    times = in_turns({"batch": batch_timer(data, task, device, batch, size), "step": station.seconds}, repeats)
    station.close()
    faster = ratio(times["step"], times["batch"])
    return {
        "input": kind,
        "size": size,
        "batch": batch,
        "step_variant": station.variant.name,
        "decode_images_per_s": images / decoding,
        "seconds_a_batch": spread(times["batch"]),
        "seconds_a_step": spread(times["step"]),
        "batches_images_per_s": batch / statistics.median(times["batch"]),
        "step_images_per_s": batch / statistics.median(times["step"]),
        "ratio": faster,
        "share_of_update": 1 / (1 + faster["median"]),
    }


def batch_timer(
    data: InMemory, task: Callable[[InMemory], Task], device: torch.device, batch: int, size: int
) -> Callable[[int], float]:
    """Seconds a batch as the training loop makes it, over some number of batches."""
    cfg = Config(img_size=(size, size), batch_size=batch, workers=0)
    made = _batches(data, task(data), cfg, device)

    def seconds(count: int) -> float:
        began = perf_counter()
        for _ in range(count):
            next(made)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (perf_counter() - began) / count

    seconds(2)
    return seconds


def _batches(data: InMemory, task: Task, cfg: Config, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Prepared batches of full size, epoch after epoch."""
    order = EpochBatches(len(data), min(cfg.batch_size, len(data)), cfg.seed)
    loader, position = train_loader(data, order, cfg, pin=device.type == "cuda"), 0
    while True:
        for images, targets in loader:
            position += 1
            if len(images) == order.batch_size:
                yield prepare(images, targets, task, cfg, device, position, len(images), 0)
        order.epoch += 1


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    rates = (f"{row[name]:.1f}" for name in ("decode_images_per_s", "batches_images_per_s", "step_images_per_s"))
    where = (row["input"], str(row["size"]), str(row["batch"]))
    return (*where, *rates, f"{row['ratio']['median']:.1f}", f"{row['share_of_update']:.1%}")


# --- the two kinds of input ------------------------------------------------------------------------


def write_slices(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(images):
        image = cv2.GaussianBlur(rng.random((512, 512), np.float32), (0, 0), 2)
        np.savez(folder / f"case0001_slice{index:03}.npz", image=image, label=(image > 0.5).astype(np.uint8))


def read_slices(folder: Path, size: tuple[int, int]) -> SynapseSlices:
    return SynapseSlices(folder, sorted(path.stem for path in folder.iterdir()), size)


def write_pictures(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(images):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (288, 384, 3), np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), (picture[..., 0] > 127).astype(np.uint8) * 255)


def read_pictures(folder: Path, size: tuple[int, int]) -> ImageMaskSet:
    return ImageMaskSet(pair_files(folder), size)


def _slices_task(data: InMemory) -> Task:
    return Task("slices", ("organ",) * 8, data, volumes.augment, normalise_synapse, loss_for("ce_dice", 9))


def _pictures_task(data: InMemory) -> Task:
    return Task("pictures", ("polyp",), data, pictures.augment, normalise_imagenet, loss_for("dice", 1))


KINDS = {
    "slices": (write_slices, read_slices, _slices_task),
    "pictures": (write_pictures, read_pictures, _pictures_task),
}

if __name__ == "__main__":
    main(sys.argv[1:])
