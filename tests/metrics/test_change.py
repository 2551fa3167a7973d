"""The test for change between two audits: it keeps its level however many images they share, and it finds changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.metrics.change import Direction, Mean, Term, change, harm_change, mean_of

NAN = float("nan")


def plain(before: np.ndarray, after: np.ndarray, reach: float = 1.0):
    a, b = Mean(before), Mean(after)
    return change(b.value - a.value, [Term(a, b, 1.0, 1.0, reach)])


def world(rng: np.random.Generator, n_old: int, n_new: int, n_edited: int, drift: float = 0.0, cue: float = 0.5):
    """Presence (groups,) and flips (groups,) of an audit before and one after with new images, which may drift."""
    n = n_old + n_new
    presence = (rng.random(n) < np.where(np.arange(n) < n_old, cue, cue + drift)).astype(float)
    flips = rng.choice([-1.0, 0.0, 1.0], n, p=[0.05, 0.5, 0.45])
    order = rng.permutation(n)
    old = order[order < n_old]
    edited = [[i for i in chosen if presence[i]][:n_edited] for chosen in (old, order)]
    before = np.where(np.arange(n) < n_old, presence, NAN), np.full(n, NAN)
    after = presence, np.full(n, NAN)
    before[1][edited[0]] = flips[edited[0]]
    after[1][edited[1]] = flips[edited[1]]
    return before, after


def of_harm(before, after):
    """Twice the change of harm of removal."""
    (pa, ra), (pb, rb) = ((Mean(p), Mean(r)) for p, r in (before, after))
    return harm_change([Direction((pa, pb), (ra, rb), dose=0.5)])


@pytest.mark.slow
@pytest.mark.parametrize(("n_old", "n_new", "n_edited"), [(150, 8, 30), (150, 60, 30), (40, 300, 20), (1000, 10, 40)])
def test_it_keeps_its_level_when_new_images_are_like_the_old(n_old: int, n_new: int, n_edited: int) -> None:
    rng = np.random.default_rng(n_old + n_new)
    found = [of_harm(*world(rng, n_old, n_new, n_edited)) for _ in range(600)]
    for ps in (
        [one.p for one in found],
        *([getattr(one, part).p for one in found] for part in ("total", "data", "effect")),
    ):
        assert (np.array(ps) < 0.05).mean() < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 600)


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 30, 100])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_it_keeps_its_level_when_a_model_changes_its_mind_at_random(n: int, share: float) -> None:
    rng = np.random.default_rng(n)
    ps = []
    for _ in range(600):
        before = rng.choice([0.0, 1.0], n, p=[0.6, 0.4])
        turned = rng.random(n) < share
        after = np.where(turned, rng.choice([0.0, 1.0], n, p=[0.6, 0.4]), before)
        ps.append(plain(before, after).p)
    assert (np.array(ps) < 0.05).mean() < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 600)


@pytest.mark.slow
@pytest.mark.parametrize("n", [15, 40])
def test_it_keeps_its_level_on_two_samples_without_a_common_image(n: int) -> None:
    rng = np.random.default_rng(n)
    ps = []
    for _ in range(600):
        flips = rng.choice([0.0, 1.0], 2 * n, p=[0.9, 0.1])
        side = np.arange(2 * n) < n
        ps.append(plain(np.where(side, flips, NAN), np.where(side, NAN, flips)).p)
    assert (np.array(ps) < 0.05).mean() < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 600)


def test_it_covers_the_true_change_and_finds_a_cue_that_spreads() -> None:
    rng = np.random.default_rng(5)
    results = [of_harm(*world(rng, 300, 300, 60, drift=0.45)) for _ in range(300)]
    truth = (0.5 + 0.45 / 2) * 0.4 - 0.5 * 0.4  # the flips' mean is 0.4 throughout
    assert np.mean([r.total.lower <= truth <= r.total.upper for r in results]) > 0.92
    assert np.mean([r.p < 0.05 and r.leading is r.data and r.total.estimate > 0 for r in results]) > 0.75
    for one in results[:5]:
        assert one.total.estimate == pytest.approx(one.data.estimate + one.effect.estimate)


def test_a_cue_that_spreads_does_no_harm_where_its_effect_is_none() -> None:
    rng = np.random.default_rng(6)
    ps = []
    for _ in range(300):
        (p0, _), (p1, _) = world(rng, 300, 300, 60, drift=0.45)
        r0, r1 = np.full(600, NAN), np.full(600, NAN)
        r0[:40] = r1[:40] = rng.choice([-1.0, 0.0, 1.0], 40, p=[0.1, 0.8, 0.1])
        ps.append(of_harm((p0, r0), (p1, r1)).p)
    assert np.mean(np.array(ps) < 0.05) < 0.06


def test_the_same_numbers_are_no_change_and_one_more_image_is_next_to_none() -> None:
    values = np.array([1.0, 0, 0, 1, 1, 0, 0, 0, 1, 0, NAN])
    same = plain(values, values)
    assert (same.estimate, same.p) == (0.0, 1.0)
    more = values.copy()
    more[-1] = 1.0
    one = plain(values, more)
    assert one.estimate > 0 and one.p > 0.3


def test_five_flips_against_none_are_not_enough_on_paired_images() -> None:
    """McNemar's exact p is 0.0625."""
    before, after = np.zeros(20), np.zeros(20)
    after[:5] = 1.0
    assert 0.04 < plain(before, after).p < 0.1
    after[5:9] = 1.0
    assert plain(before, after).p < 0.01


@given(st.lists(st.floats(-1, 1), min_size=30, max_size=60), st.lists(st.floats(-1, 1), min_size=30, max_size=60))
def test_without_a_common_image_it_is_the_two_sample_test_but_for_the_pseudo_groups(x, y) -> None:
    before, after = np.array(x + [NAN] * len(y)), np.array([NAN] * len(x) + y)
    found = plain(before, after)
    a, b = np.array(x), np.array(y)
    variance = a.var() / len(a) + b.var() / len(b) + 2 / len(a) ** 2 + 2 / len(b) ** 2
    assert found.estimate == pytest.approx(b.mean() - a.mean())
    assert found.p == pytest.approx(
        2 * stats.t.sf(abs(found.estimate) / variance**0.5, _freedom(len(a), len(b))), rel=1e-6, abs=1e-12
    )


def _freedom(m: int, n: int) -> float:
    return (1 / m + 1 / n) ** 2 / (1 / m**3 + 1 / n**3) - 1


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=5, max_size=40))
def test_turning_time_round_turns_the_sign_alone(pairs) -> None:
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    there, back = plain(a, b), plain(b, a)
    assert there.estimate == pytest.approx(-back.estimate)
    assert there.p == pytest.approx(back.p, nan_ok=True)
    assert (there.lower, there.upper) == pytest.approx((-back.upper, -back.lower), abs=1e-9)


def test_copies_of_an_image_change_nothing() -> None:
    one = mean_of([1, 0, 1], [0, 1, 2], 3)
    two = mean_of([1, 1, 1, 0, 1], [0, 0, 0, 1, 2], 3)
    assert np.array_equal(one.values, two.values) and one.value == pytest.approx(2 / 3)
