"""Data sets in the Synapse layout: training slices, test volumes and their check.

Letters: N slices, D slices of one volume, H height, W width, S the network's input size.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.files.arrays import read_arrays
from datasets.summary import DataSummary, try_each
from datasets.volumes.files import Volume, read_slice, read_volume
from datasets.volumes.lists import SLICE_SUFFIXES, VOLUME_SUFFIXES, find_files, group_by_case
from utils.errors import UserError
from utils.preprocess import SLICES, resize_image, resize_labels


class SynapseSlices(Dataset):
    """Training slices of `names` in `folder`, resized to `img_size`.

    item: image (1, S, S) float32 in [0, 1], but for the spline's overshoot; target (S, S) uint8
    raises: UserError at once for names without a file; on reading for a file that cannot be used
    """

    def __init__(self, folder: str | Path, names: Sequence[str], img_size: tuple[int, int]) -> None:
        self.names = list(names)
        self.img_size = tuple(img_size)
        self.paths = find_files(folder, self.names, SLICE_SUFFIXES)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = read_slice(self.paths[index])
        image, label = resize_image(image, self.img_size, SLICES), resize_labels(label, self.img_size, SLICES)
        return torch.from_numpy(image)[None], torch.from_numpy(label)

    def storage_dtype(self) -> torch.dtype:
        """The type to store these images in: uint8 where the first file has bytes of the right size, else float16."""
        image = read_arrays(self.paths[0], lambda names: ["image"])["image"]
        return torch.uint8 if image.dtype == np.uint8 and image.shape == self.img_size else torch.float16


class SynapseVolumes(Sequence[Volume]):
    """Volumes of `names` in `folder`, each read when it is asked for."""

    def __init__(self, folder: str | Path, names: Sequence[str]) -> None:
        self.names = list(names)
        self.paths = find_files(folder, self.names, VOLUME_SUFFIXES)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Volume:
        return read_volume(self.paths[index], self.names[index])


class SliceVolumes(Sequence[Volume]):
    """The cases among the slices `names` as volumes, for validation on a part of the training cases.

    Slices of a case are stacked in the order of their numbers.
    raises: UserError where their sizes differ
    """

    def __init__(self, folder: str | Path, names: Sequence[str]) -> None:
        self.cases = group_by_case(names)
        self.names = list(self.cases)
        self.paths = {case: find_files(folder, slices, SLICE_SUFFIXES) for case, slices in self.cases.items()}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Volume:
        name = self.names[index]
        images, labels = zip(*map(read_slice, self.paths[name]))
        shapes = sorted({image.shape for image in images})
        if len(shapes) > 1:
            folder = self.paths[name][0].parent
            raise UserError(f"{folder}: slices of {name} have sizes {shapes}; a case must have one size to be a volume")
        return Volume(name, np.stack(images), np.stack(labels), None)


def check_slices(folder: str | Path, names: Sequence[str], num_classes: int) -> DataSummary:
    """Read every slice and count what is in them. raises: one UserError with all that is wrong with each file"""

    def label(path: Path) -> np.ndarray:
        return read_slice(path, num_classes)[1][None]

    return _check(folder, find_files(folder, names, SLICE_SUFFIXES), label, len(group_by_case(names)), num_threads=4)


def check_volumes(folder: str | Path, names: Sequence[str], num_classes: int) -> DataSummary:
    """Read every volume, one at a time, and count what is in them.

    raises: one UserError with all that is wrong with each file; a volume without label cannot be scored
    """

    def label(path: Path) -> np.ndarray:
        label = read_volume(path, path.name, num_classes).label
        if label is None:
            raise UserError(f"{path}: holds no `label`; expected one to evaluate against (predict.py needs none)")
        return label

    return _check(folder, find_files(folder, names, VOLUME_SUFFIXES), label, len(names), num_threads=1)


def _check(folder: str | Path, paths: list[Path], label_of: Callable, num_cases: int, num_threads: int) -> DataSummary:
    """Count image sizes and classes of the label (D, H, W) of every file."""

    def count(path: Path) -> tuple[Counter, Counter]:
        label = label_of(path)
        classes = Counter(value for plane in label for value in np.flatnonzero(np.bincount(plane.ravel())).tolist())
        return Counter({label.shape[1:]: len(label)}), classes

    try:
        found = try_each(count, paths, num_threads, "check", "files cannot be used")
    except UserError as error:
        raise UserError(f"{folder}: {error}".replace(f"{Path(folder)}{os.sep}", "")) from None
    sizes, classes = (sum(counts, Counter()) for counts in zip(*found))
    return DataSummary(num_cases, sizes.total(), dict(sizes), dict(classes))
