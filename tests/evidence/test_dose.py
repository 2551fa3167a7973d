"""The dose: 1 for an edit that does what nature does, in any direction of space, whatever the classes look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence.dose import natural_scale

N, D = 240, 16


def world(seed: int, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of three classes with and without a cue that adds `strength` along a random direction; that direction."""
    rng = np.random.default_rng(seed)
    labels = np.array(["boat", "car", "dog"])[rng.integers(0, 3, N)]
    present = rng.random(N) < np.where(labels == "boat", 0.7, 0.3)  # the cue goes with a class
    cue = rng.standard_normal(D)
    cue *= strength / np.linalg.norm(cue)
    own = {name: rng.standard_normal(D) * 3 for name in ("boat", "car", "dog")}
    vectors = np.stack([own[name] for name in labels]) + present[:, None] * cue + 0.2 * rng.standard_normal((N, D))
    return vectors, present, labels, rng.random(N) < 0.5, cue


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 2.0))
def test_the_dose_of_an_edit_is_the_share_of_the_natural_difference(seed: int, share: float) -> None:
    vectors, present, labels, selection, cue = world(seed)
    scale = natural_scale(vectors, present, labels, selection)
    assert scale is not None
    without = vectors[~present]
    assert (scale.of(without + share * cue) - scale.of(without)).mean() == pytest.approx(share, abs=0.05 + 0.15 * share)


def test_what_differs_between_classes_is_no_dose() -> None:
    vectors, present, labels, selection, _ = world(3)
    scale = natural_scale(vectors, present, labels, selection)
    assert scale is not None
    apart = [scale.of(vectors[(labels == name) & ~present]).mean() for name in ("boat", "car", "dog")]
    assert np.ptp(apart) < 0.5  # the classes lie some 15 times the cue's own length apart


def test_a_cue_that_the_encoder_cannot_see_has_no_scale() -> None:
    vectors, present, labels, selection, _ = world(5, strength=0.0)
    assert natural_scale(vectors, present, labels, selection) is None


def test_no_class_with_both_sides_gives_no_scale() -> None:
    vectors, _, labels, selection, _ = world(6)
    assert natural_scale(vectors, labels == "boat", labels, selection) is None


def test_the_unit_is_not_measured_where_the_direction_was_found() -> None:
    """Of pure noise a direction separates the pictures it was found on; on others it must not."""
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        vectors, present = rng.standard_normal((60, 40)), rng.random(60) < 0.5
        found += natural_scale(vectors, present, np.full(60, "boat"), rng.random(60) < 0.5) is not None
    assert found <= 2
