from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence.boxes import undisputed
from pipeline.evidence.presence import cut_of_property, otsu, phi, property_presence, upper_of_two_cuts
from pipeline.records import PROPERTIES, table


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


def test_the_upper_cut_finds_the_pictures_with_more() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(-0.5, 0.05, 30), rng.normal(0, 0.08, 200), rng.normal(0.45, 0.06, 40)])
    assert 0.15 < upper_of_two_cuts(scores) < 0.42


def test_few_distinct_scores_are_cut_once() -> None:
    assert upper_of_two_cuts(np.array([0.0, 0.0, 1.0])) == otsu(np.array([0.0, 0.0, 1.0]))


def test_a_box_that_another_name_explains_much_better_is_not_ours() -> None:
    rows = [("i", "sailboat", 0.3, [0.1, 0.1, 0.3, 0.3]), ("i", "buoy", 0.9, [0.1, 0.1, 0.3, 0.32])]
    rows += [("i", "boat", 0.8, [0.5, 0.5, 0.9, 0.9]), ("i", "sailboat", 0.9, [0.5, 0.5, 0.9, 0.9])]
    rows += [("j", "sailboat", 0.3, [0.1, 0.1, 0.3, 0.3])]
    names = ("image_id", "phrase", "score", "box")
    kept = undisputed(table("detections", [dict(zip(names, row, strict=True)) for row in rows])).to_pylist()
    assert [(row["image_id"], row["phrase"]) for row in kept] == [
        ("i", "buoy"),
        ("i", "boat"),
        ("i", "sailboat"),
        ("j", "sailboat"),
    ]


def test_two_humps_are_cut_between_and_of_one_only_the_tail_counts() -> None:
    rng = np.random.default_rng(0)
    halves = np.concatenate([rng.normal(0, 1, 300), rng.normal(7, 1.5, 300)])
    assert 2 < cut_of_property(halves) < 4.5
    one = rng.normal(0, 1, 600)
    assert (one >= cut_of_property(one)).mean() < 0.35


def test_a_property_is_told_by_its_measure_and_its_name_together() -> None:
    rng = np.random.default_rng(1)
    has, every = np.arange(400) < 120, np.ones(400, dtype=bool)
    measured = {name: np.zeros(400) for name in PROPERTIES}
    measured["brightness"] = -1.0 * has + rng.normal(0, 1, 400)
    words = {"dark image": has + rng.normal(0, 1, 400)}
    both = property_presence("dark image", measured, words, every)
    alone = property_presence("dark image", measured, {}, every)

    def wrong(scores: np.ndarray) -> float:
        order = np.argsort(-scores)
        return 1 - has[order[:120]].mean()

    assert wrong(both) < wrong(alone)
    assert alone == pytest.approx(-measured["brightness"])
