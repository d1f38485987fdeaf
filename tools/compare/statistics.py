"""Whether settings differ: paired tests of every two of them, class by class, and the average ranks of all.

T settings, S seeds, N cases, K classes. The figures of a setting are an (N, K) array; cases and classes come in one
order for all settings. NaN marks a figure that a case does not have: two settings are compared over the figures that
both have. `groups` is (N,) int, the group of each case (a video, a patient); without it each case is its own. Cases of
a group are alike, so tests and ranks are over the groups' means, and resamples are of groups.
Sources: Demšar, JMLR 2006 (ranks, Friedman, critical difference); Holm 1979; Kerby 2014 (rank-biserial correlation).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range, wilcoxon

from utils.scoring.statistics import bootstrap_means, group_means, interval, mean_over

ALL_CLASSES = "all classes"
LEVEL = 0.05

Figures = Mapping[str, np.ndarray]


class PairResult(NamedTuple):
    """`second` against `first` on one class, or on the cases' means over classes.

    means, difference (second - first) and its 95 % interval: over the cases compared
    effect: matched-pairs rank-biserial correlation in [-1, 1], above 0 where `second` is larger
    p: Wilcoxon signed-rank, two-sided; p_holm: corrected over all pairs, for single classes over all pairs and classes
    cases, groups: how many were compared; one_sided: figures, of each seed where seeds are matched, left out because
        only one of the two has them (often a miss)
    """

    first: str
    second: str
    class_name: str
    first_mean: float
    second_mean: float
    difference: float
    ci95: tuple[float, float]
    effect: float
    p: float
    p_holm: float
    cases: int
    groups: int
    one_sided: int


class Ranking(NamedTuple):
    """Average rank of each setting over groups, 1 the best, and whether the ranks differ at all.

    p: Friedman's test; critical_difference: Nemenyi's, of two average ranks; both NaN for fewer than three settings
    """

    average: dict[str, float]
    groups: int
    p: float
    critical_difference: float


def compare_all(figures: Figures, class_names: Sequence[str], groups: np.ndarray | None = None) -> list[PairResult]:
    """Compare every two settings over all classes, then, where there are several classes, class by class.

    Over all classes a case counts with its mean over the classes for which both settings have a figure.
    """
    pairs = combinations(figures.items(), 2)
    return correct([compare_two((a, b), x[None], y[None], class_names, groups) for (a, x), (b, y) in pairs])


def correct(pairs: Sequence[Sequence[PairResult]]) -> list[PairResult]:
    """The rows of all pairs, as `compare_two` gives them, with p_holm: first all classes, then several classes."""
    families = [[rows[0] for rows in pairs], [row for rows in pairs for row in rows[1:] if len(rows) > 2]]
    corrected = [holm([row.p for row in family]).tolist() for family in families]
    return [row._replace(p_holm=p) for family, ps in zip(families, corrected) for row, p in zip(family, ps)]


def compare_two(
    names: tuple[str, str],
    a: np.ndarray,
    b: np.ndarray,
    class_names: Sequence[str],
    groups: np.ndarray | None = None,
) -> list[PairResult]:
    """Compare two settings seed by seed, over all classes and each class; p_holm is NaN.

    in: a, b (S, N, K); a case counts with its mean over the seeds in which both have a figure
    """
    groups = np.arange(a.shape[1]) if groups is None else groups
    one_sided = (np.isnan(a) != np.isnan(b)).sum((0, 1))
    a, b = (mean_over(np.where(np.isnan(a + b), np.nan, x), 0) for x in (a, b))  # (N, K)
    a, b = (np.column_stack([mean_over(x, 1), x]) for x in (a, b))  # column 0: all classes
    samples, by_group = bootstrap_means(b - a, groups=groups), group_means(b - a, groups)
    rows = []
    for k, name in enumerate((ALL_CLASSES, *class_names)):
        difference = (b - a)[~np.isnan(b - a)[:, k], k]
        units = by_group[~np.isnan(by_group[:, k]), k]
        effect, p = paired_test(units)
        ci95 = interval(samples[:, k]) if len(units) > 1 else (np.nan, np.nan)
        means = (float(mean_over(x, 0)) for x in (a[:, k], b[:, k], difference))
        left_out = int(one_sided.sum() if k == 0 else one_sided[k - 1])
        rows.append(PairResult(*names, name, *means, ci95, effect, p, np.nan, len(difference), len(units), left_out))
    return rows


def paired_test(differences: np.ndarray) -> tuple[float, float]:
    """Effect and p of the two-sided Wilcoxon signed-rank test: (0, 1) where all pairs are equal, NaN without any pair.

    in: (number of pairs,), second minus first, without NaN; the effect is the rank-biserial correlation
    """
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return (0.0, 1.0) if len(differences) else (np.nan, np.nan)
    ranks = rankdata(np.abs(nonzero))
    return float((ranks * np.sign(nonzero)).sum() / ranks.sum()), float(wilcoxon(nonzero).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction of a family of p values, in their order; NaN stays NaN and is not counted."""
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full_like(p_values, np.nan)
    order = np.argsort(p_values, kind="stable")[: np.count_nonzero(~np.isnan(p_values))]  # NaN is sorted last
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def smallest_p(num_groups: int, num_tests: int) -> float:
    """The smallest p of so many groups after Holm's correction of `num_tests`: all differences of one sign."""
    return min(1.0, 2.0 ** (1 - num_groups) * num_tests)


def rank_settings(figures: Figures, higher_is_better: bool, groups: np.ndarray | None = None) -> Ranking:
    """Average ranks over the groups' means of all classes; only figures that every setting has are used."""
    values = np.stack(list(figures.values()))  # (T, N, K)
    means = mean_over(np.where(np.isnan(values).any(0), np.nan, values), 2)
    means = means if groups is None else group_means(means.T, groups).T
    means = means[:, ~np.isnan(means[0])]
    num_settings, num_groups = means.shape
    ranks = rankdata(-means if higher_is_better else means, axis=0)
    average = dict(zip(figures, mean_over(ranks, 1).tolist()))
    p = critical = np.nan
    if num_settings > 2 and num_groups > 1:
        p = 1.0 if (ranks == ranks[0]).all() else float(friedmanchisquare(*means).pvalue)
        critical = critical_difference(num_settings, num_groups)
    return Ranking(average, num_groups, p, critical)


def critical_difference(num_settings: int, num_groups: int) -> float:
    """How far two average ranks must lie apart to differ at the 5 % level (Nemenyi)."""
    quantile = studentized_range.ppf(1 - LEVEL, num_settings, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(num_settings * (num_settings + 1) / (6 * num_groups)))
