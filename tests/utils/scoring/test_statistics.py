"""Bootstrap, interval and mean: against slow forms, known answers and their own guarantees."""

import math
from time import process_time

import numpy as np
import pytest

from utils.scoring.statistics import bootstrap_means, group_means, index_groups, interval, mean_over

NAN = math.nan


def test_bootstrap_is_resampling_of_whole_cases():
    """Every resampled mean is that of some multiset of cases, the same multiset in all columns."""
    values = np.array([[0.0, 0.0], [1.0, 10.0], [3.0, 30.0]])
    means = bootstrap_means(values, 500)
    np.testing.assert_allclose(means[:, 1], 10 * means[:, 0])
    possible = {round((a + b + c) / 3, 9) for a in (0, 1, 3) for b in (0, 1, 3) for c in (0, 1, 3)}
    assert set(means[:, 0].round(9)) == possible


def test_bootstrap_draws_all_cases_of_a_group():
    values = np.array([[0.0], [1.0], [NAN], [10.0]])
    groups = index_groups(["b", "b", "b", "a"])
    assert groups.tolist() == [0, 0, 0, 1]
    assert set(bootstrap_means(values, 500, groups=groups)[:, 0].round(9)) == {0.5, round(11 / 3, 9), 10.0}
    np.testing.assert_array_equal(group_means(values, groups), [[0.5], [10.0]])


def test_groups_of_one_case_are_as_good_as_none_to_the_last_digit():
    values = np.random.default_rng(0).random((40, 3))
    each = index_groups([str(-number) for number in range(40)])
    found = bootstrap_means(values, groups=each)
    np.testing.assert_array_equal(found, bootstrap_means(values))
    draws = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=5000).astype(np.float64)
    np.testing.assert_array_equal(found, (draws @ values) / 40)


def test_bootstrap_spread_is_the_standard_error():
    values = np.random.default_rng(0).normal(5, 2, (200, 1))
    means = bootstrap_means(values, 4000)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.05)
    low, high = interval(means[:, 0])
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(200), rel=0.07)


def test_bootstrap_leaves_out_nan_case_by_case():
    values = np.array([[2.0, NAN], [2.0, 7.0], [2.0, NAN]])
    means = bootstrap_means(values, 300)
    assert set(means[:, 0]) == {2.0}
    assert set(means[~np.isnan(means[:, 1]), 1]) == {7.0}
    assert np.isnan(means[:, 1]).mean() == pytest.approx((2 / 3) ** 3, abs=0.08)  # the one case was not drawn


def test_bootstrap_is_seeded_and_fast():
    values = np.random.default_rng(0).random((260, 12))
    start = process_time()
    first = bootstrap_means(values, 5000, seed=3)
    assert process_time() - start < 1.0
    np.testing.assert_array_equal(first, bootstrap_means(values, 5000, seed=3))
    assert (first != bootstrap_means(values, 5000, seed=4)).any()


def test_interval():
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert interval(np.array([NAN, 1.0, NAN])) == (1.0, 1.0)
    assert all(math.isnan(x) for x in interval(np.array([NAN])))


def test_mean_over():
    values = np.array([[1.0, NAN], [3.0, NAN]])
    np.testing.assert_array_equal(mean_over(values, 0), [2.0, NAN])
    np.testing.assert_array_equal(mean_over(values, 1), [1.0, 3.0])
