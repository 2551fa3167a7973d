"""Colour maps: they undo a cast that mixes channels, which gains can't, and leave equal sets alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.evidence.colors import color_map, color_statistics
from pipeline.images import RGB
from pipeline.planted import render, sample_scene
from pipeline.properties import apply_property, measure, property_score

SEPIA = np.array([[0.65, 0.25, 0.1], [0.25, 0.6, 0.1], [0.1, 0.1, 0.4]])


def scenes(seed: int, n: int) -> list[RGB]:
    rng = np.random.default_rng(seed)
    return [render(sample_scene(rng, plain=True), 64).image for _ in range(n)]


def aged(image: RGB) -> RGB:
    """Channels mixed, as an old print's."""
    return np.clip(np.rint(image @ SEPIA.T + 10), 0, 255).astype(np.uint8)


def test_a_set_is_mapped_to_itself_by_nothing() -> None:
    statistics = color_statistics(scenes(0, 12))
    assert np.asarray(color_map(statistics, statistics)) == pytest.approx(np.eye(3, 4), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_map_gives_the_wanted_mean_and_covariance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (a, b) = (rng.random((400, 3)) @ (0.5 * np.eye(3) + rng.normal(0, 0.15, (3, 3))) for _ in range(2))
    assume(min(np.linalg.eigvalsh(np.cov(x.T)).min() for x in (a, b)) > 3e-3)  # the ridge is small beside it
    statistics = [(x.mean(0), np.cov(x.T, bias=True)) for x in (a, b)]
    found = np.asarray(color_map(*statistics))
    moved = a @ found[:, :3].T + found[:, 3]
    assert moved.mean(0) == pytest.approx(b.mean(0), abs=1e-4)
    assert np.cov(moved.T, bias=True) == pytest.approx(np.cov(b.T, bias=True), abs=5e-3)


def test_a_cast_that_mixes_channels_is_undone_better_than_by_gains() -> None:
    plain, old = scenes(1, 150), [aged(image) for image in scenes(2, 150)]
    colors = color_map(color_statistics(old), color_statistics(plain))
    errors: dict[str, list[float]] = {"gain": [], "map": []}
    for truth in scenes(3, 10):
        cast = aged(truth)
        amount = float(property_score("yellow tint", measure(truth)) - property_score("yellow tint", measure(cast)))
        for name, along in (("gain", None), ("map", colors)):
            edited = apply_property(cast, "yellow tint", amount, np.random.default_rng(0), colors=along)
            errors[name].append(float(np.abs(edited.astype(float) - truth).mean()))
    assert np.mean(errors["map"]) < 0.7 * np.mean(errors["gain"])
