"""Paired comparisons against published worked examples, SciPy called directly, and simulation."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regcore.evaluation import compare_methods, holm, paired_comparison

#: Hours of extra sleep of ten patients with two drugs (Student, Biometrika 1908).
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
#: Depression scores of nine patients before and after (Hollander & Wolfe, Nonparametric Statistical Methods, 1973).
DEPRESSION = (
    [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30],
    [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29],
)


@pytest.fixture(autouse=True)
def no_warnings():
    """Nothing here may warn: a study prints hundreds of comparisons."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def closed_testing(p: np.ndarray) -> np.ndarray:
    """Holm by its proof: the largest Bonferroni p-value of any set of hypotheses that holds this one."""
    sets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size)]
    return np.array([max(min(1, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(len(p))])


def test_the_t_test_of_the_sleep_data():
    """t = -4.0621 with 9 degrees of freedom, p = 0.002833, mean difference -1.58."""
    found = paired_comparison(*SLEEP)
    assert (found.n, found.dropped) == (10, 0)
    assert found.p_t == pytest.approx(0.002833, abs=5e-7)
    assert found.mean_difference == pytest.approx(-1.58, rel=1e-12)
    assert found.ci_low < -1.58 < found.ci_high < 0


def test_the_signed_rank_test_of_the_depression_data():
    """V = 40 of nine differences: 20 of 512 sign patterns are at least as extreme, p = 0.03906."""
    found = paired_comparison(*DEPRESSION)
    assert found.p_wilcoxon == pytest.approx(20 / 512, rel=1e-12)


def test_the_numbers_are_those_of_scipy(generator):
    a = generator.normal(0.7, 0.1, 60)
    b = a - generator.gamma(0.5, 0.05, 60)  # skewed, where kinds of bootstrap differ
    found = paired_comparison(a, b, confidence=0.9, resamples=500, seed=3)
    assert found.p_wilcoxon == stats.wilcoxon(a, b).pvalue
    assert found.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    same_draws = np.random.default_rng(3)
    low, high = stats.bootstrap(
        (a - b,), np.mean, confidence_level=0.9, n_resamples=500, random_state=same_draws, method="BCa"
    ).confidence_interval
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.slow
def test_the_interval_is_drawn_by_its_seed_and_turns_with_the_order():
    first = paired_comparison(*SLEEP, resamples=400, seed=1)
    assert first == paired_comparison(*SLEEP, resamples=400, seed=1)
    assert first.ci_low != paired_comparison(*SLEEP, resamples=400, seed=2).ci_low
    turned = paired_comparison(*SLEEP[::-1])
    assert (turned.mean_difference, turned.p_t) == (-first.mean_difference, first.p_t)
    assert turned.ci_low > 0
    wide = paired_comparison(*SLEEP, confidence=0.99)
    narrow = paired_comparison(*SLEEP, confidence=0.8)
    assert wide.ci_low < narrow.ci_low < narrow.ci_high < wide.ci_high


@pytest.mark.slow
def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    """300 samples of 25 skewed differences: coverage of 90 % within 4 standard errors and some small-sample loss."""
    generator = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        differences = generator.gamma(4.0, 0.5, 25) - 2.0
        found = paired_comparison(differences, np.zeros(25), confidence=0.9, resamples=300)
        covered.append(found.ci_low <= 0 <= found.ci_high)
    assert 0.83 < np.mean(covered) < 0.96


def test_pairs_with_a_missing_value_are_dropped_and_counted():
    a, b = np.array([*SLEEP[0], np.nan, 1.0, np.nan]), np.array([*SLEEP[1], 2.0, np.nan, np.nan])
    found, complete = paired_comparison(a, b), paired_comparison(*SLEEP)
    assert (found.n, found.dropped) == (10, 3)
    assert (found.p_t, found.p_wilcoxon, found.ci_low) == (complete.p_t, complete.p_wilcoxon, complete.ci_low)


def test_equal_methods_do_not_differ():
    found = paired_comparison([0.8, 0.7, 0.9], [0.8, 0.7, 0.9])
    assert (found.mean_difference, found.ci_low, found.ci_high, found.p_wilcoxon, found.p_t) == (0, 0, 0, 1, 1)


def test_a_constant_difference_is_its_own_interval():
    found = paired_comparison([1.5, 2.5, 3.5, 4.5, 5.5], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean_difference, found.ci_low, found.ci_high, found.p_t) == (0.5, 0.5, 0.5, 0)
    assert found.p_wilcoxon == 2 / 2**5


@pytest.mark.parametrize("pairs", [0, 1])
def test_fewer_than_two_pairs_are_no_test(pairs):
    found = paired_comparison([*[1.0, np.nan][:pairs], np.nan], [0.5, 1.0][: pairs + 1])
    assert (found.n, found.dropped) == (pairs, 1)
    np.testing.assert_array_equal(found.mean_difference, 0.5 if pairs else np.nan)
    assert np.isnan([found.ci_low, found.ci_high, found.p_wilcoxon, found.p_t]).all()


@pytest.mark.parametrize("a", [[0.0, 1.0], [0.0, 0.0, 1.0], [0.1] * 20 + [0.2], [-1.0, 1.0], list(range(-9, 11)) * 2])
def test_small_and_tied_samples_give_numbers(a):
    found = paired_comparison(a, np.zeros(len(a)), resamples=200)
    assert np.isfinite([found.ci_low, found.ci_high, found.p_wilcoxon, found.p_t]).all()
    assert found.ci_low <= found.mean_difference <= found.ci_high


def test_holm_on_a_worked_example():
    """Four tests: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 raised to the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    np.testing.assert_array_equal(holm([0.6, 0.7]), [1, 1])
    assert holm([]).shape == (0,)


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(holm([np.nan, 0.02, np.nan, 0.04]), [np.nan, 0.04, np.nan, 0.04], rtol=1e-12)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    np.testing.assert_allclose(holm(p), closed_testing(np.array(p)), rtol=1e-12)


def test_methods_are_compared_two_by_two(generator):
    scores = pd.DataFrame(generator.normal(0.7, 0.05, (30, 3)), columns=["syn", "affine", "learned"])
    scores["syn"] += 0.03
    scores.loc[0, "learned"] = np.nan
    table = compare_methods(scores, resamples=200)
    assert list(zip(table["first"], table["second"], strict=True)) == [
        ("syn", "affine"),
        ("syn", "learned"),
        ("affine", "learned"),
    ]
    assert table["n"].tolist() == [30, 29, 29] and table["dropped"].tolist() == [0, 1, 1]
    single = paired_comparison(scores["syn"], scores["learned"], resamples=200)
    assert table.loc[1, ["mean_difference", "ci_low", "p_t"]].tolist() == [
        single.mean_difference,
        single.ci_low,
        single.p_t,
    ]
    np.testing.assert_array_equal(table["p_wilcoxon_holm"], holm(table["p_wilcoxon"]))
    np.testing.assert_array_equal(table["p_t_holm"], holm(table["p_t"]))
    assert compare_methods(scores[["syn"]]).empty


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"b \(3,\) must have the shape of a \(2,\)"):
        paired_comparison([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"b \(2,\) must be one-dimensional, without infinite values"):
        paired_comparison([1, 2], [1, np.inf])
    with pytest.raises(ValueError, match=r"a \(1, 2\) must be one-dimensional"):
        paired_comparison([[1, 2]], [[1, 2]])
    for p in ([0.1, 1.2], [-0.1], [[0.1]]):
        with pytest.raises(ValueError, match=r"p_values \(.*\) must be a list of numbers from 0 to 1"):
            holm(p)
