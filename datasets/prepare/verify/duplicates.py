"""Images that look alike: a perceptual hash finds candidates among all pairs, a comparison of thumbnails decides.

The hash is the usual one of 64 bits: the signs of the lowest frequencies of a 32x32 image. Letters: N images.
"""

from collections.abc import Iterator

import cv2
import numpy as np

SIDE, LOW = 32, 8
ROWS = 1024  # compared at a time


def sketch(image: np.ndarray) -> np.ndarray:
    """The 32x32 grey image that is compared, float32. in: (H, W) or (H, W, 3)"""
    grey = image.astype(np.float32)
    if grey.ndim == 3:
        grey = grey @ np.array((0.299, 0.587, 0.114), np.float32)
    return cv2.resize(np.nan_to_num(grey, posinf=0, neginf=0), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def hashes(sketches: np.ndarray) -> np.ndarray:
    """(N, 32, 32) -> (N, 64) of -1 and 1: whether a frequency is above the median of its image."""
    low = np.stack([cv2.dct(one)[:LOW, :LOW].ravel() for one in sketches])
    return np.where(low > np.median(low, axis=1, keepdims=True), 1, -1).astype(np.float32)


def alike(
    sketches: np.ndarray, parts: np.ndarray, most_bits: int, least_correlation: float
) -> Iterator[tuple[int, int, float]]:
    """(i, j, correlation) of images of different parts that look alike: few bits and a high correlation apart.

    in: sketches (N, 32, 32); parts (N,) whole numbers; images of one part are not compared
    """
    bits, flat = hashes(sketches), sketches.reshape(len(sketches), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    for start in range(0, len(bits), ROWS):
        distance = (LOW * LOW - bits[start : start + ROWS] @ bits.T) / 2
        different = parts[start : start + ROWS, None] != parts
        for i, j in np.argwhere((distance <= most_bits) & different) + np.array((start, 0)):
            if i < j and (correlation := float(flat[i] @ flat[j])) >= least_correlation:
                yield int(i), int(j), correlation
