"""A data set in memory: the same numbers as the data set itself, whole batches, known size."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.memory import InMemory, Rounded, estimate_bytes, keep_in_memory, mapped_tensor
from datasets.volumes.sets import SynapseSlices
from tests.support.synapse_tree import LISTED, write_slices
from utils.errors import UserError


class Pictures(Dataset):
    """Ten colour pictures of bytes, 6 x 8, with their masks; `broken` ones raise."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (10, 3, 6, 8), dtype=torch.uint8, generator=generator)
        self.masks = torch.randint(0, 2, (10, 6, 8), dtype=torch.uint8, generator=generator)
        self.broken, self.reads = broken, 0

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += 1
        if index in self.broken:
            raise UserError(f"picture {index}.png is broken")
        return self.images[index], self.masks[index]


def test_bytes_stay_bytes():
    pictures = Pictures()
    stored = InMemory(pictures)
    reads = pictures.reads
    assert len(stored) == 10
    assert torch.equal(stored.images, pictures.images)
    assert torch.equal(stored.targets, pictures.masks)
    for i in (0, 7):
        assert all(torch.equal(a, b) for a, b in zip(stored[i], (pictures.images[i], pictures.masks[i])))
    assert pictures.reads == reads
    assert stored.images.dtype == torch.uint8


def test_batches_are_in_the_order_asked_for():
    pictures = Pictures()
    stored = InMemory(pictures)
    images, masks = stored.__getitems__([7, 2, 2])
    assert torch.equal(images, pictures.images[[7, 2, 2]])
    assert torch.equal(masks, pictures.masks[[7, 2, 2]])
    images.zero_()
    assert torch.equal(stored.images, pictures.images)
    loader = DataLoader(stored, batch_size=4, collate_fn=lambda batch: batch)
    assert [images.shape[0] for images, _ in loader] == [4, 4, 2]
    assert torch.equal(torch.cat([masks for _, masks in loader]), pictures.masks)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_floats_keep_eleven_bits(tmp_path, dtype):
    slices = SynapseSlices(write_slices(tmp_path, dtype=dtype), LISTED, (24, 20))
    stored = InMemory(slices)
    assert stored.images.dtype == torch.float16
    for i, (image, target) in enumerate(slices[i] for i in range(4)):
        assert ((stored.images[i].float() - image).abs() <= image * 2**-11 + 2**-25).all()
        assert torch.equal(stored.targets[i], target)


def held(stored: InMemory) -> int:
    return stored.images.nbytes + stored.targets.nbytes


def test_size_is_known_before_decoding(tmp_path):
    pictures = Pictures()
    assert estimate_bytes(pictures) == held(InMemory(Pictures())) == 10 * 6 * 8 * 4
    assert pictures.reads == 1
    slices = SynapseSlices(write_slices(tmp_path), LISTED, (8, 10))
    assert estimate_bytes(slices) == held(InMemory(slices)) == 4 * 8 * 10 * 3


def test_all_problems_in_one_error():
    with pytest.raises(UserError, match=r"2 of 10 items cannot be decoded\n  picture 3.*\n  picture 8.png is broken$"):
        InMemory(Pictures(broken=(3, 8)))


def test_modes():
    pictures = Pictures()
    assert isinstance(keep_in_memory(pictures, "no"), Rounded)
    assert isinstance(keep_in_memory(pictures, "yes"), InMemory)


def refusal(shape, needed, free):
    """Check that no tensor of `shape` bytes can be mapped, what is said of it, and that no file is left."""
    with pytest.raises(UserError, match=rf"heteromedseg-\w+ needs {needed:,} bytes, {free:,} are free; .*--cache no"):
        mapped_tensor(shape, torch.uint8)


def test_a_data_set_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=999))
    refusal((10, 100), 1000, 999)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_disk_space_that_cannot_be_reserved_is_refused_or_unknown(tmp_path, monkeypatch):
    codes = [errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP]

    def reserve(*_):
        raise OSError(codes.pop(0), "told by the test")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    for _ in ("full", "quota"):
        refusal((10, 100), 1000, 5000)
        assert not list(tmp_path.iterdir())
    assert mapped_tensor((10, 100), torch.uint8).sum() == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_the_space_of_a_mapped_tensor_is_taken_at_once(tmp_path, monkeypatch):
    """A file of holes would end the process with SIGBUS when the disk fills up later."""
    taken, memmap = [], np.memmap

    def note(file, *given, **named):
        taken.append(os.fstat(file.fileno()).st_blocks * 512)
        return memmap(file, *given, **named)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(np, "memmap", note)
    mapped_tensor((1 << 20,), torch.uint8)
    assert taken[0] >= 1 << 20


def test_mapped_set_is_that_in_memory_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mapped, kept = keep_in_memory(Pictures(), "disk"), InMemory(Pictures())
    if os.name == "posix":
        assert not list(tmp_path.iterdir())
        maps = Path("/proc/self/maps")
        assert not maps.exists() or maps.read_text().count(f"{tmp_path}/heteromedseg-") == 2
    for ours, theirs in zip(mapped.__getitems__([3, 9, 0]), kept.__getitems__([3, 9, 0])):
        assert torch.equal(ours, theirs)
    assert held(mapped) == held(kept)
