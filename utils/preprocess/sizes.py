"""From an image's own size to the network's input, and labels and logits back.

Letters: N images or slices, H/W an image's own height and width, S/T the network's, C channels, K classes.
"""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from torch import Tensor

from utils.preprocess import Preprocess
from utils.preprocess.intensities import as_fraction, normalise


def placed(native: Sequence[int], size: Sequence[int], pre: Preprocess) -> tuple[tuple[int, ...], list]:
    """Height and width that an image of the size `native` has on the network's grid, and its margins, which are 0.

    The grid has the size `size`; under slide each side is at least the image's own.
    out: (height, width), [(rows above, rows below), (columns before, columns behind)]
    """
    inner = tuple(size)
    if pre.fit == "slide":
        inner = tuple(native)
    elif pre.fit == "pad":
        scale = min(s / n for n, s in zip(native, size, strict=True))
        inner = tuple(min(s, max(1, round(n * scale))) for n, s in zip(native, size, strict=True))
    free = [max(s - n, 0) for n, s in zip(inner, size, strict=True)]
    return inner, [(one // 2, one - one // 2) for one in free]


def fit_image(image: np.ndarray, size: tuple[int, int], pre: Preprocess) -> np.ndarray:
    """(H, W[, C]) -> the network's grid for the input size `size`, as `pre.fit` says; its margins are 0."""
    inner, margins = placed(image.shape[:2], size, pre)
    image = resize_image(image, inner, pre)
    return np.pad(image, margins + [(0, 0)] * (image.ndim - 2)) if np.any(margins) else image


def fit_labels(labels: np.ndarray, size: tuple[int, int], pre: Preprocess) -> np.ndarray:
    """Labels (..., H, W) on the grid of `fit_image`, by the nearest pixel; its margins are background."""
    inner, margins = placed(labels.shape[-2:], size, pre)
    labels = resize_labels(labels, inner, pre)
    return np.pad(labels, [(0, 0)] * (labels.ndim - 2) + margins) if np.any(margins) else labels


def crop_margins(maps: np.ndarray | Tensor, native: tuple[int, int], pre: Preprocess) -> np.ndarray | Tensor:
    """The part (..., h, w) of maps on the network's grid that an image of the size `native` fills."""
    (height, width), ((top, _), (left, _)) = placed(native, maps.shape[-2:], pre)
    return maps[..., top : top + height, left : left + width]


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
        np.moveaxis(labels, axis, -1)[..., index < 0] = 0
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
    inner, ((top, bottom), (left, right)) = placed(native, size, pre)
    if native != inner:
        rows, columns = (torch.from_numpy(spline_matrix(n, m)).to(device) for n, m in zip(native, inner, strict=True))
        batch = rows @ batch @ columns.T
    if bottom or right:
        batch = F.pad(batch, (left, right, top, bottom))
    return normalise(as_fraction(batch[:, None] if batch.dim() == 3 else batch.permute(0, 3, 1, 2)), pre)
