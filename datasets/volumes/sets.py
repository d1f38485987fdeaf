"""Data sets in the Synapse layout: training slices, test volumes and their check.

Letters: N slices, D slices of one volume, H height, W width, S the network's input size.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.summary import DataSummary
from datasets.volumes.files import Volume, read_slice, read_volume
from datasets.volumes.lists import (
    SLICE_SUFFIXES,
    VOLUME_SUFFIXES,
    find_files,
    find_root,
    group_by_case,
    hold_out_cases,
    join_listed,
    read_list,
)
from utils.distributed import is_main
from utils.errors import UserError
from utils.preprocess import SLICES, resize_image, resize_labels

__all__ = [
    "SliceVolumes",
    "SynapseSlices",
    "SynapseVolumes",
    "Volume",
    "check_slices",
    "check_volumes",
    "find_root",
    "group_by_case",
    "hold_out_cases",
    "read_list",
]


class SynapseSlices(Dataset):
    """Training slices of `names` in `folder`, resized to `img_size`.

    item: image (1, S, S) float32 in [0, 1] (but for the spline's overshoot), target (S, S) uint8.
    Raises UserError at once for names without a file, later for a file that cannot be used.
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
        """What keeps these images in memory: uint8 where the first file has bytes of the right size, else float16."""
        with np.load(self.paths[0], allow_pickle=False) as arrays:
            image = arrays["image"]
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

    Slices of a case are stacked by their numbers; raises UserError where their sizes differ.
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
    """Read every slice; raises one UserError that lists each unusable file, with what is wrong, once."""
    paths = find_files(folder, list(names), SLICE_SUFFIXES)

    def count(path: Path) -> tuple[Counter, Counter]:
        _, label = read_slice(path, num_classes)
        return Counter([label.shape]), _classes(label[None])

    return _summary(folder, paths, count, len(group_by_case(names)), num_threads=4)


def check_volumes(folder: str | Path, names: Sequence[str], num_classes: int) -> DataSummary:
    """Read every volume, one at a time; raises one UserError that lists each unusable file, with what is wrong, once.

    A volume without label is a problem here: nothing could be measured on it.
    """
    paths = find_files(folder, list(names), VOLUME_SUFFIXES)

    def count(path: Path) -> tuple[Counter, Counter]:
        label = read_volume(path, path.name, num_classes).label
        if label is None:
            raise UserError(f"{path}: holds no `label`; expected one to evaluate against (predict.py needs none)")
        return Counter({label.shape[1:]: len(label)}), _classes(label)

    return _summary(folder, paths, count, len(paths), num_threads=1)


def _classes(label: np.ndarray) -> Counter:
    """Class -> number of slices of `label` (D, H, W) that show it."""
    return Counter(int(value) for plane in label for value in np.flatnonzero(np.bincount(plane.ravel())))


def _summary(folder: str | Path, paths: list[Path], count: Callable, num_cases: int, num_threads: int) -> DataSummary:
    """Gather what `count` finds in every file (sizes, classes), or the problems of all files in one UserError."""

    def attempt(path: Path) -> tuple[Counter, Counter] | str:
        try:
            return count(path)
        except UserError as error:
            return str(error).replace(str(path), path.name, 1)

    with ThreadPoolExecutor(num_threads) as pool:
        progress = tqdm(pool.map(attempt, paths), "check", len(paths), leave=False, disable=None if is_main() else True)
        results = list(progress)
    problems = [result for result in results if isinstance(result, str)]
    if problems:
        raise UserError(f"{folder}: {len(problems)} of {len(paths)} files cannot be used\n  {join_listed(problems)}")
    sizes, classes = Counter(), Counter()
    for sizes_of_file, classes_of_file in results:
        sizes.update(sizes_of_file)
        classes.update(classes_of_file)
    return DataSummary(num_cases, sizes.total(), dict(sizes), dict(classes))
