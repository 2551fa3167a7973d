"""Permutation, exact and stratified tests, and the control of many of them."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.multitest import multipletests

from pipeline.metrics.tests import (
    bounded_mean,
    cochran_mantel_haenszel,
    false_discovery,
    fisher_exact,
    permutation_gap,
    sign_flip,
)

values = st.lists(st.integers(-4, 4), min_size=1, max_size=8)


@given(values, st.sampled_from(["greater", "two-sided"]))
def test_sign_flip_is_exact_for_few_images(effects, alternative):
    effects = 0.1 * np.array(effects)  # tenths don't sum exactly: ties must still count
    sums = [np.dot(signs, effects) for signs in product((-1, 1), repeat=len(effects))]
    far = np.abs(sums) >= abs(effects.sum()) - 1e-9 if alternative == "two-sided" else sums >= effects.sum() - 1e-9
    assert sign_flip(effects, np.random.default_rng(0), alternative=alternative) == pytest.approx(np.mean(far))


def test_sign_flip_monte_carlo_agrees_with_the_exact_binomial():
    # effects of one size: the test is the sign test
    effects = np.array([1.0] * 14 + [-1.0] * 6)
    exact = stats.binomtest(14, 20, alternative="greater").pvalue
    assert sign_flip(effects, np.random.default_rng(0), 20_000) == pytest.approx(exact, abs=0.006)


def test_sign_flip_never_reports_zero_and_ignores_missing():
    strong = np.ones(40)
    assert sign_flip(strong, np.random.default_rng(0), 999) == pytest.approx(1 / 1000)
    some = np.array([[0.5, np.nan], [0.2, np.nan], [np.nan, np.nan], [0.0, np.nan]])
    p = sign_flip(some, np.random.default_rng(0))
    assert p[0] == sign_flip([0.5, 0.2], np.random.default_rng(0)) == 0.25
    assert np.isnan(p[1])


def test_sign_flip_columns_share_draws():
    effects = np.random.default_rng(0).normal(0.2, 1, size=(50, 4))
    together = sign_flip(effects, np.random.default_rng(1), 500)
    alone = sign_flip(effects[:, 3], np.random.default_rng(1), 500)
    assert together[3] == alone


@pytest.mark.parametrize("n", [10, 30])
def test_p_is_uniform_when_nothing_happens(n):
    rng = np.random.default_rng(3)
    p = sign_flip(rng.normal(size=(n, 2000)), rng, 999)
    assert stats.kstest(p, "uniform").statistic < 0.04
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_permutation_gap_matches_full_enumeration():
    outcome, presence = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0]), np.array([1, 1, 1, 0, 0, 0], bool)
    gap = outcome[presence].mean() - outcome[~presence].mean()
    every = [np.mean(o[presence]) - np.mean(o[~presence]) for o in map(np.array, permutations(outcome))]
    exact = np.mean(np.array(every) >= gap - 1e-9)
    assert permutation_gap(outcome, presence, np.random.default_rng(0), 20_000) == pytest.approx(exact, abs=0.015)
    assert np.isnan(permutation_gap(outcome, np.ones(6, bool), np.random.default_rng(0), 9))


def test_permutation_gap_under_the_null_with_imbalanced_presence():
    rng = np.random.default_rng(4)
    presence = rng.random((80, 300)) < 0.1
    p = permutation_gap(rng.normal(size=80), presence, rng, 499)
    assert np.nanmean(p <= 0.05) <= 0.09


@given(st.lists(st.integers(0, 12), min_size=4, max_size=4), st.sampled_from(["greater", "two-sided"]))
def test_fisher_agrees_with_scipy(cells, alternative):
    k1, f1, k2, f2 = cells
    p = fisher_exact(k1, k1 + f1, k2, k2 + f2, alternative)
    if k1 + f1 == 0 or k2 + f2 == 0:
        assert np.isnan(p)
    else:
        assert p == pytest.approx(stats.fisher_exact([[k1, f1], [k2, f2]], alternative=alternative).pvalue)


@given(st.lists(st.lists(st.integers(1, 30), min_size=4, max_size=4), min_size=1, max_size=5), st.booleans())
def test_cochran_mantel_haenszel_agrees_with_statsmodels(strata, correction):
    tables = np.reshape(strata, (-1, 2, 2))
    oracle = StratifiedTable(np.moveaxis(tables, 0, -1).astype(float))
    ours = cochran_mantel_haenszel(tables, correction)
    theirs = oracle.test_null_odds(correction=correction)
    assert ours.odds_ratio == pytest.approx(oracle.oddsratio_pooled)
    deviation = abs(sum(t[0, 0] - t[0].sum() * t[:, 0].sum() / t.sum() for t in tables))
    if correction and deviation < 0.5:  # the correction must not overshoot zero; statsmodels' does
        assert ours.p == 1.0
    else:
        assert (ours.statistic, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_cochran_mantel_haenszel_sees_through_a_confounder():
    # Simpson: the cue goes with large objects, which are easier; within a size it does nothing
    large, small = [[81, 9], [9, 1]], [[1, 9], [9, 81]]
    assert cochran_mantel_haenszel([large, small]).p == pytest.approx(1.0)
    assert cochran_mantel_haenszel([np.add(large, small)]).p < 0.001


def test_cochran_mantel_haenszel_skips_empty_strata():
    stratum, empty, lone = [[5, 3], [2, 7]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]
    np.testing.assert_allclose(cochran_mantel_haenszel([stratum, empty, lone]), cochran_mantel_haenszel([stratum]))
    assert np.isnan(cochran_mantel_haenszel([empty]).p)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from([("bh", "fdr_bh"), ("by", "fdr_by")]))
def test_false_discovery_agrees_with_statsmodels_and_passes_nan_through(p, methods):
    ours, theirs = methods
    gapped = np.insert(np.array(p), len(p) // 2, np.nan)
    q = false_discovery(gapped, ours)
    assert np.isnan(q[len(p) // 2])
    np.testing.assert_allclose(np.delete(q, len(p) // 2), multipletests(p, method=theirs)[1], atol=1e-12)


def test_false_discovery_of_nothing():
    assert np.isnan(false_discovery([np.nan, np.nan])).all()
    assert false_discovery([]).shape == (0,)


@pytest.mark.parametrize("n", [12, 30])
@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ([0.0, 0.5], [0.9, 0.1]),
        ([0.0, 1.0], [0.95, 0.05]),
        ([0.1, -0.9], [0.95, 0.05]),
        ([1.0, -1.0, 0.0], [0.3, 0.25, 0.45]),
        ([0.15, -0.55 / 3], [0.7, 0.3]),
    ],
    ids=["rare", "rarer", "seldom a loss", "flips", "two points"],
)
def test_a_mean_at_the_bar_is_rejected_no_more_often_than_stated(values, weights, n):
    rng = np.random.default_rng(1)
    p = np.array([bounded_mean(rng.choice(values, p=weights, size=n), 0.05, rng, 499) for _ in range(400)])
    assert (p <= 0.05).mean() <= 0.05 + 0.022


def test_a_sign_flip_about_the_bar_would_not_keep_its_level():
    """Why `bounded_mean` is there: the mean is 0.05, and the losses that make it so are seldom seen."""
    rng = np.random.default_rng(2)
    p = [float(sign_flip(rng.choice([0.1, -0.9], p=[0.95, 0.05], size=12) - 0.05, rng, 499)) for _ in range(200)]
    assert np.mean(np.array(p) <= 0.05) > 0.3


def test_bounded_mean_is_the_exact_binomial_test_for_yes_or_no():
    """Effects of -1 or 1: the chance of so many wins at the bar's share."""
    values = np.repeat([1.0, -1.0], [15, 5])
    exact = stats.binom.sf(14, 20, 0.525)
    assert bounded_mean(values, 0.05, np.random.default_rng(0), 200_000) == pytest.approx(exact, rel=0.1)
    assert np.isnan(bounded_mean([np.nan], 0.05, np.random.default_rng(0)))
