"""From images of any size to labels and probabilities of that size, through a network of fixed input size.

B batch, K classes, D slices, H/W the image's own height and width, S/T the network's. `forward` is
any function from a batch (B, C, S, T), already normalised and on the device, to logits (B, K, S, T).

Slices of volumes are resized as the training slices are: a cubic spline on a grid that keeps the
corners (`scipy.ndimage.zoom`). `legacy` calls SciPy and resizes labels back; `standard` applies the
same spline as two matrix products on the device and resizes logits back on the same grid.
Images are resized as the training images are, averaging areas where they shrink (`resize_image`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from os import cpu_count

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from torch import Tensor

from utils.inference.forward import Forward, labels_from_logits, probabilities

Normalise = Callable[[Tensor], Tensor]
MAX_LOGITS = 2**26  # values of logits at the image's own size that are held at once: 256 MiB


# --- volumes ----------------------------------------------------------------------------------


def predict_volume(
    forward: Forward,
    image: np.ndarray,
    img_size: tuple[int, int],
    normalise: Normalise,
    device: torch.device,
    batch_size: int = 24,
    protocol: str = "standard",
) -> np.ndarray:
    """Label every slice of a volume. in: float32 (D, H, W) in [0, 1]; out: uint8 (D, H, W)"""
    predict = _predict_legacy if protocol == "legacy" else _predict_standard
    with torch.inference_mode():
        return predict(forward, image, img_size, normalise, device, batch_size)


def _predict_standard(
    forward: Forward,
    image: np.ndarray,
    img_size: tuple[int, int],
    normalise: Normalise,
    device: torch.device,
    size: int,
) -> np.ndarray:
    native = image.shape[1:]
    rows, columns = (torch.from_numpy(spline_matrix(n, m)).to(device) for n, m in zip(native, img_size, strict=True))
    labels = torch.empty(image.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(image), size):
        batch = torch.from_numpy(np.ascontiguousarray(image[start : start + size], np.float32)).to(device)
        if native != tuple(img_size):
            batch = rows @ batch @ columns.T
        logits = forward(normalise(batch[:, None])).float()
        at_once = max(1, MAX_LOGITS // (logits.shape[1] * native[0] * native[1]))
        for i, part in zip(range(start, len(image), at_once), logits.split(at_once)):
            labels[i : i + len(part)] = labels_from_logits(resize_logits(part, native, corners=True))
    return labels.cpu().numpy()


def _predict_legacy(
    forward: Forward,
    image: np.ndarray,
    img_size: tuple[int, int],
    normalise: Normalise,
    device: torch.device,
    size: int,
) -> np.ndarray:
    native = image.shape[1:]
    resize = partial(_zoom_slice, size=tuple(img_size))
    labels = []
    with ThreadPoolExecutor(cpu_count()) as pool:
        slices = pool.map(resize, image)  # the next batch is resized while this one is in the network
        for _ in range(0, len(image), size):
            batch = np.stack(list(islice(slices, size)))
            logits = forward(normalise(torch.from_numpy(batch)[:, None].to(device)))
            labels.append(labels_from_logits(logits).cpu().numpy())
    return zoom_labels(np.concatenate(labels), native)


def _zoom_slice(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape == size:
        return image
    return zoom(image, (size[0] / image.shape[0], size[1] / image.shape[1]), order=3)


def zoom_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`scipy.ndimage.zoom(..., order=0)` of every slice, as a look-up: in (D, S, T), out (D, H, W)."""
    for axis, target in ((1, size[0]), (2, size[1])):
        if labels.shape[axis] != target:
            source = nearest_index(labels.shape[axis], target)
            labels = labels.take(source, axis=axis)
            labels[(slice(None),) * axis + (source < 0,)] = 0
    return labels


@cache
def nearest_index(source: int, target: int) -> np.ndarray:
    """Which of `source` pixels SciPy's nearest zoom puts at each of `target`; -1 where rounding leads outside."""
    return zoom(np.arange(1, source + 1), target / source, order=0) - 1


@cache
def spline_matrix(source: int, target: int) -> np.ndarray:
    """SciPy's cubic zoom along one axis as a matrix: float32 (target, source)."""
    basis = np.eye(source)
    return np.stack([zoom(column, target / source, order=3) for column in basis], axis=1).astype(np.float32)


def resize_logits(logits: Tensor, size: tuple[int, int], corners: bool) -> Tensor:
    """Bilinear resize, on a grid that keeps the corners or one that keeps the pixels' edges."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=corners)


# --- images -----------------------------------------------------------------------------------


def predict_images(
    forward: Forward,
    images: Sequence[np.ndarray],
    img_size: tuple[int, int],
    normalise: Normalise,
    device: torch.device,
    protocol: str = "standard",
) -> list[np.ndarray]:
    """Probabilities of one batch of images, whose own sizes may differ.

    in: (H, W) or (H, W, C) each, integers as fractions of their type's range, floats in [0, 1]
    out: float32 (H, W) for a binary network, else (K, H, W); (S, T) instead of (H, W) under `legacy`
    """
    with torch.inference_mode():
        batch = torch.stack([_network_input(image, img_size) for image in images]).to(device)
        logits = forward(normalise(batch)).float()
        maps = []
        for image, one in zip(images, logits.split(1), strict=True):
            if protocol != "legacy":
                one = resize_logits(one, image.shape[:2], corners=False)
            maps.append(probabilities(one)[0].squeeze(0).cpu().numpy())
    return maps


def predict_image(
    forward: Forward,
    image: np.ndarray,
    img_size: tuple[int, int],
    normalise: Normalise,
    device: torch.device,
    protocol: str = "standard",
) -> np.ndarray:
    """`predict_images` of one image."""
    return predict_images(forward, [image], img_size, normalise, device, protocol)[0]


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Area average if both sides shrink, else bilinear: what `datasets` does to training images."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _network_input(image: np.ndarray, img_size: tuple[int, int]) -> Tensor:
    """float32 (C, S, T) in [0, 1], resized in the image's own type as in training."""
    image = resize_image(image, img_size)
    scale = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
    channels = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return torch.from_numpy(np.ascontiguousarray(channels, np.float32) / np.float32(scale))
