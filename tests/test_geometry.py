from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline import geometry

unit = st.floats(0, 1, allow_nan=False, width=32)


@st.composite
def boxes(draw, least: int = 0) -> np.ndarray:
    corners = draw(arrays(np.float64, (draw(st.integers(least, 6)), 2, 2), elements=unit))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).reshape(-1, 4)


@given(boxes())
def test_percent_boxes_come_back(found: np.ndarray) -> None:
    percent = geometry.to_percent_xywh(found)
    assert ((percent >= 0) & (percent <= 100)).all()
    assert (percent[:, :2] + percent[:, 2:] <= 100 + 1e-9).all()
    np.testing.assert_allclose(geometry.from_percent_xywh(percent), found, atol=1e-6)


@given(boxes(), st.integers(1, 500), st.integers(1, 500))
def test_pixel_boxes_cover_the_box_and_are_never_empty(found: np.ndarray, width: int, height: int) -> None:
    pixels = np.array(geometry.to_pixels(found, width, height)).reshape(-1, 4)
    assert (pixels[:, 2:] > pixels[:, :2]).all()
    assert (pixels[:, :2] >= 0).all() and (pixels[:, 2:] <= [width, height]).all()
    back = geometry.from_pixels(pixels, width, height)
    assert (back[:, :2] <= found[:, :2] + 1e-6).all() and (back[:, 2:] >= found[:, 2:] - 1e-6).all()


@given(boxes(1), boxes(1))
def test_iou_is_symmetric_and_in_range(a: np.ndarray, b: np.ndarray) -> None:
    value = geometry.iou(a, b)
    assert ((value >= 0) & (value <= 1 + 1e-9)).all()
    np.testing.assert_allclose(value, geometry.iou(b, a).T)


@given(boxes(1))
def test_a_box_lies_wholly_inside_itself(found: np.ndarray) -> None:
    real = geometry.area(found) > 1e-9
    np.testing.assert_allclose(np.diag(geometry.inside(found, found))[real], 1)


@given(boxes(1), st.integers(0, 1000))
def test_suppression_keeps_the_best_and_leaves_no_overlapping_pair(found: np.ndarray, seed: int) -> None:
    scores = np.random.default_rng(seed).random(len(found))
    kept = geometry.suppress(found, scores, 0.5)
    assert kept[0] == scores.argmax()
    overlap = geometry.iou(found[kept], found[kept]) - np.eye(len(kept))
    assert (overlap <= 0.5 + 1e-9)[~np.eye(len(kept), dtype=bool)].all()
    left_out = set(range(len(found))) - set(kept.tolist())
    assert all(geometry.iou(found[[i]], found[kept]).max() > 0.5 for i in left_out)


@given(st.floats(0.01, 0.5))
def test_borders_cover_the_rim_of_the_picture_and_not_its_middle(share: float) -> None:
    strips = geometry.borders(share)
    np.testing.assert_allclose(geometry.area(strips), share)
    middle = np.array([[share, share, 1 - share, 1 - share]])
    assert geometry.intersection(strips, middle).max() < 1e-12
    assert geometry.area(geometry.join(strips[:1])) == geometry.area(strips[:1])


def test_a_grid_tiles_the_picture() -> None:
    cells = geometry.grid((3,))
    assert len(cells) == 9
    np.testing.assert_allclose(geometry.area(cells).sum(), 1)
    assert geometry.intersection(cells, cells)[~np.eye(9, dtype=bool)].max() < 1e-12


def test_pieces_that_tile_a_larger_box_are_one_place() -> None:
    halves = geometry.as_boxes([[0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1], [0, 0, 0.2, 0.2]])
    np.testing.assert_allclose(geometry.join(halves), [[0, 0.5, 1, 1], [0, 0, 0.2, 0.2]])
    np.testing.assert_allclose(geometry.join(geometry.grid((3,))), [[0, 0, 1, 1]])
    assert geometry.join(geometry.as_boxes([])).shape == (0, 4)


@given(boxes())
def test_joining_loses_no_place_and_ends(found: np.ndarray) -> None:
    joined = geometry.join(found)
    assert len(joined) <= len(found)
    for box in found[geometry.area(found) > 1e-9]:
        assert geometry.inside(box[None], joined).max() > 1 - 1e-6
    np.testing.assert_allclose(geometry.join(joined), joined)
