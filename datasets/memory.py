"""A data set that is decoded once and then kept in memory or in temporary files; it returns whole batches.

Letters: N items, B items of one batch, C channels, S the network's input size.
"""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.summary import try_each
from utils.device import num_cores
from utils.errors import UserError


class InMemory(Dataset):
    """Every (image, target) of a map-style data set, decoded once.

    float16 rounds by at most 2^-11 of a value: 0.2 HU of a CT window of 400 HU.
    images: (N, C, S, S), uint8 for bytes and float16 for floats; targets: (N, S, S) of the first target's type
    mapped: keep both in temporary files, which end with the process; the system loads and drops their pages
    raises: one UserError with the problems of all items that could not be decoded
    """

    def __init__(self, dataset: Dataset, mapped: bool = False) -> None:
        image, target = dataset[0]
        dtype = _storage_dtype(image)
        empty = mapped_tensor if mapped else torch.empty
        self.images = empty((len(dataset), *image.shape), dtype=dtype)
        self.targets = empty((len(dataset), *target.shape), dtype=target.dtype)

        def decode(index: int) -> None:
            image, target = dataset[index]
            self.images[index], self.targets[index] = image, target  # in their types

        num_threads = min(8, num_cores())
        try_each(decode, range(len(dataset)), num_threads, "decode", "items cannot be decoded")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A whole batch, images (B, C, S, S) and targets (B, S, S); the loader must not collate it again."""
        indices = torch.as_tensor(indices)
        return self.images.index_select(0, indices), self.targets.index_select(0, indices)


class Rounded(Dataset):
    """A data set whose images are rounded as `InMemory` rounds them, so that a training is the same with and without.

    Each is read when it is asked for.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.differs_by_epoch = getattr(dataset, "differs_by_epoch", False)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.dataset[index]
        return image.to(_storage_dtype(image)), target


def mapped_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros in a temporary file (of Python's `tempfile`: TMPDIR), whose space is free when the tensor is.

    raises: UserError where the disk has no room for it
    """
    size = math.prod(shape) * dtype.itemsize
    with tempfile.NamedTemporaryFile(prefix="heteromedseg-") as file:
        _reserve(file, size)
        content = np.memmap(file, np.uint8, "w+", shape=size)  # keeps the space when the file is closed and removed
    return torch.from_numpy(content).view(dtype).view(shape)


def _reserve(file: BinaryIO, needed: int) -> None:
    """Take the disk space of `file` now. raises: UserError when the disk is full

    Otherwise a full disk would end the process without a message (SIGBUS) when it writes to the mapped file.
    """
    free = shutil.disk_usage(Path(file.name).parent).free
    full = needed > free
    if not full and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, needed)
        except OSError as error:  # others: a file system that cannot reserve
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full:
        remedy = "set TMPDIR to a folder with more space, or use --cache no"
        raise UserError(f"--cache disk: {file.name} needs {needed:,} bytes, {free:,} are free; {remedy}")


def estimate_bytes(dataset: Dataset) -> int:
    """The bytes of `InMemory(dataset)`, from its first item alone."""
    image, target = dataset[0]
    return len(dataset) * (image.numel() * _storage_dtype(image).itemsize + target.nbytes)


def _storage_dtype(image: Tensor) -> torch.dtype:
    return torch.uint8 if image.dtype == torch.uint8 else torch.float16


def keep_in_memory(dataset: Dataset, mode: str) -> Dataset:
    """`InMemory(dataset)` for mode "yes", the same mapped for "disk", the same images one by one for "no"."""
    return Rounded(dataset) if mode == "no" else InMemory(dataset, mapped=mode == "disk")
