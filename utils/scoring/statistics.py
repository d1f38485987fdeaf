"""Means over cases, and how certain they are.

N cases, C columns (a class, a metric), R resamples. A NaN is a figure that a case does not have:
it is left out of every mean, in the resamples too. Cases of a group (a video, a patient) are alike: resamples and tests
take groups as a whole. `groups` is (N,) int, the group of each case from 0, as `index_groups` gives it.
"""

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 5000
LEVEL = 0.95


def index_groups(names: Sequence[str]) -> np.ndarray:
    """The groups of cases as numbers, in the order in which their names first appear."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], int)


def group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Means over the cases of each group. in: (N, C); out: (G, C), NaN for a group without a figure"""
    present = ~np.isnan(values)
    counts, sums = np.zeros((2, groups.max() + 1, values.shape[1]))
    np.add.at(counts, groups, present)
    np.add.at(sums, groups, np.where(present, values, 0.0))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def bootstrap_means(
    values: np.ndarray, num_resamples: int = NUM_RESAMPLES, seed: int = 0, groups: np.ndarray | None = None
) -> np.ndarray:
    """Means of resampled groups: all cases of a group are drawn together, with replacement, and all their columns.

    in: (N, C); without `groups` each case is its own; out: (R, C), NaN where a resample holds no figure of a column
    """
    groups = np.arange(len(values)) if groups is None else groups
    num = int(groups.max()) + 1
    draws = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=num_resamples)[:, groups]
    draws = draws.astype(np.float64, order="C")  # the order of memory decides the last digit of the sums
    present = ~np.isnan(values)
    counts = draws @ present.astype(np.float64)
    sums = draws @ np.where(present, values, 0.0)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def interval(samples: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of one column's resampled means, NaN left out; (NaN, NaN) without any."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return np.nan, np.nan
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_over(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis without NaN; NaN, without a warning, where there is nothing else."""
    counts = (~np.isnan(values)).sum(axis)
    sums = np.nansum(values, axis)
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
