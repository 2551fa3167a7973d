from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence.experiments import grow, place_elsewhere, place_like, visible
from pipeline.geometry import area, as_boxes, inside

corner = st.floats(0, 0.6)
side = st.floats(0.1, 0.4)


@st.composite
def one_box(draw) -> np.ndarray:
    x, y, w, h = draw(corner), draw(corner), draw(side), draw(side)
    return np.array([x, y, min(x + w, 1), min(y + h, 1)])


@settings(max_examples=60)
@given(one_box(), one_box(), st.integers(0, 1000))
def test_a_placebo_lies_elsewhere_and_is_as_large(cue: np.ndarray, obj: np.ndarray, seed: int) -> None:
    avoid = as_boxes([cue, obj])
    place = place_elsewhere(cue, avoid, np.random.default_rng(seed), 1.0)
    if place is None:
        return
    assert (place >= 0).all() and (place <= 1 + 1e-9).all()
    np.testing.assert_allclose(area(place[None]), area(cue[None]), rtol=1e-6)
    assert inside(place[None], avoid).sum() <= 0.2 + 1e-9


def test_a_placebo_shrinks_with_the_part_of_the_cue_that_may_be_edited() -> None:
    box = np.array([0.0, 0.0, 0.4, 0.4])
    place = place_elsewhere(box, as_boxes([box]), np.random.default_rng(0), 0.25)
    np.testing.assert_allclose(area(place[None]), 0.04)


def test_no_room_no_placebo() -> None:
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    assert place_elsewhere(np.array([0, 0, 0.5, 0.5]), as_boxes([whole]), np.random.default_rng(0), 1.0) is None


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
