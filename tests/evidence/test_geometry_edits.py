from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.evidence.geometry_edits import FITTING, GEOMETRIC, LIBRARY, apply_geometry, as_strong_as
from pipeline.properties import measure, rms
from pipeline.records import CUE_TYPES


def smooth(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """A picture without fine detail, so that reading between its pixels loses little."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 1 : height * 1j, : 1 : width * 1j]
    waves = [np.sin(2 * np.pi * (rng.uniform(0.5, 2) * x + rng.uniform(0.5, 2) * y + rng.random())) for _ in range(3)]
    return np.rint(128 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """In the middle of two pictures, where nothing comes in from outside."""
    middle = (slice(36, 54), slice(48, 72))
    return rms(a[middle].astype(np.float32) - b[middle].astype(np.float32))


@settings(max_examples=60)
@given(
    st.integers(0, 50),
    st.sampled_from([o.name for o in LIBRARY.values() if o.kind == GEOMETRIC]),
    st.floats(-1, 1).filter(lambda s: abs(s) > 0.05),
)
def test_moving_pixels_back_gives_the_picture_again(seed: int, name: str, share: float) -> None:
    image, strength = smooth(seed), share * max(LIBRARY[name].strengths)
    there = apply_geometry(image, name, strength)
    back = apply_geometry(there, name, strength if name in ("mirror", "flip") else -strength)
    assert difference(back, image) < 6
    assert (there != image).any()


def dot(y: int, x: int, size: tuple[int, int] = (80, 120)) -> np.ndarray:
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    return image


def where(image: np.ndarray) -> tuple[float, float]:
    weights = image[..., 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return float((y * weights).sum() / weights.sum()), float((x * weights).sum() / weights.sum())


@pytest.mark.parametrize(
    "name, strength, expected",
    [
        ("rotate", 90.0, (59.5, 59.5)),  # right of the middle comes below it, in pixels of a picture that isn't square
        ("zoom", math.log(2), (39.5, 99.5)),
        ("zoom", -math.log(2), (39.5, 69.5)),
        ("shift_x", 0.1, (39.5, 91.5)),
        ("shift_y", -0.2, (23.5, 79.5)),
        ("mirror", 1.0, (39.5, 39.5)),
    ],
)
def test_a_point_goes_where_it_should(name: str, strength: float, expected: tuple[float, float]) -> None:
    image = dot(39, 79).astype(float) / 2 + dot(40, 80).astype(float) / 2  # at (39.5, 79.5), 20 right of the middle
    moved = apply_geometry(image.astype(np.uint8), name, strength)
    if strength < 0 and name == "zoom":  # mirror images come in at the edge
        moved[:, :30], moved[:, 90:], moved[:20], moved[60:] = 0, 0, 0, 0
    assert where(moved) == pytest.approx(expected, abs=0.6)


def test_a_tilt_makes_one_edge_longer_by_its_strength() -> None:
    stripes = np.zeros((200, 200, 3), dtype=np.uint8)
    stripes[90:110] = 255
    tilted = apply_geometry(stripes, "tilt_x", 0.5)
    heights = tilted[..., 0].astype(float).sum(axis=0) / 255
    assert heights[-1] / heights[0] == pytest.approx(math.exp(0.5), rel=0.05)
    upper = apply_geometry(stripes.transpose(1, 0, 2).copy(), "tilt_y", 0.5)[..., 0].astype(float).sum(axis=1)
    assert upper[0] / upper[-1] == pytest.approx(math.exp(0.5), rel=0.05)


def test_light_falls_off_to_the_edge_and_comes_back() -> None:
    image = np.full((60, 60, 3), 120, dtype=np.uint8)
    for name in ("spotlight", "vignette"):
        dark = apply_geometry(image, name, 0.6)
        assert dark[30, 30, 0] > 110 and dark[0, 0, 0] < 60
        assert abs(apply_geometry(dark, name, -0.6).astype(int) - 120).max() <= 3


@pytest.mark.parametrize(
    "name, part, sign",
    [
        ("brightness", "brightness", 1),
        ("contrast", "contrast", 1),
        ("saturation", "saturation", 1),
        ("blur", "sharpness", -1),
        ("noise", "noise", 1),
        ("blue tint", "tint_blue", 1),
    ],
)
def test_each_way_of_light_and_colour_moves_its_property_both_ways(name: str, part: str, sign: int) -> None:
    image = smooth(1)
    image = np.clip(image.astype(int) + np.random.default_rng(0).integers(-9, 9, image.shape), 0, 255).astype(np.uint8)
    strengths = sorted(LIBRARY[name].strengths)
    values = [measure(apply_geometry(image, name, s))[part] for s in (strengths[0], 0.0, strengths[-1])]
    assert sign * values[0] < sign * values[1] < sign * values[2]


@settings(max_examples=60)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.sampled_from(sorted(LIBRARY)),
    st.data(),
)
def test_any_picture_stays_a_picture_and_repeats(image: np.ndarray, name: str, data) -> None:
    strength = data.draw(st.sampled_from((0.0, *LIBRARY[name].strengths)))
    before = image.copy()
    first, again = (apply_geometry(image, name, strength) for _ in range(2))
    assert first.shape == image.shape and first.dtype == np.uint8
    assert (first == again).all() and (image == before).all()
    if strength == 0:
        assert (first == image).all()


def test_a_placebos_strength_is_that_of_an_equal_change() -> None:
    for seed in range(4):
        image = smooth(seed)
        strength = as_strong_as(image, "shift_x", 0.25, "rotate", 4.0)
        sizes = [
            rms(apply_geometry(image, *operator).astype(np.float32) - image)
            for operator in (("shift_x", strength), ("rotate", 4.0))
        ]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.1) and 0 < strength < 0.25


def test_every_type_of_cue_without_boxes_has_an_operator_or_an_exchange() -> None:
    assert set(CUE_TYPES) - set(FITTING) == {"Background", "Co-occurring Objects", "Shape"}
    assert {name for names in FITTING.values() for name in names} <= set(LIBRARY)
