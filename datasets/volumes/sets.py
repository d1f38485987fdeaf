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

from datasets.summary import DataSummary, try_each
from datasets.volumes.files import RAW, Volume, read_slice, read_stack, read_volume
from datasets.volumes.lists import SLICE_SUFFIXES, VOLUME_SUFFIXES, case_of, find_files, group_by_case
from utils.errors import UserError
from utils.preprocess import SLICES, Preprocess
from utils.preprocess.intensities import percentiles, stretch
from utils.preprocess.sizes import fit_image, fit_labels


class SynapseSlices(Dataset):
    """Training slices of `names` in `folder`, resized to `img_size`.

    item: image (1, S, S) float32 in [0, 1], but for the spline's overshoot; target (S, S) uint8; under the fit slide
        at least so large
    intensity: as `read_slice`; percentiles are those of all slices of a case in `names`
    raises: UserError at once for names without a file; on reading for a file that cannot be used
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str],
        img_size: tuple[int, int],
        pre: Preprocess = SLICES,
        intensity: str = "auto",
    ) -> None:
        self.names = list(names)
        self.img_size = tuple(img_size)
        self.pre, self.intensity = pre, intensity
        self.paths = find_files(folder, self.names, SLICE_SUFFIXES)
        self.limits: dict[str, tuple[float, float]] = {}  # of each case, where intensities are percentiles
        if intensity == "percentile":
            cases = {case: find_files(folder, names, SLICE_SUFFIXES) for case, names in group_by_case(names).items()}
            found = try_each(case_limits, list(cases.values()), 4, "percentiles", "cases cannot be read")
            self.limits = dict(zip(cases, found))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = read_slice(self.paths[index], intensity=RAW if self.limits else self.intensity)
        if self.limits:
            image = stretch(image, *self.limits[case_of(self.names[index])])
        image, label = fit_image(image, self.img_size, self.pre), fit_labels(label, self.img_size, self.pre)
        return torch.from_numpy(image)[None], torch.from_numpy(label)


def case_limits(paths: Sequence[Path]) -> tuple[float, float]:
    """The 0.5th and the 99.5th percentile of all values in the slices of one case."""
    return percentiles(np.concatenate([read_slice(path, intensity=RAW)[0].ravel() for path in paths]))


class SynapseVolumes(Sequence[Volume]):
    """Volumes of `names` in `folder`, each read when it is asked for."""

    def __init__(self, folder: str | Path, names: Sequence[str], intensity: str = "auto") -> None:
        self.names, self.intensity = list(names), intensity
        self.paths = find_files(folder, self.names, VOLUME_SUFFIXES)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Volume:
        return read_volume(self.paths[index], self.names[index], intensity=self.intensity)


class SliceVolumes(Sequence[Volume]):
    """The cases among the slices `names` as volumes, for validation on a part of the training cases.

    Slices of a case are stacked in the order of their numbers.
    raises: UserError as `read_stack`
    """

    def __init__(self, folder: str | Path, names: Sequence[str], intensity: str = "auto") -> None:
        self.intensity = intensity
        cases = group_by_case(names)
        self.names = list(cases)
        self.paths = [find_files(folder, slices, SLICE_SUFFIXES) for slices in cases.values()]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Volume:
        return read_stack(self.paths[index], self.names[index], self.intensity)


def check_slices(folder: str | Path, names: Sequence[str], num_classes: int, intensity: str = "auto") -> DataSummary:
    """Read every slice and count what is in them. raises: one UserError with all that is wrong with each file"""
    paths, num_cases = find_files(folder, names, SLICE_SUFFIXES), len(group_by_case(names))
    return _check(folder, paths, lambda path: read_slice(path, num_classes, intensity)[1][None], num_cases, 4)


def check_volumes(folder: str | Path, names: Sequence[str], num_classes: int, intensity: str = "auto") -> DataSummary:
    """Read every volume, one at a time, and count what is in them.

    raises: one UserError with all that is wrong with each file; a volume without label cannot be scored
    """

    def label(path: Path) -> np.ndarray:
        label = read_volume(path, path.name, num_classes, intensity).label
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
