"""Batches of indices: one global order an epoch, shared out over the ranks.

With `world` ranks each batch is cut into `world` contiguous parts, so that any number of
ranks sees the same global batches in the same order as one process.
"""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from utils.config import Config
from utils.device import seed_worker
from utils.distributed import rank, world_size


class EpochBatches(Sampler[list[int]]):
    """This rank's part of each global batch of a shuffled epoch.

    The order is a function of (seed, epoch) alone. The last, smaller batch is kept, unless it has
    fewer images than there are ranks.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.epoch = 0
        sizes = [min(batch_size, num_images - i) for i in range(0, num_images, batch_size)]
        self.sizes = [size for size in sizes if size >= world_size()]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.num_images, generator=generator)
        for batch in order.split(self.batch_size)[: len(self)]:
            yield batch.tensor_split(world_size())[rank()].tolist()

    def offset(self, index: int) -> int:
        """Where this rank's part starts inside global batch number `index`."""
        size, world = self.sizes[index], world_size()
        base, longer = divmod(size, world)
        return rank() * base + min(rank(), longer)


def train_loader(dataset: Dataset, batches: EpochBatches, cfg: Config, pin: bool) -> DataLoader:
    """Loader of (images, targets) batches; a set in memory hands out whole batches, without workers."""
    in_memory = hasattr(dataset, "__getitems__")
    workers = 0 if in_memory else cfg.workers
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_is if in_memory else default_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=seed_worker,
        pin_memory=pin and not in_memory,
    )


def _as_is(batch: tuple) -> tuple:
    return batch
