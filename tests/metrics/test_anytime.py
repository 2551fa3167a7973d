"""Betting: no wealth under the hypothesis at any stopping time, bounds that hold at every look, e-BH by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.metrics.anytime import confidence_sequence, e_bh, e_process, e_value, either

# (values, weights): bounded effects, several of them skewed or discrete, each with the mean in the test's name
SHAPES = {
    "rare and large": ([0.0, 0.5], [0.9, 0.1]),
    "rarer and larger": ([0.0, 1.0], [0.95, 0.05]),
    "mostly small, seldom a loss": ([0.1, -0.9], [0.95, 0.05]),
    "flips both ways": ([1.0, -1.0, 0.0], [0.3, 0.25, 0.45]),
    "at the ends": ([1.0, -1.0], [0.525, 0.475]),
}


def effects(shape: str, size: tuple[int, ...], seed: int) -> np.ndarray:
    values, weights = SHAPES[shape]
    return np.random.default_rng(seed).choice(values, p=weights, size=size)


bounded = arrays(float, st.integers(1, 20), elements=st.floats(-1, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_stopping_at_the_best_moment_gains_nothing(shape):
    """Every shape has a mean of 0.05; the gambler looks after each of 200 images and stops when ahead."""
    capital = e_process(effects(shape, (200, 2000), seed=1), 0.05)
    best = capital.max(axis=0)
    assert (best >= 20).mean() <= 0.05 + 0.015
    assert (best >= 5).mean() <= 0.2 + 0.027
    assert capital[5].mean() < 1.1  # an e-value at a fixed time, too


def test_it_grows_where_there_is_an_effect():
    values = np.random.default_rng(2).choice([0.0, 1.0], p=[0.4, 0.6], size=(30, 500))
    assert (e_process(values, 0.05).max(axis=0) >= 1000).mean() > 0.9


def test_fills_that_differ_in_turns_are_fair_after_whole_turns():
    """The first fill's effect is above the hypothesis, the second's below; their mean is on it."""
    rng = np.random.default_rng(3)
    turns = np.stack([rng.random((40, 4000)) < 0.3, -(rng.random((40, 4000)) < 0.2).astype(float)], axis=1)
    capital = e_process(turns.reshape(80, 4000).astype(float), 0.05)[1::2]
    assert (capital.max(axis=0) >= 20).mean() <= 0.05 + 0.01


@given(bounded, st.floats(-0.5, 0.5))
def test_the_order_of_the_images_changes_nothing(values, mean):
    assert e_value(values[::-1], mean) == pytest.approx(float(e_value(values, mean)))


@given(bounded, st.floats(-0.5, 0.4), st.floats(0, 0.5), st.integers(0, 19))
def test_more_effect_is_more_evidence_and_a_higher_bar_less(values, mean, more, at):
    raised = values.copy()
    raised[at % len(values)] = min(1.0, raised[at % len(values)] + more)
    base = float(e_value(values, mean))
    assert e_value(raised, mean) >= base * (1 - 1e-12)
    assert e_value(values, mean + more) <= base * (1 + 1e-12)


def test_by_hand():
    # one full hit against mean 0: y / mu = 2, capital 1 + g, mean of the stakes 3.47 / 6
    assert float(e_value([1.0], 0.0)) == pytest.approx(1 + 3.47 / 6)
    assert float(e_value([-1.0], 0.0)) == pytest.approx(1 - 3.47 / 6)
    np.testing.assert_allclose(e_process([[1.0, np.nan], [np.nan, np.nan]], 0.0)[-1], [1 + 3.47 / 6, 1.0])
    assert float(e_value([], 0.0)) == 1.0
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        e_value([1.5], 0.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_hold_at_every_look_at_once(shape):
    values = effects(shape, (80, 300), seed=4)
    missed = np.zeros(300, bool)
    for n in range(1, 81, 3):
        bounds = confidence_sequence(values[:n])
        missed |= (bounds.lower > 0.05 + 1e-9) | (bounds.upper < 0.05 - 1e-9)
    assert missed.mean() <= 0.05 + 0.03


@settings(max_examples=30)
@given(bounded)
def test_bounds_are_a_mirror_and_hold_the_estimate(values):
    plain, turned = confidence_sequence(values), confidence_sequence(-values)
    assert plain.lower - 1e-9 <= plain.estimate <= plain.upper + 1e-9
    np.testing.assert_allclose([-turned.upper, -turned.lower], [plain.lower, plain.upper], atol=1e-9)
    assert confidence_sequence(values, 0.9).lower >= plain.lower - 1e-9


def test_bounds_narrow():
    values = effects("rare and large", (400,), seed=5)
    widths = [float(np.subtract(*confidence_sequence(values[:n])[:0:-1])) for n in (10, 50, 400)]
    assert widths[0] > widths[1] > widths[2] > 0 and widths[2] < 0.2
    assert confidence_sequence(np.full((3, 1), np.nan)).lower == pytest.approx(-1)


def test_e_bh_by_hand():
    # n = 5, q = 0.05: k-th largest times k against 100: 200, 2 x 60, 3 x 40, 4 x 20 = 80, 5 x 0.5
    e = [60.0, 0.5, 200.0, 20.0, 40.0]
    q = e_bh(e)
    np.testing.assert_allclose(q, [5 / 120, 1.0, 5 / 200, 5 / 80, 5 / 120])
    assert list(q <= 0.05) == [True, False, True, False, True]


def test_e_bh_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(e_bh([np.nan, 40.0, 0.0]), [np.nan, 2 / 40, 1.0])
    assert np.isnan(e_bh([np.nan])).all() and e_bh([]).shape == (0,)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=12), st.integers(0, 11), st.floats(1, 100))
def test_e_bh_is_monotone(e, at, factor):
    at %= len(e)
    more = [value * factor if number == at else value for number, value in enumerate(e)]
    assert (e_bh(more) <= e_bh(e) + 1e-12).all()
    assert (np.diff(e_bh(sorted(e))) <= 1e-12).all()


def test_e_bh_holds_its_rate_where_every_test_sees_the_same_images():
    """Thirty nulls that share half of their noise, stopped when any is ahead, beside three true effects."""
    rng = np.random.default_rng(6)
    false = []
    for _ in range(200):
        shared = rng.random((60, 1)) < 0.5
        nulls = np.where(shared, rng.random((60, 1)) < 0.05, rng.random((60, 30)) < 0.05).astype(float)
        true = (rng.random((60, 3)) < 0.6).astype(float)
        capital = e_process(np.concatenate([nulls, true], axis=1), 0.05)
        stop = int(capital[:, :30].max(axis=1).argmax())
        found = e_bh(capital[stop]) <= 0.05
        false.append(found[:30].sum() / max(found.sum(), 1))
    assert np.mean(false) <= 0.05


def test_evidence_of_two_directions_adds_up():
    assert either([4.0, 6.0]) == pytest.approx((4 + 6 + 24) / 3)
    assert either([4.0, np.nan]) == 4.0 and np.isnan(either([np.nan]))
