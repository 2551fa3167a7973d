from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.evidence.masks import box_mask, foreground, grown
from pipeline.planted.render import render
from pipeline.planted.scene import sample_scene


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def objects() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pictures, boxes and true pixels of rendered objects that are mostly in view."""
    rng = np.random.default_rng(0)
    pictures = [render(sample_scene(rng, n_objects=(2, 3))) for _ in range(30)]
    return [(p.image, p.boxes[k], p.ids == k + 1) for p in pictures for k in range(len(p.boxes)) if p.visible[k] > 0.7]


def test_a_mask_is_nearer_to_the_object_than_its_box(objects) -> None:
    assert len(objects) > 40
    masks = [overlap(foreground(image, [box]), truth) for image, box, truth in objects]
    boxes = [overlap(box_mask(truth.shape, [box]), truth) for _, box, truth in objects]
    assert np.mean(masks) > np.mean(boxes) + 0.1
    assert np.mean(np.array(masks) < np.array(boxes) - 0.05) < 0.1


def test_a_grown_mask_holds_nearly_all_of_the_object(objects) -> None:
    held = [(grown(foreground(image, [box])) & truth).sum() / truth.sum() for image, box, truth in objects]
    assert np.mean(held) > 0.92


def test_a_mask_lies_in_its_box_and_repeats(objects) -> None:
    for image, box, _ in objects[:8]:
        before = image.copy()
        mask = foreground(image, [box])
        assert not (mask & ~box_mask(image.shape, [box])).any() and mask.any()
        np.random.default_rng(1).random(5)
        assert (foreground(image, [box]) == mask).all() and (image == before).all()


def test_where_nothing_stands_out_the_box_is_the_mask() -> None:
    box = [0.25, 0.25, 0.75, 0.75]
    plain = np.full((40, 40, 3), 90, dtype=np.uint8)
    assert (foreground(plain, [box]) == box_mask(plain.shape, [box])).all()
    assert foreground(plain, [[0, 0, 1, 1]]).all()  # no background to compare with


def test_a_disc_is_found_and_two_discs_too() -> None:
    y, x = np.mgrid[:80, :80]
    image = np.full((80, 80, 3), (40, 120, 60), dtype=np.uint8)
    image += np.random.default_rng(0).integers(0, 12, image.shape).astype(np.uint8)
    left, right = ((x - cx) ** 2 + (y - 40) ** 2 <= 15**2 for cx in (20, 60))
    image[left | right] = (220, 40, 30)
    boxes = [[5 / 80, 25 / 80, 36 / 80, 56 / 80], [45 / 80, 25 / 80, 76 / 80, 56 / 80]]
    assert overlap(foreground(image, boxes), left | right) > 0.95
    assert overlap(foreground(image, boxes[:1]), left) > 0.95
    large = image.repeat(4, axis=0).repeat(4, axis=1)  # found on a smaller copy
    assert overlap(foreground(large, boxes), (left | right).repeat(4, axis=0).repeat(4, axis=1)) > 0.9


@settings(max_examples=40)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_any_box_of_any_picture_has_a_mask(image: np.ndarray, corners: list[float]) -> None:
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    mask = foreground(image, [[x0, y0, x1, y1]])
    assert mask.shape == image.shape[:2] and mask.any()
    assert not (mask & ~box_mask(image.shape, [[x0, y0, x1, y1]])).any()
