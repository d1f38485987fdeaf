"""Volumes and pictures through a network of fixed input size, and its answer at their own size.

B batch, K classes, D slices, H/W a slice's or picture's own height and width, S/T the network's. `forward` is any
function from a normalised batch (B, C, S, T) on the device to logits (B, K, S, T).

`standard` resizes logits to the own grid; `legacy`, the rule of the published tables, resizes slices by SciPy itself
and labels back, and takes pictures at the network's size.

`--fit slide` resizes nothing under either: it looks at an image's own resolution through overlapping windows of the
network's input size. The rules are those of MONAI's `sliding_window_inference` with mode "gaussian": windows on a
regular raster, the last one moved back to the border, logits averaged with Gaussian weights. The overlap is one half,
as in nnU-Net; MONAI's own default is a quarter.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from utils.config import Config
from utils.inference.forward import Forward, labels_from_logits, probabilities
from utils.preprocess.sizes import crop_margins, fit_image, network_input, resize_labels, resize_logits

MAX_LOGITS = 2**26  # values of logits at the slices' own size that are held at once: 256 MiB
OVERLAP = 0.5  # of two windows
SIGMA = 0.125  # standard deviation of the weights, as a share of the window's side
LEAST_WEIGHT = 1e-3


def predict_volume(
    forward: Forward, image: np.ndarray, cfg: Config, device: torch.device, keep: Callable[[Tensor], None] | None = None
) -> np.ndarray:
    """Label every slice of a volume.

    in:  slices as `utils.preprocess.intensities.as_trained` gives them, (D, H, W) or (D, H, W, 3);
        keep: called with the probabilities (n, K, H, W) of the next slices under `standard`
    out: uint8 (D, H, W)
    """
    pre, native, labels = cfg.preprocess, image.shape[1:3], []
    legacy = cfg.protocol == "legacy" and pre.fit != "slide"
    with ThreadPoolExecutor() as pool, torch.inference_mode():
        slices = iter(image)
        # on the host: later slices while these are in the network
        if legacy or (pre.resize == "area" and pre.fit != "slide"):
            slices = pool.map(partial(fit_image, size=cfg.img_size, pre=pre), image)
        while batch := list(islice(slices, cfg.batch_size)):
            logits = in_windows(forward, network_input(batch, cfg.img_size, pre, device), cfg.img_size, cfg.batch_size)
            if legacy:
                labels.append(labels_from_logits(logits))
                continue
            at_once = max(1, MAX_LOGITS // (logits.shape[1] * native[0] * native[1]))
            for part in logits.split(at_once):
                part = resize_logits(part, native, pre)
                labels.append(labels_from_logits(part))
                if keep:
                    keep(probabilities(part))
        found = torch.cat(labels).cpu().numpy()
    return resize_labels(crop_margins(found, native, pre), native, pre) if legacy else found


def predict_images(
    forward: Forward, images: Sequence[np.ndarray], cfg: Config, device: torch.device
) -> list[np.ndarray]:
    """Probabilities of one batch of pictures, whose own sizes may differ.

    in:  as `utils.preprocess.intensities.as_trained` gives them, (H, W) or (H, W, 3)
    out: float32 (H, W) for a binary network, else (K, H, W); (S, T) instead of (H, W) under `legacy`, unless cfg's
        images are seen through windows (`--fit slide`)
    """
    pre, maps = cfg.preprocess, []
    legacy, slide = cfg.protocol == "legacy", pre.fit == "slide"
    with torch.inference_mode():
        for group in [[image] for image in images] if slide else [images]:
            batch = network_input(group, cfg.img_size, pre, device)
            logits = in_windows(forward, batch, cfg.img_size, cfg.batch_size)
            for image, one in zip(group, logits.split(1)):
                one = one if legacy and not slide else resize_logits(one, image.shape[:2], pre)
                maps.append(probabilities(one)[0].squeeze(0).cpu().numpy())
    return maps


def decide(probabilities: np.ndarray) -> np.ndarray:
    """Labels of one picture: (H, W) -> bool, where the probability is at least one half; (K, H, W) -> uint8, arg max"""
    return probabilities >= 0.5 if probabilities.ndim == 2 else probabilities.argmax(0).astype(np.uint8)


def in_windows(forward: Forward, images: Tensor, size: tuple[int, int], batch_size: int) -> Tensor:
    """Logits of images that may be larger than the network's input `size`; one pass where they have that size.

    in:  (B, C, H, W), H and W at least those of `size`; batch_size: windows at a time
    out: float32 (B, K, H, W)
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return forward(images).float()
    rows, columns = (starts(length, window) for length, window in zip(images.shape[-2:], size, strict=True))
    places = [(image, top, left) for image in range(len(images)) for top in rows for left in columns]
    total = weights = None
    for begin in range(0, len(places), batch_size):
        chosen = places[begin : begin + batch_size]
        parts = [images[i, :, top : top + size[0], left : left + size[1]] for i, top, left in chosen]
        logits = forward(torch.stack(parts)).float()
        if total is None:
            total = logits.new_zeros(len(images), logits.shape[1], *images.shape[-2:])
            weights, weight = logits.new_zeros(images.shape[-2:]), gaussian(tuple(size)).to(logits.device)
        for (i, top, left), one in zip(chosen, logits):
            total[i, :, top : top + size[0], left : left + size[1]] += weight * one
    for top in rows:
        for left in columns:
            weights[top : top + size[0], left : left + size[1]] += weight
    return total / weights


def starts(length: int, window: int) -> list[int]:
    """Where windows along one side begin; the last one ends at the border."""
    step = max(1, int(window * (1 - OVERLAP)))
    number = 1 + math.ceil((length - window) / step)
    return [min(k * step, length - window) for k in range(number)]


@cache
def gaussian(size: tuple[int, int]) -> Tensor:
    """Weights (S, T) of a window: 1 in its middle, at least 0.001 at its border."""
    sides = [torch.arange(n) - (n - 1) / 2 for n in size]
    rows, columns = (torch.exp(-(x**2) / (2 * (SIGMA * n) ** 2)) for x, n in zip(sides, size))
    return (rows[:, None] * columns).clamp_min(LEAST_WEIGHT)
