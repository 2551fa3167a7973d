"""A threshold from people's answers: fewest errors, nearest to the automatic one, only with enough of both kinds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence.answered import LEAST_OF_EACH, calibrated_cut


def test_answers_move_the_threshold_to_where_presence_begins() -> None:
    scores = np.linspace(0, 1, 21)
    assert calibrated_cut(scores, scores > 0.62, 0.3) == pytest.approx(0.625)
    assert calibrated_cut(scores, scores > 0.62, 0.9) == pytest.approx(0.625)


def test_a_threshold_that_makes_no_error_stays() -> None:
    scores = np.r_[np.linspace(0, 0.2, 6), np.linspace(0.8, 1, 6)]
    assert calibrated_cut(scores, scores > 0.5, 0.31) == 0.31


@pytest.mark.parametrize("shown", [LEAST_OF_EACH - 1, 12 - LEAST_OF_EACH + 1, 0, 12])
def test_few_answers_of_a_kind_leave_it(shown: int) -> None:
    assert calibrated_cut(np.arange(12.0), np.arange(12) >= 12 - shown, 3.3) == 3.3


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=10, max_size=60), st.floats(0, 1))
def test_never_more_errors_than_before(answers: list[tuple[float, bool]], automatic: float) -> None:
    scores, shown = (np.array(column) for column in zip(*answers, strict=True))
    cut = calibrated_cut(scores, shown, automatic)
    assert ((scores >= cut) != shown).sum() <= ((scores >= automatic) != shown).sum()


def test_asking_more_near_the_threshold_moves_it_no_more_than_chance() -> None:
    """Presence begins to be likelier than not at 0.6; the answered pictures crowd round the automatic 0.4."""
    rng = np.random.default_rng(0)
    cuts = []
    for _ in range(60):
        scores = np.clip(rng.normal(0.4, 0.2, 400), 0, 1)
        shown = rng.random(400) < 1 / (1 + np.exp(-15 * (scores - 0.6)))
        cuts.append(calibrated_cut(scores, shown, 0.4))
    assert np.mean(cuts) == pytest.approx(0.6, abs=0.03)
