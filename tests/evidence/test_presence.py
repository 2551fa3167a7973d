from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence.boxes import undisputed
from pipeline.evidence.presence import otsu, phi, upper_of_two_cuts
from pipeline.records import table


def test_otsu_cuts_between_two_groups() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 0.1, 80), rng.normal(1, 0.1, 20)])
    assert 0.3 < otsu(scores) < 0.75


def test_equal_scores_show_nothing() -> None:
    assert otsu(np.zeros(10)) == float("inf")
    assert otsu(np.array([3.0])) == float("inf")


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=30).filter(lambda v: len(set(v)) > 1))
def test_otsu_leaves_the_least_variance_within(values: list[int]) -> None:
    scores = np.array(values, dtype=float)
    cut = otsu(scores)
    assert (scores >= cut).any() and (scores < cut).any()

    def within(threshold: float) -> float:
        groups = (scores[scores >= threshold], scores[scores < threshold])
        return sum(len(g) * g.var() for g in groups if len(g))

    assert within(cut) <= min(within(t) for t in np.unique(scores)[1:]) + 1e-9


def test_phi_is_a_correlation() -> None:
    rng = np.random.default_rng(1)
    present = rng.random((200, 4)) < 0.4
    present[:, 3] = True
    expected = np.corrcoef(present[:, :3].T.astype(float))
    np.testing.assert_allclose(phi(present)[:3, :3], expected)
    assert (phi(present)[3] == 0).all()
