"""Means over cases, and how certain they are.

N cases, C columns (a class, a metric), R resamples. A NaN is a figure that a case does not have:
it is left out of every mean, in the resamples too.
"""

import numpy as np

NUM_RESAMPLES = 5000
LEVEL = 0.95


def bootstrap_means(values: np.ndarray, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of resampled cases: whole cases are drawn with replacement, all their columns together.

    in: (N, C); out: (R, C), NaN where a resample holds no figure of a column
    """
    num_cases = len(values)
    draws = np.random.default_rng(seed).multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=num_resamples)
    draws = draws.astype(np.float64)
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
