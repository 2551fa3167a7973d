from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Audit
from pipeline.evidence.experiments import Planner, donor_patches, pairs_for
from pipeline.evidence.manipulation import in_words
from pipeline.geometry import area, as_boxes, intersection
from pipeline.records import PROPERTIES, table

OBJECT, CUE, OTHER = [0.4, 0.35, 0.65, 0.7], [0.05, 0.7, 0.2, 0.9], [0.75, 0.05, 0.95, 0.25]
BAR = [0.0, 0.86, 1.0, 1.0]
TILT = {
    "insertion": {"name": "rotate", "strength": 20.0, "shift": 2.0, "placebo": {"name": "shift_x", "strength": 0.25}},
    "removal": {"why": "no edit of the whole picture takes it out"},
}
GREEN = {
    way: {"name": "green tint", "strength": sign * 0.3, "shift": 2.0,
          "placebo": {"name": "red tint", "strength": 0.15}}
    for way, sign in (("insertion", 1), ("removal", -1))
}  # fmt: skip
CUES = {
    "thing:buoy": "region",
    "thing:caption bar": "region",
    "scene:tilted": in_words(TILT)[0],
    "scene:green color": in_words(GREEN)[0],
    "scene:beach": "background",
}
SHARED = "i41"
"""A picture of the estimation half, without a cue: of a boat, and of a car too."""


@pytest.fixture(scope="module")
def planner() -> Planner:
    """80 images of two classes; every second one has all cues."""
    ids = [f"i{number:02d}" for number in range(80)]
    having = [number % 2 == 0 for number in range(80)]
    images = pa.table(
        {
            "image_id": ids,
            "label": ["boat" if number % 4 < 2 else "car" for number in range(80)],
            "group": ids,
            "split": ["selection" if number < 40 else "estimation" for number in range(80)],
            **{name: np.zeros(80) for name in PROPERTIES},
        }
    )
    annotations = [  # a boat that is a car too
        {"image_id": SHARED, "caption": "", "phrases": [], "boxes": [], "other_labels": ["car"]}
    ]
    rng = np.random.default_rng(0)
    detections = []
    for image_id, label, present in zip(ids, images["label"].to_pylist(), having, strict=True):
        shift = np.tile(rng.uniform(-0.03, 0.03, 2), 2)
        seen = {label: OBJECT, "lamp": OTHER, **({"buoy": CUE, "caption bar": BAR} if present else {})}
        for phrase, box in seen.items():
            moved = box if phrase == "caption bar" else (np.array(box) + shift).tolist()
            detections.append({"image_id": image_id, "phrase": phrase, "score": 0.9, "box": moved})
    cues = [
        {
            "cue_id": cue_id, "name": cue_id, "kind": "named",
            "cue_type": "Colorization" if "color" in cue_id else "", "operator": operator, "source": "list",
            "threshold": 0.5, "looks_like": "", "untestable": in_words(TILT)[1] if cue_id == "scene:tilted" else "",
        }
        for cue_id, operator in CUES.items()
    ]  # fmt: skip
    presence = [
        {"image_id": image_id, "cue_id": cue_id, "score": float(present), "present": present}
        for image_id, present in zip(ids, having, strict=True)
        for cue_id in CUES
    ]
    audit = Audit.from_dict(
        {
            "data": {"path": "."},
            "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
            "ablate": {"images": 8},
        }
    )
    return Planner(
        images, table("detections", detections), table("regions", []), table("assignments", []),
        table("cues", cues), table("presence", presence), table("annotations", annotations), audit, lambda ids: {},
    )  # fmt: skip


@pytest.mark.parametrize("cue_id", ["thing:buoy", "thing:caption bar"])
def test_a_removal_has_several_places_of_equal_area_for_its_placebo(planner: Planner, cue_id: str) -> None:
    pairs, reason = pairs_for(planner, "boat", cue_id, "removal")
    assert not reason and len(pairs) == 8 * len(planner.audit.ablate.fills)
    for pair in pairs:
        edit, placebo = (arm.spec for arm in pair.edits)
        assert {**placebo, "boxes": edit["boxes"], "candidates": 0} == {**edit, "candidates": 0}
        clear = as_boxes(edit["boxes"] + edit["keep"])
        np.testing.assert_allclose(area(as_boxes(placebo["boxes"])).sum(), area(as_boxes(edit["boxes"])).sum())
        assert len(placebo["candidates"]) >= 2
        for places in placebo["candidates"]:
            assert len(places) == len(placebo["boxes"])
            np.testing.assert_allclose(area(as_boxes(places)).sum(), area(as_boxes(edit["boxes"])).sum(), rtol=1e-6)
            assert not intersection(as_boxes(places), clear).any()


def test_an_insertion_and_its_placebo_come_from_one_donor_of_the_selection_half(planner: Planner) -> None:
    pairs, reason = pairs_for(planner, "boat", "thing:buoy", "insertion")
    assert not reason and len(pairs) == 8
    for pair in pairs:
        edit, placebo = (arm.spec for arm in pair.edits)
        assert {key: placebo[key] for key in edit} == edit
        assert edit["donor"] in planner.selection and planner.label[edit["donor"]] == "car"
        others = as_boxes(placebo["candidates"])
        assert not intersection(others, as_boxes([edit["from"], *edit["avoid"]])).any()
        lamp = planner.things(edit["donor"])[1:2]
        assert intersection(others[:1], lamp)[0, 0] == pytest.approx(area(lamp)[0], rel=1e-6)


def test_a_cue_of_the_whole_image_is_put_in_by_its_operator(planner: Planner) -> None:
    pairs, reason = pairs_for(planner, "boat", "scene:tilted", "insertion")
    assert not reason and len(pairs) == 8
    for pair in pairs:
        edit, placebo = (arm.spec for arm in pair.edits)
        assert edit == {"op": "geometry", "name": "rotate", "strength": 20.0}
        assert placebo["like"] == {"name": "rotate", "strength": 20.0} and placebo["name"] == "shift_x"
    assert pairs_for(planner, "boat", "scene:tilted", "removal") == ([], TILT["removal"]["why"])


@pytest.mark.parametrize("direction", ["insertion", "removal"])
def test_a_colour_in_words_is_changed_round_the_object_as_it_may_be_the_objects_own(
    planner: Planner, direction: str
) -> None:
    pairs, reason = pairs_for(planner, "boat", "scene:green color", direction)
    assert not reason and len(pairs) == 8
    for pair in pairs:
        edit, placebo = (arm.spec for arm in pair.edits)
        own = planner.object(pair.edits[0].image_id).tolist()
        assert len(own) == 1 and edit["keep"] == placebo["keep"] == own
        assert edit["name"] == placebo["like"]["name"] == "green tint" != placebo["name"]


def test_both_arms_of_a_new_background_keep_the_object_by_its_pixels(planner: Planner) -> None:
    pairs, reason = pairs_for(planner, "boat", "scene:beach", "removal")
    assert not reason
    for pair in pairs:
        without, with_cue = (arm.spec for arm in pair.edits)
        assert without["keep"] == with_cue["keep"] and without["mask"] == with_cue["mask"] == "grabcut"
        assert not planner.present(without["donor"], "scene:beach")
        assert planner.present(with_cue["donor"], "scene:beach")


def test_the_plan_repeats_and_is_plain_data(planner: Planner) -> None:
    for cue_id in CUES:
        first, again = (pairs_for(planner, "boat", cue_id, "insertion")[0] for _ in range(2))
        assert [pair.pair_id for pair in first] == [pair.pair_id for pair in again]
        for pair in first:
            for edit in pair.edits:
                assert json.loads(json.dumps(edit.spec)) == edit.spec


def test_a_picture_of_another_label_that_shows_the_class_too_is_no_other(planner: Planner) -> None:
    edited = {pair.edits[0].image_id for pair in pairs_for(planner, "car", "scene:tilted", "insertion")[0]}
    assert planner.label[SHARED] == "boat" and planner.shows(SHARED, "car")
    everyone = [i for i in planner.estimation if planner.label[i] == "boat" and not planner.present(i, "scene:tilted")]
    assert len(everyone) == 10 and edited < set(everyone) and SHARED not in edited


def test_no_donor_of_a_background_or_a_patch_shows_the_class_too(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the donors of the other class are of the class too."""
    both = {i for i in planner.selection if planner.label[i] == "car" and int(i[1:]) % 8 < 4}
    monkeypatch.setattr(planner, "_others", {i: frozenset({"boat"}) for i in both})
    for removal in (True, False):
        pairs, reason = pairs_for(planner, "boat", "scene:beach", "removal" if removal else "insertion")
        donors = {arm.spec["donor"] for pair in pairs for arm in pair.edits}
        assert not reason and {planner.label[donor] for donor in donors} == {"car"} and not donors & both
    assert not {patch[0] for patch in donor_patches(planner, "boat", "thing:buoy")} & both


def test_a_patch_of_a_picture_of_both_classes_avoids_both_objects(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = {i: frozenset({"boat", "car"} - {planner.label[i]}) for i in planner.selection}
    monkeypatch.setattr(planner, "_others", everyone)
    monkeypatch.setattr(planner.boxes, "object", lambda i, words: as_boxes([OBJECT if words == "car" else OTHER]))
    patches = donor_patches(planner, "boat", "thing:buoy")
    assert {planner.label[donor] for donor, *_ in patches} == {"boat", "car"}
    assert all(len(avoid) == (1 if planner.label[donor] == "boat" else 2) for donor, _, _, avoid in patches)


def test_no_picture_is_its_own_background(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a split a picture could be drawn as the donor of its own background."""
    monkeypatch.setattr(planner, "selection", planner.estimation)
    for direction in ("removal", "insertion"):
        for pair in pairs_for(planner, "boat", "scene:beach", direction)[0]:
            assert all(arm.spec["donor"] != arm.image_id for arm in pair.edits)
