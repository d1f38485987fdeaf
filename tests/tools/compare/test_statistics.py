"""Statistics of a comparison: pairs, ranks and critical difference by hand and against SciPy."""

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from tests.support.result_folders import CLASSES, NAN
from tools.compare.statistics import (
    ALL_CLASSES,
    compare_all,
    compare_two,
    critical_difference,
    holm,
    paired_test,
    rank_settings,
    smallest_p,
)
from utils.scoring.statistics import bootstrap_means, interval


@pytest.mark.parametrize(
    ("differences", "effect", "p"),
    [
        # ranks 1 + 2 + 3 + 4 up against 5 down: effect (10 - 5) / 15; exact p = P(smaller rank sum <= 5) = 20 / 32
        ([1.0, 2.0, 3.0, 4.0, -5.0], 1 / 3, 20 / 32),
        (np.linspace(1, 2, 8), 1.0, 2 / 2**8),
        (-np.linspace(1, 2, 8), -1.0, 2 / 2**8),
        ([0.0, 0.0], 0.0, 1.0),
        ([], NAN, NAN),
    ],
)
def test_paired_test(differences, effect, p):
    assert paired_test(np.array(differences)) == pytest.approx((effect, p), nan_ok=True)


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
    np.testing.assert_allclose(holm(p_values), expected)


def test_pairs_against_scipy_and_by_hand():
    rng = np.random.default_rng(0)
    figures = {name: rng.random((15, 2)) for name in "abc"}
    rows = compare_all(figures, CLASSES)
    assert [(r.first, r.second, r.class_name) for r in rows[:3]] == [
        ("a", "b", ALL_CLASSES),
        ("a", "c", ALL_CLASSES),
        ("b", "c", ALL_CLASSES),
    ]
    assert len(rows) == 3 + 3 * 2
    for row in rows:
        columns = [0, 1] if row.class_name == ALL_CLASSES else [CLASSES.index(row.class_name)]
        first, second = (figures[name][:, columns].mean(1) for name in (row.first, row.second))
        assert row.p == pytest.approx(wilcoxon(first, second).pvalue)
        assert row.difference == pytest.approx((second - first).mean())
        assert (row.first_mean, row.second_mean) == pytest.approx((first.mean(), second.mean()))
        assert row.ci95[0] < row.difference < row.ci95[1]
        assert row.ci95[1] - row.ci95[0] == pytest.approx(2 * 1.96 * (second - first).std() / math.sqrt(15), rel=0.1)
        assert (row.cases, row.one_sided) == (15, 0)
    # Two families: all pairs, and all pairs and classes
    np.testing.assert_allclose([r.p_holm for r in rows[:3]], holm(np.array([r.p for r in rows[:3]])))
    np.testing.assert_allclose([r.p_holm for r in rows[3:]], holm(np.array([r.p for r in rows[3:]])))
    smallest = min(rows[3:], key=lambda r: r.p)
    assert smallest.p_holm == pytest.approx(min(1, 6 * smallest.p))


def test_a_pair_is_compared_over_what_both_have():
    a = np.array([[0.5, NAN], [0.5, 0.9], [NAN, 0.2], [0.1, 0.3]])
    b = np.array([[0.7, 0.1], [0.6, 0.9], [NAN, NAN], [0.1, 0.5]])
    overall, liver, spleen = compare_all({"a": a, "b": b}, CLASSES)
    # cases: +0.2 (liver alone), mean(0.1, 0), none, mean(0, 0.2)
    assert overall.difference == pytest.approx((0.2 + 0.05 + 0.1) / 3)
    assert (overall.cases, overall.one_sided) == (3, 2)
    assert (liver.cases, liver.one_sided) == (3, 0)
    assert (spleen.cases, spleen.one_sided, spleen.difference) == (2, 2, pytest.approx(0.1))
    assert overall.effect == 1.0


def test_seeds_are_matched_and_a_figure_that_one_seed_lacks_is_left_out():
    a = np.array([[[0.5], [0.1], [NAN]], [[0.3], [0.9], [NAN]]])  # two seeds of three cases
    b = np.array([[[0.7], [NAN], [0.2]], [[0.4], [0.8], [NAN]]])
    (row,) = compare_two(("a", "b"), a, b, ("polyp",))[:1]
    assert row.difference == pytest.approx(((0.2 + 0.1) / 2 - 0.1) / 2)  # case 1 counts with its second seed alone
    assert (row.cases, row.one_sided) == (2, 2)
    assert (row.first_mean, row.second_mean) == pytest.approx(((0.4 + 0.9) / 2, (0.55 + 0.8) / 2))


def test_tests_and_ranks_are_over_groups():
    rng = np.random.default_rng(0)
    figures = {name: rng.random((12, 1)) for name in "abc"}
    groups = np.repeat(np.arange(6), 2)
    row = compare_all(figures, ("polyp",), groups)[0]
    first, second = (figures[name].reshape(6, 2).mean(1) for name in "ab")
    assert (row.cases, row.groups) == (12, 6)
    assert row.difference == pytest.approx((figures["b"] - figures["a"]).mean())
    assert row.p == pytest.approx(wilcoxon(second - first).pvalue)
    assert row.ci95 == pytest.approx(interval(bootstrap_means((second - first)[:, None])[:, 0]))
    means = {name: values.reshape(6, 2).mean(1)[:, None] for name, values in figures.items()}
    assert rank_settings(figures, True, groups) == rank_settings(means, True)


def test_one_class_is_not_reported_twice():
    figures = {"a": np.zeros((4, 1)), "b": np.ones((4, 1))}
    assert [row.class_name for row in compare_all(figures, ("polyp",))] == [ALL_CLASSES]


def test_no_common_figure():
    row = compare_all({"a": np.array([[NAN], [1.0]]), "b": np.array([[1.0], [NAN]])}, ("polyp",))[0]
    assert (row.cases, row.one_sided) == (0, 2)
    assert math.isnan(row.p)
    assert math.isnan(row.p_holm)


def test_ranks_by_hand():
    # case 0: a best; case 1: tie of a and b; case 2: c best; case 3: b has none and is left out of all
    dice = {
        "a": np.array([[0.9], [0.5], [0.2], [0.9]]),
        "b": np.array([[0.8], [0.5], [0.1], [NAN]]),
        "c": np.array([[0.1], [0.4], [0.3], [0.1]]),
    }
    ranking = rank_settings(dice, higher_is_better=True)
    assert ranking.average == pytest.approx({"a": (1 + 1.5 + 2) / 3, "b": (2 + 1.5 + 3) / 3, "c": (3 + 3 + 1) / 3})
    assert ranking.groups == 3
    assert ranking.p == pytest.approx(friedmanchisquare(*(v[:3, 0] for v in dice.values())).pvalue)
    lower = rank_settings(dice, higher_is_better=False).average
    assert lower == pytest.approx({name: 4 - rank for name, rank in ranking.average.items()})


def test_ranks_of_two_and_of_equals():
    two = rank_settings({"a": np.ones((5, 1)), "b": np.zeros((5, 1))}, higher_is_better=True)
    assert two.average == {"a": 1.0, "b": 2.0}
    assert math.isnan(two.p)
    assert math.isnan(two.critical_difference)
    same = rank_settings({name: np.ones((5, 2)) for name in "abc"}, higher_is_better=True)
    assert same.average == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert same.p == 1.0


@pytest.mark.parametrize(("settings", "quantile"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference_is_demsars_table(settings, quantile):
    assert critical_difference(settings, 14) == pytest.approx(
        quantile * math.sqrt(settings * (settings + 1) / (6 * 14)), rel=3e-4
    )


def test_smallest_p_is_scipys_for_differences_of_one_sign():
    for cases in (3, 5, 6, 9):
        assert smallest_p(cases, 1) == pytest.approx(wilcoxon(np.arange(1.0, cases + 1)).pvalue)
    assert smallest_p(6, 1) < 0.05 < smallest_p(6, 3)
    assert smallest_p(1, 4) == 1.0
