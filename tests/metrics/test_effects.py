"""Paired effects: the placebo cancels, groups count once, fills widen the interval, intervals cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.effects import FLIP_BOUNDS, Effect, at_natural_dose, flips, paired_effect
from pipeline.metrics.intervals import Interval


def rng(seed=0):
    return np.random.default_rng(seed)


def test_by_hand():
    original = np.array([1.0, 0.8, 0.6])
    edited = np.array([[0.2, 0.4], [0.3, 0.5], [0.5, np.nan]])
    placebo = np.array([[0.9, 0.9], [0.8, 0.6], [0.6, 0.4]])
    effect = paired_effect(edited, placebo, original, ["a", "b", "c"], rng())
    # images: (0.7 + 0.5) / 2, (0.5 + 0.1) / 2, 0.1
    assert effect.estimate == pytest.approx((0.6 + 0.3 + 0.1) / 3)
    assert effect.by_fill == pytest.approx(((0.7 + 0.5 + 0.1) / 3, (0.5 + 0.1) / 2))
    assert effect.edited_change - effect.placebo_change == pytest.approx(effect.estimate)
    assert effect.n == 3 and effect.p == 1 / 8
    assert effect.fill_spread == pytest.approx(1.3 / 3 - 0.3)


def test_insertion_is_the_mirror_of_removal():
    scores = rng(1).random((20, 2))
    fall = paired_effect(scores, scores + 0.1, scores[:, 0], range(20), rng())
    rise = paired_effect(scores + 0.1, scores, scores[:, 0], range(20), rng(), direction="rise")
    assert fall.estimate == pytest.approx(rise.estimate) == pytest.approx(0.1)


@given(st.floats(-5, 5), st.integers(0, 1000))
@settings(max_examples=20)
def test_what_edit_and_placebo_share_cancels(shift, seed):
    edited, placebo = rng(seed).normal(size=(2, 15, 2))
    plain = paired_effect(edited, placebo, np.zeros(15), range(15), rng(), n_resamples=200, n_permutations=99)
    moved = paired_effect(
        edited + shift, placebo + shift, np.ones(15), range(15), rng(), n_resamples=200, n_permutations=99
    )
    assert (moved.estimate, moved.lower, moved.p) == pytest.approx((plain.estimate, plain.lower, plain.p), abs=1e-9)
    assert plain.lower <= plain.estimate <= plain.upper


def test_copies_of_an_image_count_once():
    edited, placebo, original = rng(2).random((30, 2)), rng(3).random((30, 2)), rng(4).random(30)
    rows = np.concatenate([np.arange(30), np.repeat([0, 1], 40)])
    plain = paired_effect(edited, placebo, original, np.arange(30), rng())
    copied = paired_effect(edited[rows], placebo[rows], original[rows], rows, rng())
    assert (copied.estimate, copied.lower, copied.upper, copied.p, copied.n) == pytest.approx(
        (plain.estimate, plain.lower, plain.upper, plain.p, plain.n)
    )


def test_fills_that_disagree_widen_the_interval():
    noise = 0.1 * rng(5).normal(size=(60, 3))
    agree = paired_effect(-0.3 + noise, np.zeros((60, 3)), np.zeros(60), range(60), rng())
    differ = paired_effect(-0.3 + noise + [-0.2, 0.0, 0.2], np.zeros((60, 3)), np.zeros(60), range(60), rng())
    assert differ.estimate == pytest.approx(agree.estimate)
    assert differ.upper - differ.lower > 3 * (agree.upper - agree.lower)


def test_the_interval_of_two_fills_spans_both():
    edited = np.tile([-0.2, -0.4], (30, 1))
    effect = paired_effect(edited, np.zeros((30, 2)), np.zeros(30), range(30), rng())
    assert (effect.estimate, effect.lower, effect.upper) == pytest.approx((0.3, 0.2, 0.4))


def test_intervals_cover_an_effect_over_fills_drawn_at_random():
    draws = rng(8)
    covered = []
    for _ in range(300):
        pairs = 0.3 + 0.1 * draws.normal(size=4) + 0.3 * draws.normal(size=(40, 1)) + 0.1 * draws.normal(size=(40, 4))
        effect = paired_effect(
            -pairs, np.zeros((40, 4)), np.zeros(40), range(40), draws, n_resamples=400, n_permutations=9
        )
        covered.append(effect.lower <= 0.3 <= effect.upper)
    assert np.mean(covered) >= 0.9


def test_nothing_measured():
    empty = paired_effect(np.full((4, 2), np.nan), np.zeros((4, 2)), np.zeros(4), range(4), rng())
    assert empty.n == 0 and np.isnan([empty.estimate, empty.lower, empty.p, empty.smallest, empty.fill_spread]).all()
    none = paired_effect(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), [], rng())
    assert none.n == 0


def test_one_image_confirms_nothing():
    effect = paired_effect([0.0], [1.0], [1.0], ["a"], rng(), bounds=FLIP_BOUNDS)
    assert effect.estimate == 1.0 and effect.p == 0.5 and np.isnan(effect.lower)


def test_no_flip_at_all_still_leaves_doubt():
    effect = flips(np.zeros(40), np.zeros(40), np.zeros(40), range(40), rng())
    assert effect.estimate == 0.0 and effect.p == 1.0
    assert effect.lower < -0.02 and effect.upper > 0.02
    assert effect.smallest > 0


def test_flips_beyond_the_placebo():
    original = np.zeros(10)
    edited = np.array([1, 1, 1, 1, 1, 2, 0, 0, 0, 0])
    placebo = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 3])
    away = flips(edited, placebo, original, range(10), rng())
    assert away.estimate == pytest.approx(0.4)
    assert (away.edited_change, away.placebo_change) == pytest.approx((0.6, 0.2))
    taken = flips(edited, placebo, original, range(10), rng(), target=1, direction="rise")
    assert taken.estimate == pytest.approx(0.4)
    assert taken.edited_change == pytest.approx(0.5)
    with pytest.raises(ValueError, match="target"):
        flips(edited, placebo, original, range(10), rng(), direction="rise")


@pytest.mark.parametrize(("lost", "by_placebo"), [(0.5, 0.1), (0.05, 0.05), (0.98, 0.0)])
def test_flip_intervals_cover(lost, by_placebo):
    draws = rng(6)
    covered = []
    for _ in range(300):
        edited, placebo = draws.random((2, 40, 2)) < np.array([lost, by_placebo])[:, None, None]
        effect = flips(edited, placebo, np.zeros(40), range(40), draws, n_resamples=400, n_permutations=9)
        covered.append(effect.lower <= lost - by_placebo <= effect.upper)
    assert np.mean(covered) >= 0.93


def test_p_under_the_null_keeps_its_level():
    draws = rng(7)
    p = []
    for _ in range(400):
        edited, placebo = draws.normal(size=(2, 15, 2))
        p.append(paired_effect(edited, placebo, np.zeros(15), range(15), draws, n_resamples=20, n_permutations=199).p)
    assert np.mean(np.array(p) <= 0.05) <= 0.08
    assert 0.44 < np.mean(p) < 0.56


def nested(by_fill, noise, n, seed):
    """Effects of a race: every image with one fill, in turns."""
    draws = rng(seed)
    edited = np.full((n, len(by_fill)), np.nan)
    at = np.arange(n) % len(by_fill)
    edited[np.arange(n), at] = -(np.array(by_fill)[at] + noise * draws.normal(size=n))
    return paired_effect(edited, np.zeros_like(edited), np.zeros(n), range(n), rng(), n_permutations=9)


def test_fills_between_images_widen_the_interval_where_they_disagree_beyond_noise():
    agree, differ = nested([0.3, 0.3, 0.3], 0.1, 30, 0), nested([0.1, 0.3, 0.5], 0.1, 30, 0)
    assert differ.lower < 0.15 and differ.upper > 0.45
    # fills that agree cost hardly more than the noise of 30 images: 2 x 2.05 x 0.1 / sqrt(30) = 0.075
    assert agree.upper - agree.lower < 0.12


def test_intervals_of_fills_between_images_cover():
    covered = []
    for seed in range(200):
        fills = 0.3 + 0.1 * rng([seed, 1]).normal(size=4)
        found = nested(fills, 0.3, 24, seed)
        covered.append(found.lower <= 0.3 <= found.upper)
    assert np.mean(covered) >= 0.9


def interval(estimate: float, lower: float, upper: float) -> Interval:
    return Interval(*(np.asarray(x) for x in (estimate, lower, upper)))


def effect(estimate: float, lower: float, upper: float) -> Effect:
    return Effect(estimate, lower, upper, 0.01, 40, estimate, 0.0, (estimate,), 0.1)


def test_half_a_dose_tells_of_twice_the_effect() -> None:
    found = at_natural_dose(effect(0.2, 0.1, 0.3), interval(0.5, 0.49, 0.51))
    assert float(found.estimate) == pytest.approx(0.4)
    assert float(found.lower) == pytest.approx(0.1)  # the edit's own bound: effects need not grow in proportion
    assert float(found.upper) == pytest.approx(0.6, abs=0.02)


def test_an_edit_that_hardly_moves_the_cue_says_nearly_nothing() -> None:
    found = at_natural_dose(effect(0.02, -0.06, 0.1), interval(0.05, -0.1, 0.2))
    assert (float(found.lower), float(found.upper)) == pytest.approx((-0.6, 1.0), abs=0.1)


def test_without_a_dose_the_effect_is_as_edited() -> None:
    nan = float("nan")
    assert [float(x) for x in at_natural_dose(effect(0.2, 0.1, 0.3), interval(nan, nan, nan))] == [0.2, 0.1, 0.3]


@given(st.floats(-0.9, 0.9), st.floats(0.01, 0.3), st.floats(0.05, 2.0), st.floats(0.01, 0.5))
def test_the_interval_holds_its_estimate_and_stays_in_bounds(
    estimate: float, half: float, dose: float, spread: float
) -> None:
    found = at_natural_dose(
        effect(estimate, max(estimate - half, -1), min(estimate + half, 1)),
        interval(dose, dose - spread, dose + spread),
    )
    assert -1 <= found.lower <= found.estimate <= found.upper <= 1
