"""Batches of indices: one random order of the images for each epoch, divided among the ranks.

Each batch is cut into one contiguous part for each rank, so that any number of ranks sees
the same global batches in the same order as one process.
"""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from utils.config import Config
from utils.distributed import rank, world_size
from utils.errors import UserError, counted
from utils.training.stopping import ignore_signals


class EpochBatches(Sampler[list[int]]):
    """This rank's part of each global batch of a shuffled epoch.

    The order is a function of (seed, epoch) alone; `first` is the batch to begin an epoch with. The last, smaller batch
    is left out under `drop_last`, unless it is the only one, and where it has fewer images than there are ranks.
    with_epoch: yield (index, epoch) instead of an index, for a data set whose items differ between epochs
    raises: UserError where no batch is left
    """

    with_epoch = False

    def __init__(self, num_images: int, batch_size: int, seed: int, drop_last: bool = False) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.epoch, self.first = 0, 0
        complete, rest = divmod(num_images, batch_size)
        sizes = [batch_size] * complete + ([] if drop_last and complete else [rest])
        self.sizes = [size for size in sizes if size >= world_size()]
        if not self.sizes:
            raise UserError(
                f"--batch_size {batch_size}: a batch of {min(batch_size, num_images)} images is too small for "
                f"{world_size()} processes; each needs at least one image"
            )

    def describe(self) -> str:
        """How many batches an epoch has, and what is left out of it."""
        words = f"{counted(len(self), 'batch')} an epoch"
        if self.num_images < self.batch_size:
            images = counted(self.num_images, "image")
            words += f"; the training set is smaller than --batch_size: its one batch has {images}"
        elif left_out := self.num_images - sum(self.sizes):
            images = counted(left_out, "image")
            words += f"; the last, incomplete one is left out: each epoch lacks {images}, others every time"
        return words

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.num_images, generator=generator)
        for batch in order.split(self.batch_size)[self.first : len(self)]:
            mine = batch.tensor_split(world_size())[rank()].tolist()
            yield [(index, self.epoch) for index in mine] if self.with_epoch else mine

    def offset(self, index: int) -> int:
        """Where this rank's part starts inside global batch number `index`."""
        size, world = self.sizes[index], world_size()
        base, longer = divmod(size, world)
        return rank() * base + min(rank(), longer)


def train_loader(dataset: Dataset, batches: EpochBatches, cfg: Config, pin: bool) -> DataLoader:
    """Loader of (images, targets) batches; a data set in memory returns whole batches and needs no workers.

    pin: copy batches to page-locked memory, from which a GPU fetches them while the host goes on
    """
    in_memory = hasattr(dataset, "__getitems__")
    batches.with_epoch = getattr(dataset, "differs_by_epoch", False)
    workers = 0 if in_memory else cfg.workers
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=(lambda batch: batch) if in_memory else default_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=ignore_signals,
        pin_memory=pin,
    )
