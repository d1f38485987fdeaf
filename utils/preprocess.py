"""How an image becomes what the network sees, and how its output comes back to the image's own grid.

Training sets, validation, test.py, predict.py and the tools all call these functions with the `Preprocess` of the
run's Config, so that training and testing see an image alike.

Letters: N images or slices, H/W an image's own height and width, S/T the network's, C channels, K classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from torch import Tensor

from utils.errors import UserError
from utils.fields import check_saved

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZES = ("spline", "area")
INTENSITIES = ("ct", "range", "percentile", "unit")
FITS = ("squash", "pad", "slide")
WINDOW = (-125.0, 275.0)  # HU, the window of Synapse
UNKNOWN = "unknown"
AXES = ("RL", "AP", "IS")  # the two ends of each axis of a patient
ORIENTATIONS = ("", *("".join(ends) for axes in permutations(AXES) for ends in product(*axes)))
HU_OF_AIR = -500.0  # every CT shows air below this, whatever its calibration


@dataclass(frozen=True)
class Preprocess:
    """What a network was trained to see; part of Config, and so of every checkpoint.

    channels: 1 (slices) or 3 (RGB)
    resize: "spline", a cubic spline on a grid that keeps the corners, of floats (the slices of Synapse); or
        "area", the mean of areas where an image shrinks, on a grid that keeps the edges, of 8-bit values (pictures)
    mean, std: what normalises values in [0, 1], one for each channel
    intensity: how the values in [0, 1] were made of raw ones, one of INTENSITIES, or "unknown"
    orientation: the patient's direction (R or L, A or P, I or S) in which the axes (slice, row, column) of the training
        arrays grow, such as "SPL"; "" where it is not known: volumes are then taken as stored
    fit: how an image of another aspect or size is given to the network, one of FITS: "squash" resizes it to the
        network's size, as published; "pad" keeps its aspect and fills up with 0; "slide" keeps its own resolution and
        looks through overlapping windows of the network's size
    """

    channels: int
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    intensity: str = UNKNOWN
    orientation: str = ""
    fit: str = "squash"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """The value that `dataclasses.asdict` and JSON made of one. raises: ValueError that says what was expected"""
        known = {field.name: field for field in dataclasses.fields(cls)}
        if (
            not isinstance(values, Mapping)
            or not {"channels", "resize", "mean", "std"} <= values.keys() <= known.keys()
        ):
            raise ValueError(f"a dict of {', '.join(known)}")
        empty = {"orientation": ""} if values.get("orientation") == "" else {}
        pre = cls(**{name: check_saved(known[name], value) for name, value in values.items() if name not in empty})
        choices = {"channels": (1, 3), "resize": RESIZES, "intensity": (*INTENSITIES, UNKNOWN)}
        for name, expected in (choices | {"orientation": ORIENTATIONS, "fit": FITS}).items():
            if getattr(pre, name) not in expected:
                raise ValueError(f"{name} to be one of {', '.join(map(str, expected))}")
        if not len(pre.mean) == len(pre.std) == pre.channels or min(pre.std) <= 0:
            raise ValueError("a mean and an std above 0 for each channel")
        return pre


SLICES = Preprocess(channels=1, resize="spline", mean=(0.5,), std=(0.5,))
PICTURES = Preprocess(channels=3, resize="area", mean=IMAGENET_MEAN, std=IMAGENET_STD, intensity="range")


# --- values -------------------------------------------------------------------------------------


def check_finite(array: np.ndarray, source: str) -> None:
    """Refuse NaN and infinite values, which would give an empty mask. raises: UserError"""
    # the extremes are NaN or infinite where any value is, and take no memory
    if array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
        found = f"{np.count_nonzero(~np.isfinite(array)):,} of {array.size:,} values that are not finite"
        raise UserError(f"{source}: found {found} (NaN or infinite), expected numbers; replace them first")


def choose_intensity(array: np.ndarray, asked: str, pre: Preprocess, source: str) -> str:
    """How to bring the values of one file to [0, 1]: one of INTENSITIES.

    asked: one of INTENSITIES, or "auto": values in [0, 1] as they are, 8-bit integers as fractions of 255, anything
        else as the training data were made
    raises: UserError where that is unknown or does not fit the values, because a wrong guess would go unnoticed
    """
    if asked != "auto":
        return asked
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind in "fb" and low >= 0 and high <= 1:
        return "unit"
    if array.dtype == np.uint8:
        return "range"
    found = f"{source}: found {array.dtype} values from {low:g} to {high:g}"
    remedy = f"say with --intensity what they are: {', '.join(INTENSITIES)}"
    if pre.intensity == "range" and array.dtype.kind == "u":
        return "range"
    if pre.intensity in (UNKNOWN, "range", "unit"):
        raise UserError(f"{found}; the checkpoint does not tell how such values become [0, 1]; {remedy}")
    if pre.intensity == "ct" and low > HU_OF_AIR:
        raise UserError(f"{found}; the network was trained on CT, which shows air below {HU_OF_AIR:g} HU; {remedy}")
    return pre.intensity


def to_unit(array: np.ndarray, intensity: str, source: str) -> np.ndarray:
    """`array` as float32 in [0, 1].

    intensity: ct clips Hounsfield units to -125..275; range divides integers by their type's largest; percentile
        stretches the 0.5th to the 99.5th; unit takes values as they are
    raises: UserError where `intensity` does not fit the values
    """
    if intensity == "ct":
        return window_ct(array)
    if intensity == "percentile":
        return stretch(array, *percentiles(array))
    if intensity == "range":
        if array.dtype.kind not in "uib":
            raise UserError(f"{source}: --intensity range needs integers, found {array.dtype}; use percentile or ct")
        return array.astype(np.float32) / np.float32(1 if array.dtype.kind == "b" else np.iinfo(array.dtype).max)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise UserError(
            f"{source}: --intensity unit: found values {low:g} to {high:g}, expected 0 to 1; use ct or percentile"
        )
    return array.astype(np.float32)


def percentiles(array: np.ndarray) -> tuple[float, float]:
    """The 0.5th and the 99.5th percentile."""
    low, high = np.percentile(array, (0.5, 99.5))
    return float(low), float(high)


def stretch(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from `low` to `high` to [0, 1], others clipped; float32."""
    return np.clip((array.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def window_ct(hu: np.ndarray, low: float = WINDOW[0], high: float = WINDOW[1]) -> np.ndarray:
    """Clip Hounsfield units to [low, high] and scale them to [0, 1]; float32."""
    return (np.clip(hu.astype(np.float32), low, high) - np.float32(low)) / np.float32(high - low)


def as_trained(unit: np.ndarray, pre: Preprocess, colour: bool) -> np.ndarray:
    """Values in [0, 1] in the type and with the channels that training images have.

    in:  (..., H, W), or with `colour` (..., H, W, 3) RGB
    out: float32 (..., H, W) for one channel, uint8 (..., H, W, 3) for three
    """
    if pre.channels == 1:
        return unit @ np.array((0.299, 0.587, 0.114), np.float32) if colour else unit
    levels = np.rint(unit * 255).astype(np.uint8)
    return levels if colour else np.repeat(levels[..., None], 3, axis=-1)


def as_fraction(images: Tensor) -> Tensor:
    """float32 images; integers as fractions of their type's range."""
    if images.dtype.is_floating_point:
        return images.float()
    return images.float() / torch.iinfo(images.dtype).max


def normalise(images: Tensor, pre: Preprocess) -> Tensor:
    """(value - mean) / std, channel by channel. in and out: (B, C, H, W), values in [0, 1] in"""
    return torch.stack([(x - m) / s for x, m, s in zip(images.unbind(1), pre.mean, pre.std, strict=True)], dim=1)


# --- sizes --------------------------------------------------------------------------------------


def inner_size(native: tuple[int, int], grid: tuple[int, int], pre: Preprocess) -> tuple[int, int]:
    """Height and width that an image of the size `native` has within the network's grid; the rest is filled with 0."""
    if pre.fit == "squash":
        return tuple(grid)
    if pre.fit == "slide":
        return tuple(native)
    scale = min(g / n for g, n in zip(grid, native, strict=True))
    return tuple(min(g, max(1, round(n * scale))) for g, n in zip(grid, native, strict=True))


def grid_size(native: tuple[int, int], size: tuple[int, int], pre: Preprocess) -> tuple[int, int]:
    """Height and width of the network's grid: `size`, or under slide at least that and at least the image's own."""
    if pre.fit == "slide":
        return tuple(max(n, s) for n, s in zip(native, size, strict=True))
    return tuple(size)


def margins(inner: tuple[int, int], grid: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows before and after, columns before and after an image of the size `inner` in the middle of `grid`."""
    return [((g - n) // 2, g - n - (g - n) // 2) for n, g in zip(inner, grid, strict=True)]


def fit_image(image: np.ndarray, size: tuple[int, int], pre: Preprocess) -> np.ndarray:
    """(H, W[, C]) -> the network's grid for the input size `size`, as `pre.fit` says; its margins are 0."""
    grid = grid_size(image.shape[:2], size, pre)
    inner = inner_size(image.shape[:2], grid, pre)
    image = resize_image(image, inner, pre)
    return image if inner == grid else np.pad(image, margins(inner, grid) + [(0, 0)] * (image.ndim - 2))


def fit_labels(labels: np.ndarray, size: tuple[int, int], pre: Preprocess) -> np.ndarray:
    """Labels (..., H, W) on the grid of `fit_image`, by the nearest pixel; its margins are background."""
    grid = grid_size(labels.shape[-2:], size, pre)
    inner = inner_size(labels.shape[-2:], grid, pre)
    labels = resize_labels(labels, inner, pre)
    return labels if inner == grid else np.pad(labels, [(0, 0)] * (labels.ndim - 2) + margins(inner, grid))


def crop_margins(maps: np.ndarray | Tensor, native: tuple[int, int], pre: Preprocess) -> np.ndarray | Tensor:
    """The part (..., h, w) of maps on the network's grid that an image of the size `native` fills."""
    grid = tuple(maps.shape[-2:])
    inner = inner_size(native, grid, pre)
    (top, _), (left, _) = margins(inner, grid)
    return maps[..., top : top + inner[0], left : left + inner[1]]


def resize_image(image: np.ndarray, size: tuple[int, int], pre: Preprocess) -> np.ndarray:
    """(H, W[, C]) -> `size` (S, T) as training images are resized, in the array's own type; itself if it has that size.

    A cubic spline overshoots: its results may leave [0, 1] a little.
    """
    if image.shape[:2] == tuple(size):
        return image
    if pre.resize == "spline":
        return zoom(image, (size[0] / image.shape[0], size[1] / image.shape[1]), order=3)
    # plain bilinear reads four pixels however far apart the new ones are: hair and highlights would alias
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_labels(labels: np.ndarray, size: tuple[int, int], pre: Preprocess) -> np.ndarray:
    """Nearest pixel on the grid of `resize_image`. in: uint8 or bool (..., H, W); out: the same type (..., S, T)"""
    height, width = labels.shape[-2:]
    if (height, width) == tuple(size):
        return labels
    for axis, source, target in ((-2, height, size[0]), (-1, width, size[1])):
        index = nearest_index(source, target, pre.resize)
        labels = labels.take(index, axis=axis)
        outside = [slice(None)] * labels.ndim
        outside[axis] = index < 0
        labels[tuple(outside)] = 0
    return labels


@cache
def nearest_index(source: int, target: int, resize: str) -> np.ndarray:
    """Which of `source` pixels the nearest resize puts at each of `target`; -1 where SciPy's rounding leads outside."""
    if resize == "spline":
        return zoom(np.arange(1, source + 1), target / source, order=0) - 1
    # INTER_NEAREST takes the pixel to the upper left, half a pixel beside where the image is read
    pixels = np.arange(source, dtype=np.float32)[None]
    return cv2.resize(pixels, (target, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0].astype(np.int64)


@cache
def spline_matrix(source: int, target: int) -> np.ndarray:
    """SciPy's cubic zoom along one axis as a matrix: float32 (target, source)."""
    basis = np.eye(source)
    return np.stack([zoom(column, target / source, order=3) for column in basis], axis=1).astype(np.float32)


def resize_logits(logits: Tensor, size: tuple[int, int], pre: Preprocess) -> Tensor:
    """From the network's grid to an image's own `size`: margins cut off, then bilinear on the grid of `resize_image`.

    in: (B, K, S, T); out: (B, K, *size)
    """
    logits = crop_margins(logits, size, pre)
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=pre.resize == "spline")


def network_input(images: Sequence[np.ndarray], size: tuple[int, int], pre: Preprocess, device: torch.device) -> Tensor:
    """A batch for the network: on its grid, as fractions, normalised, on the device.

    Slices of one size are resized on the device, by the spline as two matrix products; other images by `fit_image`.

    in:  N images as `as_trained` gives them, (H, W) or (H, W, 3); under slide of one size
    out: float32 (N, C, S, T); under slide at least as large as each image
    """
    native = images[0].shape[:2]
    if pre.resize == "area" or any(image.shape != images[0].shape for image in images):
        images = [fit_image(image, size, pre) for image in images]
        native = images[0].shape[:2]
    batch = torch.from_numpy(np.stack(images)).to(device)
    grid = grid_size(native, size, pre)
    inner = inner_size(native, grid, pre)
    if native != inner:
        rows, columns = (torch.from_numpy(spline_matrix(n, m)).to(device) for n, m in zip(native, inner, strict=True))
        batch = rows @ batch @ columns.T
    if inner != grid:
        (top, bottom), (left, right) = margins(inner, grid)
        batch = F.pad(batch, (left, right, top, bottom))
    return normalise(as_fraction(batch[:, None] if batch.dim() == 3 else batch.permute(0, 3, 1, 2)), pre)
