"""Measured properties of pictures whose truth is known; edits that move one, and placebos that don't."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.properties import CONTRARY, PROPERTY_CUES, TINTS, apply_property, measure, property_score, rms
from pipeline.records import CUE_TYPES, PROPERTIES

STEP = {"tint": 0.3, "brightness": 0.1, "contrast": 0.05, "saturation": 0.12, "sharpness": 0.5, "noise": 0.03}
"""A change of each kind that an ordinary picture can take."""


def picture(seed: int, size: tuple[int, int] = (80, 96)) -> np.ndarray:
    """A shaded scene with coloured shapes, texture and some noise: mostly near grey, as photographs are."""
    rng = np.random.default_rng(seed)
    height, width = size
    ramp = np.linspace(90, 170, width)[None, :, None] * np.ones((height, 1, 1))
    image = ramp * np.array([1.02, 1.0, 0.97])
    tall, wide = height // 4, width // 6
    for _ in range(8):
        y, x = int(rng.integers(0, height - tall)), int(rng.integers(0, width - wide))
        image[y : y + tall, x : x + wide] = rng.uniform(30, 220, 3)
    image = image + rng.normal(0, 4, (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def score(image: np.ndarray, name: str) -> float:
    return float(property_score(name, measure(image)))


@settings(max_examples=80, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_any_picture_has_finite_properties_in_range(image: np.ndarray) -> None:
    values = measure(image)
    assert tuple(values) == PROPERTIES and all(math.isfinite(value) for value in values.values())
    for name in ("brightness", "saturation", "noise"):
        assert 0 <= values[name] <= 1 + 1e-6
    assert 0 <= values["contrast"] <= 0.5 + 1e-6


def test_plain_pictures_have_the_properties_they_were_made_with() -> None:
    grey = measure(np.full((40, 50, 3), 51, np.uint8))
    assert grey["brightness"] == pytest.approx(0.2, abs=1e-6)
    assert [grey[name] for name in ("contrast", "saturation", "tint_red", "tint_blue", "noise")] == pytest.approx(
        [0] * 5, abs=1e-6
    )
    halves = np.zeros((40, 50, 3), np.uint8)
    halves[:, 25:] = 255
    assert measure(halves)["contrast"] == pytest.approx(0.5)
    green = measure(np.full((9, 9, 3), (0, 255, 0), np.uint8))
    assert green["brightness"] == pytest.approx(0.7152, abs=1e-4) and green["saturation"] == pytest.approx(1)


@pytest.mark.parametrize("sigma", [5, 12])
def test_noise_is_measured_in_its_own_units(sigma: float) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(128 + rng.normal(0, sigma, (200, 200, 1)) * np.ones(3), 0, 255).astype(np.uint8)
    assert measure(noisy)["noise"] * 255 == pytest.approx(sigma, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.6, 1.0), st.integers(0, 2))
def test_a_gain_on_a_channel_moves_the_tint_by_its_logarithm_whatever_the_scene(
    seed: int, gain: float, channel: int
) -> None:
    image = picture(seed)
    gains = np.ones(3)
    gains[channel] = gain
    changed = np.rint(image * gains).astype(np.uint8)
    before, after = measure(image), measure(changed)
    moved = np.array([after[name] - before[name] for name in ("tint_red", "tint_blue")])
    axes = np.array([[1, -1, 0], [-1, -1, 2]])[:, channel] / np.sqrt([2, 6])
    assert moved == pytest.approx(axes * math.log(gain), abs=0.08)


@pytest.mark.parametrize(
    "color, gains",
    [
        ("red", (1, 0.5, 0.5)),
        ("green", (0.5, 1, 0.5)),
        ("blue", (0.5, 0.5, 1)),
        ("yellow", (1, 1, 0.5)),
        ("purple", (1, 0.5, 1)),
        ("cyan", (0.5, 1, 1)),
    ],
)
def test_the_tint_is_called_by_its_colour(color: str, gains: tuple[float, float, float]) -> None:
    image = (picture(3) * np.array(gains)).astype(np.uint8)
    tints = {name: score(image, name) for name in PROPERTY_CUES if name.endswith("tint")}
    assert max(tints, key=lambda name: tints[name]) == f"{color} tint"


def test_a_coloured_thing_is_no_tint() -> None:
    image = picture(1)
    with_thing = image.copy()
    with_thing[20:60, 20:60] = (230, 20, 20)
    assert score(with_thing, "red tint") - score(image, "red tint") < 0.1
    assert score((image * [1, 0.6, 0.6]).astype(np.uint8), "red tint") - score(image, "red tint") > 0.35


def test_scores_are_arrays_over_images_and_every_cue_has_a_type() -> None:
    images = [picture(seed) for seed in range(3)]
    rows = [measure(image) for image in images]
    columns = {name: np.array([row[name] for row in rows]) for name in PROPERTIES}
    for name, cue in PROPERTY_CUES.items():
        assert property_score(name, columns).tolist() == pytest.approx([score(image, name) for image in images])
        assert cue.cue_type in CUE_TYPES and cue.phrase
    assert score(images[0] // 3, "dark image") > score(images[0], "dark image")
    with pytest.raises(KeyError):
        property_score("no such cue", columns)


@pytest.mark.parametrize("sign", [1, -1], ids=["more", "less"])
@pytest.mark.parametrize("name", PROPERTY_CUES)
@pytest.mark.parametrize("size", [(80, 96), (300, 400)], ids=["small", "large"])
def test_an_edit_moves_its_score_and_its_placebo_as_many_pixels_but_not_the_score(
    name: str, sign: int, size: tuple[int, int]
) -> None:
    amount = sign * STEP[PROPERTY_CUES[name].edit]
    for seed in range(3 if size[0] < 100 else 1):
        image = picture(seed, size)
        if (name, sign) == ("noisy image", -1):  # noise can be taken from a noisy picture only
            image = apply_property(image, name, 0.06, np.random.default_rng(9))
        edited = apply_property(image, name, amount, np.random.default_rng(seed))
        placebo = apply_property(image, name, amount, np.random.default_rng(seed), placebo=True)
        assert edited.shape == placebo.shape == image.shape and edited.dtype == placebo.dtype == np.uint8
        before = score(image, name)
        assert score(edited, name) - before == pytest.approx(amount, rel=0.15)
        assert abs(score(placebo, name) - before) < 0.2 * abs(amount)
        sizes = [rms(changed.astype(np.float32) - image.astype(np.float32)) for changed in (edited, placebo)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.3)


@settings(max_examples=40, deadline=None)
@given(
    image=arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3))),
    name=st.sampled_from(sorted(PROPERTY_CUES)),
    amount=st.floats(-3, 3),
    placebo=st.booleans(),
)
def test_any_edit_of_any_picture_is_a_picture_and_repeats(
    image: np.ndarray, name: str, amount: float, placebo: bool
) -> None:
    before = image.copy()
    first, again = (apply_property(image, name, amount, np.random.default_rng(4), placebo) for _ in range(2))
    assert first.shape == image.shape and first.dtype == np.uint8
    assert np.array_equal(first, again) and np.array_equal(image, before)


@pytest.mark.parametrize("name", PROPERTY_CUES)
def test_no_amount_changes_nothing(name: str) -> None:
    image = picture(0)
    for placebo in (False, True):
        assert np.array_equal(apply_property(image, name, 0.0, np.random.default_rng(0), placebo), image)


def test_an_edit_goes_as_far_as_the_picture_allows() -> None:
    image = picture(0)
    black = apply_property(image, "dark image", 5.0, np.random.default_rng(0))
    assert measure(black)["brightness"] < 0.1
    grey = apply_property(image, "grayscale", 5.0, np.random.default_rng(0))
    assert measure(grey)["saturation"] < 0.01


def test_contrary_cues_are_contrary_both_ways_and_never_of_another_kind() -> None:
    for name, others in CONTRARY.items():
        for other in others:
            if name == "grayscale" and other in TINTS:
                continue  # black and white takes a tint away, a tint doesn't take black and white away
            assert name in CONTRARY[other]
            assert PROPERTY_CUES[name].edit == PROPERTY_CUES[other].edit
    assert CONTRARY["dark image"] == {"bright image"}
    assert CONTRARY["yellow tint"] >= {"blue tint"}
