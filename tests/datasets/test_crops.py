"""Random windows of images of several sizes: where they lie, and what they depend on."""

import torch
from torch.utils.data import Dataset

from datasets.crops import RandomCrops
from datasets.memory import keep_in_memory
from utils.config import Config
from utils.training.batches import EpochBatches, train_loader


class Numbered(Dataset):
    """Images of growing size whose pixels are their place; the target is the same plus one."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        shape = 8 + index, 12
        place = torch.arange(shape[0] * shape[1], dtype=torch.int32).reshape(shape)
        return place[None].repeat(3, 1, 1), place + 1


def test_image_and_target_are_cut_alike_and_every_place_comes_up():
    crops = RandomCrops(Numbered(), (8, 8), seed=3)
    corners = set()
    for epoch in range(200):
        image, target = crops[4, epoch]
        assert (image.shape, target.shape) == ((3, 8, 8), (8, 8))
        assert torch.equal(image[1] + 1, target)
        top, left = divmod(int(image[0, 0, 0]), 12)
        assert torch.equal(image[0], Numbered()[4][0][0, top : top + 8, left : left + 8])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(5) for left in range(5)}
    assert len(crops) == 5
    image, _ = crops[0, 7]
    assert int(image[0, 0, 0]) < 12


def test_a_window_depends_on_seed_epoch_and_number_alone():
    crops = RandomCrops(Numbered(), (8, 8), seed=3)
    assert torch.equal(crops[4, 1][0], RandomCrops(Numbered(), (8, 8), seed=3)[4, 1][0])
    assert torch.equal(crops[4][0], crops[4, 0][0])
    firsts = {(seed, epoch): int(RandomCrops(Numbered(), (8, 8), seed)[4, epoch][0][0, 0, 0])
              for seed in range(3) for epoch in range(3)}  # fmt: skip
    assert len(set(firsts.values())) > 4


def windows_of(dataset, workers: int) -> list[torch.Tensor]:
    """The images of three epochs."""
    batches, epochs = EpochBatches(5, 2, seed=1), []
    loader = train_loader(dataset, batches, Config(workers=workers), pin=False)
    for epoch in range(3):
        batches.epoch = epoch
        epochs.append(torch.cat([images for images, _ in loader]))
    return epochs


def test_the_loader_tells_the_epoch_to_every_worker():
    crops = RandomCrops(Numbered(), (8, 8), 3)
    alone, shared = (windows_of(crops, workers) for workers in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(alone, shared))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1_000_003 + 2)).tolist()
    assert torch.equal(alone[2], torch.stack([crops[index, 2][0] for index in order]))


def test_windows_differ_between_epochs_as_training_holds_them():
    """train.py wraps its data set by `keep_in_memory`."""
    crops = RandomCrops(Numbered(), (8, 8), 3)
    held = windows_of(keep_in_memory(crops, "no"), 0)
    assert all(torch.equal(a.half(), b) for a, b in zip(windows_of(crops, 0), held))
