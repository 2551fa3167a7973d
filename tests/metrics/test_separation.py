"""The area under the ROC curve of every class: scipy's numbers, the interval's coverage, and rare classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.metrics.separation import area_interval, separation


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=6, max_size=60))
def test_area_and_p_are_scipys(rows: list[tuple[int, int]]) -> None:
    values, member = np.array(rows).T
    found = separation(values, member, 3)
    for label in range(3):
        mine, others = values[member == label], values[member != label]
        if not len(mine) or not len(others):
            assert np.isnan(found.area[label]) and np.isnan(found.p[label])
            continue
        oracle = stats.mannwhitneyu(mine, others, method="asymptotic")
        assert found.area[label] == pytest.approx(oracle.statistic / len(mine) / len(others))
        expected = 1.0 if len(set(values)) == 1 else oracle.pvalue
        assert found.p[label] == pytest.approx(expected, abs=1e-9)
        assert 0 <= found.lower[label] <= found.area[label] <= found.upper[label] <= 1


@pytest.mark.parametrize(("shift", "n"), [(0.0, 20), (1.0, 20), (2.5, 15)])
def test_the_interval_covers(shift: float, n: int) -> None:
    truth = stats.norm.cdf(shift / np.sqrt(2))
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        values = np.concatenate([rng.normal(shift, 1, n), rng.normal(0, 1, 4 * n)])
        found = separation(values, np.repeat([0, 1], [n, 4 * n]), 2)
        inside += found.lower[0] <= truth <= found.upper[0]
    assert inside / 400 > 0.92


def test_the_ends_of_the_scale_keep_an_interval() -> None:
    lower, upper = area_interval([0.0, 1.0], [10, 10], [30, 30])
    assert lower[0] == pytest.approx(0, abs=1e-9) and 0 < upper[0] < 0.4
    assert upper[1] == pytest.approx(1, abs=1e-9) and 0.6 < lower[1] < 1


def test_a_rare_class_is_no_correlation() -> None:
    """90 images of one class and 10 of another, and a property that knows of neither."""
    rng = np.random.default_rng(1)
    p = [separation(rng.normal(size=100), np.repeat([0, 1], [90, 10]), 2).p[1] for _ in range(300)]
    assert np.mean(np.array(p) < 0.05) < 0.09
