"""A data set decoded once and kept in memory, or in a file mapped into it, read back as whole batches.

Letters: N items, B items of one batch, C channels, S the network's input size.
"""

import atexit
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.volumes.lists import join_listed
from utils.device import free_memory
from utils.distributed import is_main, world_size
from utils.errors import UserError


class InMemory(Dataset):
    """Every (image, target) of a map-style data set, decoded once.

    images: (N, C, S, S); targets: (N, S, S) of the first target's type. Images are stored as the data set's
    `storage_dtype()` says, else bytes as bytes and floats as float16. float16 keeps 11 bits of each value, a relative
    rounding error of at most 2^-11: 0.2 HU at most of a CT window of 400 HU. Floats stored as uint8 are x * 255,
    rounded and clipped, which loses nothing where they were read from bytes.
    With `mapped` both lie in temporary files that the system reads in and drops as it needs; they vanish with the
    process.
    Raises one UserError with the problems of all items that could not be decoded.
    """

    def __init__(self, dataset: Dataset, mapped: bool = False) -> None:
        image, target = dataset[0]
        dtype = _storage_dtype(dataset, image)
        empty = mapped_tensor if mapped else torch.empty
        self.images = empty((len(dataset), *image.shape), dtype=dtype)
        self.targets = empty((len(dataset), *target.shape), dtype=target.dtype)

        def decode(index: int) -> str | None:
            try:
                image, target = dataset[index]
            except UserError as error:
                return str(error)
            if dtype == torch.uint8 and image.dtype.is_floating_point:
                image = (image * 255).round_().clamp_(0, 255)
            self.images[index], self.targets[index] = image, target
            return None

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            decoded = pool.map(decode, range(len(dataset)))
            results = list(tqdm(decoded, "decode", len(dataset), leave=False, disable=None if is_main() else True))
        problems = [problem for problem in results if problem is not None]
        if problems:
            found = f"{len(problems)} of {len(results)} items cannot be decoded"
            raise UserError(f"{found}\n  {join_listed(problems)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A whole batch, images (B, C, S, S) and targets (B, S, S), which a loader must not collate again."""
        indices = torch.as_tensor(indices)
        return self.images.index_select(0, indices), self.targets.index_select(0, indices)

    @property
    def nbytes(self) -> int:
        return self.images.nbytes + self.targets.nbytes


def mapped_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros in a temporary file (of Python's `tempfile`: TMPDIR), removed when the process ends."""
    with tempfile.NamedTemporaryFile(prefix="heteromedseg-", delete=False) as file:
        path = Path(file.name)
    tensor = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    try:
        path.unlink()  # the mapping keeps the space until it is gone
    except OSError:  # Windows removes no file in use
        atexit.register(path.unlink, missing_ok=True)
    return tensor


def estimate_bytes(dataset: Dataset) -> int:
    """`nbytes` of `InMemory(dataset)`, from its first item alone."""
    image, target = dataset[0]
    return len(dataset) * (image.numel() * _storage_dtype(dataset, image).itemsize + target.nbytes)


def _storage_dtype(dataset: Dataset, image: Tensor) -> torch.dtype:
    if hasattr(dataset, "storage_dtype"):
        return dataset.storage_dtype()
    return torch.uint8 if image.dtype == torch.uint8 else torch.float16


def keep_in_memory(dataset: Dataset, mode: str) -> Dataset:
    """`InMemory(dataset)` for mode "yes", mapped for "disk", the data set itself for "no".

    "auto" is "yes" where the set fits in half of the free memory, else "disk" where it fits in half of the free disk.
    """
    if mode == "auto":
        needed = estimate_bytes(dataset)
        on_disk = shutil.disk_usage(tempfile.gettempdir()).free
        mode = "yes" if needed <= free_memory() / 2 else "disk" if needed * world_size() <= on_disk / 2 else "no"
    return dataset if mode == "no" else InMemory(dataset, mapped=mode == "disk")
