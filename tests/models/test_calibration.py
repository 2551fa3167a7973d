"""One scale for all detectors: tables, their inverse, and a fit that needs no box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.models.calibration import FEWEST, calibrated, check, fit, raw

points = st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), max_size=6).map(
    lambda found: [
        (a / 100, b / 100) for a, b in zip(sorted({a for a, _ in found}), sorted({b for _, b in found}), strict=False)
    ]
)


@given(points, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_table_keeps_the_order_and_can_be_undone(table, scores):
    scores = np.sort(np.array(scores))
    common = calibrated(scores, check(table))
    assert (np.diff(common) >= 0).all() and common.min() >= 0 and common.max() <= 1
    np.testing.assert_allclose(raw(common, check(table)), scores, atol=1e-9)


def test_its_points_are_met_and_nothing_changes_without_any():
    assert calibrated(np.array([0.1, 0.55]), check([[0.1, 0.25]])) == pytest.approx([0.25, 0.625])
    scores = np.linspace(0, 1, 11)
    np.testing.assert_array_equal(calibrated(scores, check(())), scores)


@pytest.mark.parametrize(
    "wrong", [[[0.1, 0.3], [0.2, 0.3]], [[0.1, 0.3], [0.1, 0.4]], [[0.3, 0.5], [0.5, 0.4]], [[0.2, 1]]]
)
def test_a_table_that_does_not_grow_is_said_plainly(wrong):
    with pytest.raises(UserError, match="calibration"):
        check(wrong)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_fit_gives_the_probability_at_even_odds(share):
    """The true log-odds are 2 z + 1, with z those of the score; of those present some or many are left out."""
    rng = np.random.default_rng(0)
    z = rng.normal(-0.5, 1.2, 200_000)
    true = 1 / (1 + np.exp(-(2 * z + 1)))
    present = rng.random(len(z)) < true
    # leave out some of the present, so that their share differs; at even odds it must not matter but for a shift
    keep = ~present | (rng.random(len(z)) < share)
    z, true, present = z[keep], true[keep], present[keep]
    odds = present.mean() / (1 - present.mean())
    even = 1 / (1 + np.exp(-(2 * z + 1 + np.log(share) - np.log(odds))))
    table = fit(1 / (1 + np.exp(-z)), present)
    inside = (z > -2) & (z < 1.5)
    error = calibrated(1 / (1 + np.exp(-z)), table) - even
    assert np.abs(error[inside]).max() < 0.06


def test_detectors_on_different_scales_agree_after_a_fit():
    rng = np.random.default_rng(1)
    present = rng.random(4000) < 0.3
    strength = rng.normal(0, 1, 4000) + 2.5 * present
    loud, quiet = 1 / (1 + np.exp(-strength)), 1 / (1 + np.exp(-(0.6 * strength - 3)))
    one, two = calibrated(loud, fit(loud, present)), calibrated(quiet, fit(quiet, present))
    assert np.abs(loud - quiet).mean() > 0.3 and np.abs(one - two).mean() < 0.03


def test_scores_that_tell_nothing_and_too_few_images_are_said_plainly():
    rng = np.random.default_rng(2)
    present = rng.random(500) < 0.5
    with pytest.raises(UserError, match="don't tell"):
        fit(np.where(present, 0.2, 0.6) + rng.random(500) * 0.1, present)
    with pytest.raises(UserError, match=f"at least {FEWEST}"):
        fit(np.full(30, 0.5), np.arange(30) < 5)


def test_groups_that_do_not_overlap_still_give_a_table():
    present = np.arange(100) < 50
    table = fit(np.where(present, 0.8, 0.0), present)
    assert calibrated(np.array([0.0]), table) < 0.05 and calibrated(np.array([0.8]), table) > 0.9
