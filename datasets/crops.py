"""`--fit slide` in training: from each image one random window of the network's input size, another in every epoch."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset


class RandomCrops(Dataset):
    """One window of each item of `dataset`, whose images may have any size from `size` on.

    A window depends on the seed, the epoch and the item's number alone, so a resumed run and one of several processes
    see the same. The items are read again in every epoch: no cache may keep their windows.
    item (index, epoch), or an index alone for epoch 0: image (C, S, T), target (S, T)
    """

    differs_by_epoch = True

    def __init__(self, dataset: Dataset, size: tuple[int, int], seed: int) -> None:
        self.dataset, self.size, self.seed = dataset, size, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        image, target = self.dataset[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        top, left = (int(rng.integers(n - s + 1)) for n, s in zip(target.shape, self.size, strict=True))
        window = (..., slice(top, top + self.size[0]), slice(left, left + self.size[1]))
        return image[window].clone(), target[window].clone()
