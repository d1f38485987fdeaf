"""How sure a mean over cases is, and whether two runs differ.

N cases, C columns (a class, a metric), R resamples. A NaN is a figure that a case does not have:
it is left out of every mean, in the resamples too.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, wilcoxon

NUM_RESAMPLES = 5000


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


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of one column's resampled means, NaN left out; (NaN, NaN) without any."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return np.nan, np.nan
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Comparison(NamedTuple):
    """Paired comparison of two runs on one figure.

    difference: mean of second minus first; effect: matched-pairs rank-biserial correlation in [-1, 1],
    above 0 where the second is larger; p: two-sided Wilcoxon signed-rank; num_cases: pairs used
    """

    difference: float
    effect: float
    p: float
    num_cases: int


def compare_paired(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Wilcoxon signed-rank test over the cases that both runs have a figure for; p 1 where all are equal.

    in: two arrays (N,), case by case
    """
    both = ~(np.isnan(first) | np.isnan(second))
    differences = second[both] - first[both]
    if not len(differences):
        return Comparison(np.nan, np.nan, np.nan, 0)
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return Comparison(0.0, 0.0, 1.0, len(differences))
    ranks = rankdata(np.abs(nonzero))
    effect = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    return Comparison(float(differences.mean()), effect, float(wilcoxon(nonzero).pvalue), len(differences))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of a family of p values, in their order; NaN stays NaN and is not counted."""
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full_like(p_values, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def mean_over(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis without NaN; NaN, without a warning, where there is nothing else."""
    counts = (~np.isnan(values)).sum(axis)
    sums = np.nansum(values, axis)
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
