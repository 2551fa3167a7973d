"""Intervals against published tables, statsmodels, and what they must do for any data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import Table2x2
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from pipeline.metrics.intervals import (
    Interval,
    cluster_bootstrap_mean,
    group_means,
    log_odds_ratio,
    minimum_detectable_effect,
    newcombe_difference,
    ratio,
    wilson,
)

counts = st.tuples(st.integers(0, 60), st.integers(1, 60)).map(lambda pair: (min(pair), max(pair)))


@pytest.mark.parametrize(
    ("k", "n", "bounds"),
    [  # Newcombe 1998a (Stat. Med. 17, 857), table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_published(k, n, bounds):
    assert wilson(k, n)[1:] == pytest.approx(bounds, abs=5e-5)


@pytest.mark.parametrize(
    ("k1", "n1", "k2", "n2", "bounds"),
    [  # Newcombe 1998b (Stat. Med. 17, 873), table II, method 10
        (56, 70, 48, 80, (0.0524, 0.3339)),
        (9, 10, 3, 10, (0.1705, 0.8090)),
        (10, 10, 0, 10, (0.6075, 1.0000)),
    ],
)
def test_newcombe_published(k1, n1, k2, n2, bounds):
    assert newcombe_difference(k1, n1, k2, n2)[1:] == pytest.approx(bounds, abs=5e-5)


@given(counts, counts)
def test_shares_agree_with_statsmodels(first, second):
    (k1, n1), (k2, n2) = first, second
    assert wilson(k1, n1)[1:] == pytest.approx(proportion_confint(k1, n1, method="wilson"), abs=1e-9)
    ours = newcombe_difference(k1, n1, k2, n2)
    assert ours[1:] == pytest.approx(
        confint_proportions_2indep(k1, n1, k2, n2, method="newcomb", compare="diff"), abs=1e-9
    )
    assert -1 <= ours.lower <= ours.estimate <= ours.upper <= 1


def test_shares_without_trials_are_not_measured():
    assert np.isnan(wilson(0, 0)).all()
    assert np.isnan(newcombe_difference([3, 0], [5, 0], [0, 3], [0, 5])).all()


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="successes"):
        wilson(6, 5)


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4))
def test_log_odds_ratio_is_woolf_on_corrected_cells(cells):
    table = np.reshape(cells, (2, 2))
    ours = log_odds_ratio(table)
    if (table.sum(0) == 0).any() or (table.sum(1) == 0).any():
        assert np.isnan(ours).all()
        return
    oracle = Table2x2(table + 0.5, shift_zeros=False)
    assert ours.estimate == pytest.approx(oracle.log_oddsratio)
    assert ours[1:] == pytest.approx(oracle.log_oddsratio_confint())
    assert log_odds_ratio(table[::-1]).estimate == pytest.approx(-ours.estimate)


def test_bootstrap_counts_near_duplicates_once():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=40), np.arange(40)
    copied = np.concatenate([values, np.repeat(values[:5], 30)])
    owners = np.concatenate([groups, np.repeat(groups[:5], 30)])
    plain = cluster_bootstrap_mean(values, groups, np.random.default_rng(1))
    swollen = cluster_bootstrap_mean(copied, owners, np.random.default_rng(1))
    np.testing.assert_allclose(plain, swollen)


def test_bootstrap_columns_share_resamples_and_blocks_change_nothing():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 3))
    groups = np.arange(30)
    together = cluster_bootstrap_mean(values, groups, np.random.default_rng(1))
    alone = cluster_bootstrap_mean(values[:, 2], groups, np.random.default_rng(1))
    pieces = cluster_bootstrap_mean(values, groups, np.random.default_rng(1), block_size=100)
    np.testing.assert_allclose([part[2] for part in together], alone)
    np.testing.assert_allclose(together, pieces)


@pytest.mark.parametrize("n", [0, 1])
def test_bootstrap_of_one_image_claims_no_interval(n):
    result = cluster_bootstrap_mean(np.ones(n), np.arange(n), np.random.default_rng(0))
    assert np.isnan(result.lower) and np.isnan(result.upper)


def test_bootstrap_leaves_missing_values_out_by_column():
    values = np.array([[1.0, np.nan], [2.0, 4.0], [3.0, 6.0], [6.0, np.nan]])
    result = cluster_bootstrap_mean(values, np.arange(4), np.random.default_rng(0))
    np.testing.assert_allclose(result.estimate, [3.0, 5.0])
    assert np.isfinite(result.lower).all()


@pytest.mark.parametrize("n", [8, 25])
def test_bootstrap_covers_the_mean(n):
    rng = np.random.default_rng(5)
    samples = rng.normal(1.0, 2.0, size=(n, 800))
    lower, upper = cluster_bootstrap_mean(samples, np.arange(n), rng, n_resamples=1000)[1:]
    assert 0.92 <= np.mean((lower <= 1.0) & (upper >= 1.0)) <= 0.98


def test_group_means_order_and_names():
    np.testing.assert_allclose(group_means([1.0, 5.0, 3.0], ["b", "a", "b"]), [5.0, 2.0])


def test_minimum_detectable_effect_is_found_with_the_stated_power():
    # (1.95996 + 0.84162) / sqrt(100) = 0.28016
    assert minimum_detectable_effect(100, sd=1.0) == pytest.approx(0.28016, abs=1e-5)
    assert minimum_detectable_effect(100, share=0.5) == pytest.approx(0.14008, abs=1e-5)
    effect = minimum_detectable_effect(64, sd=1.0)
    means = np.random.default_rng(0).normal(effect, 1, size=(4000, 64)).mean(1)
    assert np.mean(np.abs(means) > 1.96 / 8) == pytest.approx(0.8, abs=0.02)
    assert np.isnan(minimum_detectable_effect(0, sd=1.0))
    with pytest.raises(ValueError, match="either"):
        minimum_detectable_effect(10)


def test_a_ratio_to_a_known_number_is_the_interval_divided() -> None:
    found = ratio(Interval(*map(np.asarray, (0.3, 0.1, 0.4))), Interval(*map(np.asarray, (0.5, 0.5, 0.5))))
    assert [float(x) for x in found] == pytest.approx([0.6, 0.2, 0.8])


def test_a_ratio_to_a_number_that_may_be_nothing_has_no_bounds() -> None:
    found = ratio(Interval(*map(np.asarray, (0.3, 0.1, 0.4))), Interval(*map(np.asarray, (0.2, -0.1, 0.5))))
    assert np.isnan(found.lower)
    assert np.isnan(found.upper)


@pytest.mark.parametrize(("top", "bottom"), [(0.4, 0.7), (0.0, 0.6), (-0.3, 1.2)])
def test_ratios_cover_as_often_as_they_say(top: float, bottom: float) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        a, b = rng.normal(top, 0.08), rng.normal(bottom, 0.06)
        found = ratio(
            Interval(*map(np.asarray, (a, a - 1.96 * 0.08, a + 1.96 * 0.08))),
            Interval(*map(np.asarray, (b, b - 1.96 * 0.06, b + 1.96 * 0.06))),
        )
        hits += found.lower <= top / bottom <= found.upper
    assert 0.93 <= hits / 1000 <= 0.97
