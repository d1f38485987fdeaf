"""Bootstrap, paired test, Holm: against slow forms, textbook figures and their own guarantees."""

import math
from time import process_time

import numpy as np
import pytest

from utils.scoring.statistics import bootstrap_means, compare_paired, holm, interval

NAN = math.nan


def test_bootstrap_is_resampling_of_whole_cases():
    """Every resampled mean is that of some multiset of cases, the same multiset in all columns."""
    values = np.array([[0.0, 0.0], [1.0, 10.0], [3.0, 30.0]])
    means = bootstrap_means(values, 500)
    np.testing.assert_allclose(means[:, 1], 10 * means[:, 0])
    possible = {round((a + b + c) / 3, 9) for a in (0, 1, 3) for b in (0, 1, 3) for c in (0, 1, 3)}
    assert set(means[:, 0].round(9)) == possible


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
    assert interval(np.arange(101.0), level=0.5) == pytest.approx((25, 75))
    assert all(math.isnan(x) for x in interval(np.array([NAN])))


def test_comparison_known_values():
    first = np.array([0.0, 0.0, 0.0, 0.0, 0.0, NAN, 1.0])
    second = np.array([1.0, 2.0, 3.0, 4.0, -5.0, 1.0, NAN])
    found = compare_paired(first, second)
    # ranks 1 + 2 + 3 + 4 up against 5 down: effect (10 - 5) / 15; exact p = P(min rank sum <= 5) = 20 / 32
    assert found == pytest.approx((1.0, 1 / 3, 20 / 32, 5))


def test_comparison_of_equal_and_of_no_cases():
    same = np.array([0.5, 0.25, NAN])
    assert compare_paired(same, same) == (0.0, 0.0, 1.0, 2)
    nothing = compare_paired(np.array([NAN, 1.0]), np.array([1.0, NAN]))
    assert nothing.num_cases == 0
    assert math.isnan(nothing.p)


def test_comparison_has_a_direction():
    low, high = np.arange(8.0), np.arange(8.0) + np.linspace(1, 2, 8)
    assert compare_paired(low, high) == pytest.approx((1.5, 1.0, 2 / 2**8, 8))
    assert compare_paired(high, low)[:2] == pytest.approx((-1.5, -1.0))


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.02, NAN, 0.01], [0.02, NAN, 0.02]),
        ([0.01, 0.01, 0.5], [0.03, 0.03, 0.5]),
        ([], []),
    ],
)
def test_holm(p_values, expected):
    np.testing.assert_allclose(holm(np.array(p_values)), expected)
