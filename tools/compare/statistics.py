"""Whether settings differ: paired tests of every two of them, class by class, and the average ranks of all.

T settings, N cases, K classes. Figures are (N, K) arrays, the same cases and classes in the same order for every
setting. A NaN is a figure that a case does not have: two settings are compared over the figures that both have.
Sources: Demšar, JMLR 2006 (ranks, Friedman, critical difference); Holm 1979; Kerby 2014 (rank-biserial correlation).
"""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from utils.scoring.statistics import bootstrap_means, compare_paired, holm, interval, mean_over

ALL_CLASSES = "all classes"
HIGHER = ("dice", "iou", "nsd", "boundary_f1", "precision", "recall", "specificity", "accuracy", "f1")
LOWER = ("hd95", "assd", "|volume_error|")
LEVEL = 0.05

Figures = Mapping[str, np.ndarray]


class PairResult(NamedTuple):
    """`second` against `first` on one class, or on the cases' means over classes.

    means, difference (second - first) and its 95 % interval: over the cases compared
    effect: matched-pairs rank-biserial correlation in [-1, 1], above 0 where `second` is larger
    p: Wilcoxon signed-rank, two-sided; p_holm: corrected over its family, all pairs (and all classes, for single ones)
    cases: how many were compared; one_sided: figures left out because only one of the two has them (often: a miss)
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
    one_sided: int


class Ranking(NamedTuple):
    """Average rank of each setting over cases, 1 the best, and whether the ranks differ at all.

    p: Friedman's test; critical_difference: Nemenyi's, of two average ranks; both NaN for fewer than three settings
    """

    average: dict[str, float]
    cases: int
    p: float
    critical_difference: float


def kind_of(metric: str) -> str:
    """What a column measures, without its unit: `hd95_mm` is hd95, `nsd_2px` is nsd."""
    return re.sub(r"_[\d.e+-]*(mm|px)3?$", "", metric)


def compare_all(figures: Figures, class_names: Sequence[str]) -> list[PairResult]:
    """Every two settings: first over all classes, then, where there are several, class by class.

    Over all classes a case counts with the mean over the classes for which both settings have a figure.
    """
    overall, single = [], []
    for first, second in combinations(figures, 2):
        rows = _compare_two(figures, first, second, class_names)
        overall.append(rows[0])
        single += rows[1:] if len(class_names) > 1 else []
    return _corrected(overall) + _corrected(single)


def _compare_two(figures: Figures, first: str, second: str, class_names: Sequence[str]) -> list[PairResult]:
    a, b = figures[first], figures[second]
    both = ~(np.isnan(a) | np.isnan(b))
    one = (np.isnan(a) != np.isnan(b)).sum(0)
    a, b = (np.where(both, x, np.nan) for x in (a, b))
    a, b = (np.column_stack([mean_over(x, 1), x]) for x in (a, b))
    samples = bootstrap_means(b - a)
    rows = []
    for k, name in enumerate((ALL_CLASSES, *class_names)):
        found = compare_paired(a[:, k], b[:, k])
        low, high = interval(samples[:, k]) if found.num_cases > 1 else (np.nan, np.nan)
        means = float(mean_over(a[:, k], 0)), float(mean_over(b[:, k], 0))
        left_out = int(one.sum() if k == 0 else one[k - 1])
        rows.append(
            PairResult(
                *(first, second, name, *means, found.difference, (low, high)),
                *(found.effect, found.p, np.nan, found.num_cases, left_out),
            )
        )
    return rows


def _corrected(rows: list[PairResult]) -> list[PairResult]:
    corrected = holm(np.array([row.p for row in rows]))
    return [row._replace(p_holm=float(p)) for row, p in zip(rows, corrected)]


def smallest_p(num_cases: int, num_tests: int) -> float:
    """The least p that N cases can give after Holm's correction of `num_tests`: all differences of one sign."""
    return min(1.0, 2.0 ** (1 - num_cases) * num_tests)


# --- ranks --------------------------------------------------------------------------------------


def rank_settings(figures: Figures, higher_is_better: bool) -> Ranking:
    """Average ranks over the cases' means over classes; only figures that every setting has are used."""
    values = np.stack(list(figures.values()))  # (T, N, K)
    complete = ~np.isnan(values).any(0)
    means = mean_over(np.where(complete, values, np.nan), 2)
    means = means[:, ~np.isnan(means[0])]
    num_settings, num_cases = means.shape
    ranks = rankdata(-means if higher_is_better else means, axis=0)
    average = dict(zip(figures, mean_over(ranks, 1).tolist()))
    p = critical = np.nan
    if num_settings > 2 and num_cases > 1:
        p = 1.0 if (ranks == ranks[0]).all() else float(friedmanchisquare(*means).pvalue)
        critical = critical_difference(num_settings, num_cases)
    return Ranking(average, num_cases, p, critical)


def critical_difference(num_settings: int, num_cases: int, level: float = LEVEL) -> float:
    """How far two average ranks must lie apart to differ (Nemenyi)."""
    quantile = studentized_range.ppf(1 - level, num_settings, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(num_settings * (num_settings + 1) / (6 * num_cases)))


def alike(average: Mapping[str, float], critical: float) -> list[list[str]]:
    """The largest groups, best first, whose average ranks lie within the critical difference; none of one."""
    order = sorted(average, key=average.__getitem__)
    groups: list[list[str]] = []
    for start, name in enumerate(order):
        group = [other for other in order[start:] if average[other] - average[name] <= critical]
        if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
            groups.append(group)
    return groups
