"""The image and the pixel that tools.explain looks at, in the image's own grid and in the network's.

Shapes: H/W height and width of the image, S/T of the network's input, K classes.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.files.image import read_image
from utils.config import Config
from utils.errors import UserError
from utils.inference.forward import labels_from_logits
from utils.inference.segment import turned
from utils.log import log
from utils.preprocess.intensities import as_trained, choose_intensity, to_unit
from utils.preprocess.sizes import network_input, placed


@dataclass(frozen=True)
class Input:
    """One image ready for the network.

    batch: float32 (1, 1 or 3, S, T), normalised; shown: uint8 (S, T) or (S, T, 3), what the network sees;
    size: (H, W); index: the slice of a volume, else None; box: rows and columns of the input that the image fills
    """

    path: str
    batch: Tensor
    shown: np.ndarray
    size: tuple[int, int]
    index: int | None
    box: tuple[range, range]


def read_input(given: argparse.Namespace, cfg: Config) -> Input:
    """The picture, or the slice of a volume, that `--image` and `--slice` name, turned and resized as predict.py does.

    raises: UserError for files that are missing or damaged, and for slices that are not there
    """
    image, pre, index = read_image(Path(given.image), upright=True), cfg.preprocess, None
    volume = image.kind == "volume"
    lies = image.orientation, pre.orientation, given.image, image.spacing
    array = turned(image.array, *lies) if volume else image.array
    unit = to_unit(array, choose_intensity(array, given.intensity, pre, given.image), given.image)
    if volume:
        index = len(unit) // 2 if given.slice is None else given.slice
        if not 0 <= index < len(unit):
            raise UserError(f"--slice {index}: {given.image} has {len(unit)} slices; expected 0 to {len(unit) - 1}")
        unit = unit[index]
    elif given.slice is not None:
        raise UserError(f"--slice {given.slice}: {given.image} is a single picture; leave the flag out")
    seen = as_trained(unit, pre, colour=unit.ndim == 3)
    batch = network_input([seen], cfg.img_size, pre, torch.device("cpu"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (pre.mean, pre.std))
    shown = ((batch[0] * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    inner, margins = placed(seen.shape[:2], batch.shape[2:], pre)
    box = tuple(range(before, before + length) for length, (before, _) in zip(inner, margins, strict=True))
    return Input(given.image, batch, shown, seen.shape[:2], index, box)


def chosen_pixel(text: str | None, logits: Tensor, image: Input) -> tuple[tuple[int, int], tuple[int, int]]:
    """The pixel that `--pixel Y,X` names, else the middle of the prediction: in the image and in the network's input.

    in: logits (K, S, T)
    raises: UserError for what is no pixel of the image
    """
    rows, columns = image.box
    inner = (len(rows), len(columns))
    if text is None:
        row, column = predicted_pixel(logits[:, rows.start : rows.stop, columns.start : columns.stop])
        return move_pixel((row, column), inner, image.size), (rows[row], columns[column])
    if not re.fullmatch(r"\d+,\d+", text):
        raise UserError(f"--pixel {text}: expected row and column, as in --pixel 120,96")
    row, column = map(int, text.split(","))
    height, width = image.size
    if row >= height or column >= width:
        raise UserError(
            f"--pixel {text}: outside of {image.path}, which is {height} x {width}; "
            f"expected a row up to {height - 1} and a column up to {width - 1}"
        )
    place = row, column
    row, column = move_pixel(place, image.size, inner)
    return place, (rows[row], columns[column])


def move_pixel(pixel: tuple[int, int], source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The pixel of a grid of size `target` in which the middle of a pixel of `source` lies."""
    row, column = (int((place + 0.5) * m / n) for place, n, m in zip(pixel, source, target))
    return row, column


def predicted_pixel(logits: Tensor) -> tuple[int, int]:
    """The predicted foreground pixel nearest to the foreground's center of mass; without foreground, the middle.

    in: logits (K, H, W)
    """
    places = labels_from_logits(logits[None])[0].nonzero().double()
    if not len(places):
        log("no foreground was predicted: looking at the middle of the image; --pixel Y,X names another place")
        return logits.shape[1] // 2, logits.shape[2] // 2
    row, column = places[(places - places.mean(0)).square().sum(1).argmin()].long().tolist()
    return row, column
