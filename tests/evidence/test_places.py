from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence.places import arrangements, free_places, grow, other_patches, place_like, visible, window_on
from pipeline.geometry import area, as_boxes, inside, intersection, iou

corner = st.floats(0, 0.6)
side = st.floats(0.1, 0.4)


@st.composite
def one_box(draw) -> np.ndarray:
    x, y, w, h = draw(corner), draw(corner), draw(side), draw(side)
    return np.array([x, y, min(x + w, 1), min(y + h, 1)])


@settings(max_examples=60)
@given(one_box(), one_box(), st.integers(0, 1000))
def test_places_are_as_large_and_touch_neither_cue_nor_object(cue: np.ndarray, obj: np.ndarray, seed: int) -> None:
    avoid = as_boxes([cue, obj])
    places = free_places(cue, avoid, np.random.default_rng(seed))
    if not len(places):
        return
    assert (places >= 0).all() and (places <= 1 + 1e-9).all()
    np.testing.assert_allclose(area(places), area(cue[None])[0], rtol=1e-6)
    assert not intersection(places, avoid).any()
    apart = iou(places, places)[np.triu_indices(len(places), 1)]
    assert (apart < 0.5).all()


def test_a_small_cue_in_a_corner_has_the_other_corners_first() -> None:
    cue = np.array([0.02, 0.02, 0.17, 0.17])
    first = free_places(cue, as_boxes([cue]), np.random.default_rng(0))[0]
    assert first[1] < 0.1 and first[0] > 0.7  # as high, as far from the middle: the other upper corner


def test_a_bar_across_the_picture_has_an_equal_strip_elsewhere() -> None:
    bar, obj = np.array([[0.0, 0.84, 1.0, 1.0]]), np.array([[0.3, 0.45, 0.7, 0.8]])
    pieces, found = arrangements(bar, obj, np.random.default_rng(0))
    assert len(found) >= 2 and (pieces == bar).all()
    for places in found:
        np.testing.assert_allclose(places[:, 2:] - places[:, :2], [[1.0, 0.16]], atol=1e-9)
        assert not intersection(places, np.concatenate([bar, obj])).any()


def test_a_bar_whose_strip_has_no_place_has_one_in_another_shape() -> None:
    bar, obj = np.array([[0.0, 0.84, 1.0, 1.0]]), np.array([[0.42, 0.1, 0.7, 0.8]])
    pieces, found = arrangements(bar, obj, np.random.default_rng(0))
    assert found
    for places in found:
        np.testing.assert_allclose(area(places).sum(), area(bar).sum(), rtol=1e-6)
        assert not intersection(places, np.concatenate([bar, obj])).any()
    np.testing.assert_allclose(area(pieces).sum(), area(bar).sum())


@pytest.mark.parametrize("width", [0.04, 0.07])
def test_a_thin_frame_has_a_placebo_of_equal_area_inside(width: float) -> None:
    frame = np.array(
        [[0, 0, 1, width], [0, 1 - width, 1, 1], [0, width, width, 1 - width], [1 - width, width, 1, 1 - width]]
    )
    obj = np.array([[0.35, 0.35, 0.65, 0.65]])
    pieces, found = arrangements(frame, obj, np.random.default_rng(0))
    assert found
    for places in found:
        np.testing.assert_allclose(area(places).sum(), area(frame).sum(), rtol=1e-6)
        assert len(places) == len(pieces)
        assert not intersection(places, np.concatenate([frame, obj])).any()
        assert np.allclose(intersection(places, places), np.diag(area(places)))  # apart from each other


def test_where_no_shape_has_room_in_one_piece_a_placebo_is_in_pieces() -> None:
    bar, obj = np.array([[0.0, 0.0, 1.0, 0.3]]), np.array([[0.35, 0.35, 0.65, 1.0]])
    pieces, found = arrangements(bar, obj, np.random.default_rng(0))
    assert len(pieces) == 2 and found
    np.testing.assert_allclose(intersection(pieces, bar).sum(), area(bar).sum())
    for places in found:
        np.testing.assert_allclose(area(places).sum(), area(bar).sum(), rtol=1e-6)
        assert not intersection(places, np.concatenate([bar, obj])).any()


def test_no_room_no_placebo() -> None:
    whole = as_boxes([[0.0, 0.0, 1.0, 1.0]])
    assert arrangements(as_boxes([[0, 0, 0.5, 0.5]]), whole, np.random.default_rng(0))[1] == []


@settings(max_examples=60)
@given(one_box(), one_box())
def test_a_window_holds_the_thing_in_the_proportions_asked_for(thing: np.ndarray, shape: np.ndarray) -> None:
    window = window_on(thing, shape)
    if window is None:
        return
    assert inside(thing[None], window[None])[0, 0] > 1 - 1e-6
    (w, h), (u, v) = window[2:] - window[:2], shape[2:] - shape[:2]
    assert w * v == pytest.approx(h * u, rel=1e-6)
    assert (window >= -1e-9).all() and (window <= 1 + 1e-9).all()


def test_another_thing_of_the_donor_may_stand_in_for_the_cue_but_not_the_cue_itself() -> None:
    cue, obj, other = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9], [0.62, 0.1, 0.8, 0.28]
    patches = other_patches(np.array(cue), as_boxes([cue, obj]), as_boxes([cue, obj, other]), np.random.default_rng(0))
    np.testing.assert_allclose(patches[0], other, atol=1e-6)
    assert len(patches) > 3 and not intersection(patches, as_boxes([cue, obj])).any()


@settings(max_examples=60)
@given(one_box(), one_box(), st.integers(0, 1000))
def test_a_cue_is_put_where_it_was_unless_the_object_is_there(cue: np.ndarray, obj: np.ndarray, seed: int) -> None:
    place = place_like(cue, as_boxes([obj]), np.random.default_rng(seed))
    clear = inside(cue[None], as_boxes([obj])).sum() <= 0.2
    if clear:
        np.testing.assert_allclose(place, cue)
    elif place is not None:
        assert inside(place[None], as_boxes([obj])).sum() <= 0.2


@given(one_box())
def test_visible_share(box: np.ndarray) -> None:
    assert visible(box[None], as_boxes([])) == 1
    assert visible(box[None], box[None]) < 1e-9
    assert (inside(box[None], grow(box[None])) > 1 - 1e-9).all()
