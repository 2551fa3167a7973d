"""Edited pictures that are made while a model looks at the first of them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from pipeline.evidence import making
from pipeline.evidence.edits import apply_edit, things


def _asked(number: int) -> tuple[list[dict[str, Any]], list[np.ndarray], list[None]]:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (24, 24, 3)).astype(np.uint8) for _ in range(number)]
    boxes = [[[x, 0.2, x + 0.3, 0.6]] for x in rng.uniform(0, 0.6, number)]
    specs = [{"op": "fill", "fill": "mean", "boxes": mine, "keep": [], "seed": n} for n, mine in enumerate(boxes)]
    return specs, images, [None] * number


def test_they_are_the_pictures_that_the_edits_make_in_their_order() -> None:
    specs, images, donors = _asked(20)
    expected = [apply_edit(*one) for one in zip(specs, images, donors, strict=True)]
    with making.made(specs, images, donors) as coming:
        assert len(coming) == 20
        np.testing.assert_array_equal(np.stack(coming[5:9]), np.stack(expected[5:9]))
        np.testing.assert_array_equal(np.stack(list(coming)), np.stack(expected))
        np.testing.assert_array_equal(coming[-1], expected[-1])


def test_the_first_can_be_seen_before_the_last_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    specs, images, donors = _asked(12)
    seen = threading.Event()

    def slow(spec: dict[str, Any], *pictures: Any) -> np.ndarray:
        assert spec["seed"] < 8 or seen.wait(30), "the first were kept back until all were made"
        return apply_edit(spec, *pictures)

    monkeypatch.setattr(making, "apply_edit", slow)
    with making.made(specs, images, donors) as coming:
        assert len(coming[:8]) == 8
        assert len(coming.part(slice(6, None))) == 6 and coming.part(slice(2, 9))[:3][0].shape == (24, 24, 3)
        seen.set()
        assert len(coming[8:]) == 4


def test_a_model_that_stops_does_not_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    specs, images, donors = _asked(50)
    started: list[int] = []
    stopped = threading.Event()

    def slow(spec: dict[str, Any], *pictures: Any) -> np.ndarray:
        started.append(spec["seed"])
        assert stopped.wait(30)
        return apply_edit(spec, *pictures)

    monkeypatch.setattr(making, "apply_edit", slow)
    with pytest.raises(KeyError), making.made(specs, images, donors):
        threading.Timer(0.2, stopped.set).start()
        raise KeyError
    assert len(started) <= 8  # those that the threads had begun


def test_what_goes_wrong_in_an_edit_is_raised_where_its_picture_is_asked_for() -> None:
    specs, images, donors = _asked(3)
    specs[1]["fill"] = "no such fill"
    with making.made(specs, images, donors) as coming:
        assert coming[0].shape == (24, 24, 3)
        with pytest.raises(Exception, match="no such fill"):
            coming[1]


def test_the_things_of_a_picture_are_sought_once_for_the_edits_that_follow_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, images, _ = _asked(2)
    keep = [[0.2, 0.2, 0.7, 0.8]]
    boxes = [[0.0, 0.0, 0.3, 0.3]], [[0.6, 0.6, 1.0, 1.0]]
    specs = [
        {"op": "fill", "fill": "mean", "boxes": mine, "keep": keep, "mask": "grabcut", "seed": 0} for mine in boxes
    ]
    asked = [(spec, image) for image in images for spec in specs]
    expected = [apply_edit(spec, image) for spec, image in asked]
    sought: list[int] = []

    def counted(image: np.ndarray, boxes: list) -> np.ndarray:
        sought.append(id(image))
        return things(image, boxes)

    monkeypatch.setattr(making, "MAKERS", 1)  # two could seek the same at once
    monkeypatch.setattr(making, "things", counted)
    with making.made([spec for spec, _ in asked], [image for _, image in asked], [None] * 4) as coming:
        np.testing.assert_array_equal(np.stack(list(coming)), np.stack(expected))
    assert len(sought) == 2 and {*sought} == {id(image) for image in images}


def test_what_was_found_in_a_picture_is_known_when_it_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each box by itself: edits ask for the same ones in other company."""
    _, (image,), _ = _asked(1)
    one, other = [0.1, 0.1, 0.5, 0.5], [0.4, 0.3, 0.9, 0.8]
    again = image.copy()
    expected = things(image, [one, other])
    sought: list[list] = []

    def counted(image: np.ndarray, boxes: list) -> np.ndarray:
        sought.append(boxes)
        return things(image, boxes)

    monkeypatch.setattr(making, "things", counted)
    masks = making.Masks()
    find = masks.finder({id(image): "its name", id(again): "its name"})
    find(image, [one])[:] = True  # what a caller does with its own does not come back
    np.testing.assert_array_equal(find(again, [one, other]), expected)
    np.testing.assert_array_equal(find(image, [other, one]), expected)
    assert sought == [[tuple(one)], [tuple(other)]]
    assert not find(image, []).any()
    monkeypatch.setattr(making, "MASK_BYTES", 0)
    np.testing.assert_array_equal(making.Masks().finder({id(image): 0})(image, [one, other]), expected)
