"""A data set decoded once and kept in memory, read back as whole batches.

Letters: N items, B items of one batch, C channels, S the network's input size.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.synapse_lists import join_listed
from utils.runtime import UserError, is_main


class InMemory(Dataset):
    """Every (image, target) of a map-style data set, decoded by `num_threads` threads.

    images: (N, C, S, S) of `dtype`; targets: (N, S, S) of the first target's type.
    `dtype` "uint8" keeps images in [0, 1] as x * 255, rounded and clipped; "float16" keeps 11 bits of each value, a
    relative rounding error of at most 2^-11, 0.2 HU at most of a CT window of 400 HU; None asks the data set's
    `storage_dtype`, else keeps bytes as bytes and floats as float16. `unit_float` undoes either.
    Raises one UserError with the problems of all items that could not be decoded.
    """

    def __init__(self, dataset: Dataset, dtype: str | None = None, num_threads: int = 4) -> None:
        image, target = dataset[0]
        dtype = _storage_dtype(dataset, image, dtype)
        self.images = torch.empty((len(dataset), *image.shape), dtype=dtype)
        self.targets = torch.empty((len(dataset), *target.shape), dtype=target.dtype)

        def decode(index: int) -> str | None:
            try:
                image, target = dataset[index]
            except UserError as error:
                return str(error)
            self.images[index] = to_bytes(image) if dtype == torch.uint8 else image
            self.targets[index] = target
            return None

        with ThreadPoolExecutor(num_threads) as pool:
            indices = range(len(dataset))
            decoded = pool.map(decode, indices)
            results = list(tqdm(decoded, "decode", len(indices), leave=False, disable=None if is_main() else True))
        problems = [problem for problem in results if problem is not None]
        if problems:
            found = f"{len(problems)} of {len(results)} items cannot be decoded"
            raise UserError(f"{found}\n  {join_listed(problems)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch, images (B, C, S, S) and targets (B, S, S), copied; a DataLoader needs `collate_fn=as_it_is`."""
        indices = torch.as_tensor(indices)
        return self.images.index_select(0, indices), self.targets.index_select(0, indices)

    @property
    def nbytes(self) -> int:
        return self.images.nbytes + self.targets.nbytes


def as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The collate function of a data set whose `__getitems__` makes batches."""
    return batch


def estimate_bytes(dataset: Dataset, dtype: str | None = None) -> int:
    """`nbytes` of `InMemory(dataset, dtype)`, from its first item alone."""
    image, target = dataset[0]
    image_bytes = image.numel() * _storage_dtype(dataset, image, dtype).itemsize
    return len(dataset) * (image_bytes + target.nbytes)


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, x * 255 rounded and clipped; bytes stay what they are."""
    return images if images.dtype == torch.uint8 else (images * 255).round_().clamp_(0, 255).to(torch.uint8)


def unit_float(images: Tensor) -> Tensor:
    """Stored images as float32 in [0, 1]: bytes over 255, floats as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _storage_dtype(dataset: Dataset, image: Tensor, dtype: str | None) -> torch.dtype:
    if dtype is None:
        own = getattr(dataset, "storage_dtype", None)
        dtype = own() if own else "uint8" if image.dtype == torch.uint8 else "float16"
    return getattr(torch, dtype)


def keep_in_memory(dataset: Dataset, mode: str) -> Dataset:
    """`InMemory(dataset)` for mode "yes", the data set itself for "no"; "auto" decides by half of the free memory."""
    if mode == "no" or (mode == "auto" and estimate_bytes(dataset) > free_memory() / 2):
        return dataset
    return InMemory(dataset)


def free_memory() -> float:
    """Bytes of memory that can be had without swapping; unlimited where the system does not say (macOS, Windows)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    available = next(line for line in lines if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 1024
