"""Boxes by image: what vectors and bisection give, held against plain loops."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence import boxes
from pipeline.evidence.boxes import BETTER, OBJECT_SCORE, BoxFinder, undisputed
from pipeline.geometry import as_boxes, iou, join, suppress
from pipeline.records import SCHEMAS, table

PLACES = [[0.0, 0.0, 0.5, 0.5], [0.05, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]]
SEEN = st.tuples(
    st.sampled_from("ijk"), st.sampled_from(["cup", "boat", "buoy"]), st.sampled_from([0.2, 0.3, 0.5, 0.9]),
    st.sampled_from(PLACES),
)  # fmt: skip


def detections(found: list[tuple[Any, ...]]) -> Any:
    names = ("image_id", "phrase", "score", "box")
    return table("detections", [dict(zip(names, one, strict=True)) for one in found])


@given(st.lists(SEEN, max_size=25), st.sampled_from([1, 5, 1 << 20]))
def test_a_disputed_box_is_one_that_another_phrase_explains_better(found: list[tuple[Any, ...]], pairs: int) -> None:
    expected = [
        one
        for one in found
        if not any(
            other[0] == one[0]
            and other[1] != one[1]
            and np.float64(np.float32(other[2])) >= BETTER * np.float64(np.float32(one[2]))
            and iou(as_boxes(one[3]), as_boxes(other[3]))[0, 0] >= 0.5
            for other in found
        )
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "PAIRS", pairs)
        kept = undisputed(detections(found)).to_pylist()
    assert [(row["image_id"], row["phrase"], row["box"]) for row in kept] == [(i, p, b) for i, p, _, b in expected]


MEMBER = st.tuples(st.sampled_from("ijk"), st.integers(0, 2), st.sampled_from([0.1, 0.4, 0.6]), st.sampled_from(PLACES))


@given(st.lists(SEEN, max_size=20), st.lists(MEMBER, max_size=20))
def test_a_finder_of_some_images_knows_of_them_what_one_of_all_knows(
    found: list[tuple[Any, ...]], members: list[tuple[Any, ...]]
) -> None:
    cues = [
        {"cue_id": "thing:cup", "threshold": 0.3},
        *({"cue_id": f"cluster:{n}", "threshold": 0.3} for n in range(3)),
    ]
    regions = table("regions", [
        {"region_id": f"r{n}", "image_id": i, "source": "grid 2", "box": box, "embedding": [1.0]}
        for n, (i, _, _, box) in enumerate(members)
    ])  # fmt: skip
    assigned = table("assignments", [
        {"region_id": f"r{n}", "image_id": i, "cluster": c, "similarity": s} for n, (i, c, s, _) in enumerate(members)
    ])  # fmt: skip
    every, some = (BoxFinder(cues, detections(found), regions, assigned, ids) for ids in (None, {"i", "k"}))
    sure = undisputed(detections(found)).to_pylist()
    for image_id in "ik":
        for cue in cues:
            np.testing.assert_array_equal(some.cue(image_id, cue["cue_id"]), every.cue(image_id, cue["cue_id"]))
        for number in range(3):
            mine = [(s, box) for i, c, s, box in members if i == image_id and c == number and s >= 0.3]
            shown = as_boxes([box for _, box in mine])
            kept = join(shown[suppress(shown, np.array([s for s, _ in mine]), 0.3)[:6]]) if mine else as_boxes([])
            np.testing.assert_array_equal(every.cue(image_id, f"cluster:{number}"), kept)
        things = [row["box"] for row in sure if row["image_id"] == image_id and row["score"] >= OBJECT_SCORE]
        np.testing.assert_array_equal(some.things(image_id), as_boxes(things))
    assert not len(some.cue("j", "thing:cup")) and some.has_detector == bool(found)


def test_a_finder_that_remembers_is_gone_when_nobody_needs_it() -> None:
    """It may hold the boxes of a whole audit; one that held itself would stay until the collector comes."""
    nothing = SCHEMAS["detections"].empty_table()
    finder = BoxFinder([], nothing, SCHEMAS["regions"].empty_table(), SCHEMAS["assignments"].empty_table())
    assert not len(finder.object("an image", "boat")) and not len(finder.cue("an image", "property:dark"))
    left = weakref.ref(finder)
    gc.disable()
    try:
        del finder
        assert left() is None
    finally:
        gc.enable()
