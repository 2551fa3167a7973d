from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence.edits import apply_edit, filled, soften
from pipeline.evidence.masks import box_mask, foreground, grown
from pipeline.evidence.places import arrangements, grow
from pipeline.planted.render import render
from pipeline.planted.scene import sample_scene
from pipeline.properties import rms
from tests.conftest import noisy_picture


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return noisy_picture(rng), noisy_picture(rng)


@pytest.mark.parametrize("fill", ["mean", "blur", "inpaint", "patch"])
def test_a_fill_changes_its_boxes_and_nothing_else(pictures, fill: str) -> None:
    image, _ = pictures
    spec = {
        "op": "fill",
        "fill": fill,
        "boxes": [[0.25, 0.25, 0.75, 0.75]],
        "keep": [[0.5, 0.5, 1, 1]],
        "seed": 3,
    }
    edited = apply_edit(spec, image)
    mask = box_mask(image.shape, spec["boxes"]) & ~box_mask(image.shape, spec["keep"])
    assert edited.shape == image.shape and edited.dtype == np.uint8
    assert (edited[~mask] == image[~mask]).all()
    assert (edited[mask] != image[mask]).any()
    assert (apply_edit(spec, image) == edited).all()


PASTE = {"op": "paste", "donor": "d", "keep": [], "avoid": []}


def test_a_patch_is_pasted_where_it_should_be_and_never_over_the_object(pictures) -> None:
    image, donor = pictures
    donor[:] = (255, 0, 0)
    spec = {**PASTE, "from": [0, 0, 0.5, 0.5], "to": [0.5, 0.5, 1, 1], "keep": [[0.75, 0.5, 1, 1]]}
    edited = apply_edit(spec, image, donor)
    middle = edited[30:42, 28:34]
    assert (middle == (255, 0, 0)).mean() > 0.9
    assert (edited[:, 36:] == image[:, 36:]).all()
    assert (edited[:23] == image[:23]).all()


def test_the_donors_own_object_is_left_behind(pictures) -> None:
    image, donor = pictures
    donor[:24, :12] = (0, 255, 0)  # the donor's object, in the left half of what is copied
    spec = {**PASTE, "from": [0, 0, 0.5, 0.5], "to": [0, 0, 0.5, 0.5], "avoid": [[0, 0, 0.25, 0.5]]}
    edited = apply_edit(spec, image, donor)
    assert not (edited[:24, :11] == (0, 255, 0)).all(axis=2).any()
    assert (edited[4:20, 15:20] == donor[4:20, 15:20]).all()


def disc(ground: tuple[int, int, int], color: tuple[int, int, int], x: int, y: int) -> tuple[np.ndarray, list]:
    """A picture of 96 pixels with a disc of radius 14 on a slightly uneven ground, and the disc's box."""
    image = np.full((96, 96, 3), ground, dtype=np.uint8)
    image += np.random.default_rng(x).integers(0, 10, image.shape).astype(np.uint8)
    rows, columns = np.mgrid[:96, :96]
    image[(columns - x) ** 2 + (rows - y) ** 2 <= 14**2] = color
    return image, [(x - 14) / 96, (y - 14) / 96, (x + 15) / 96, (y + 15) / 96]


def test_a_cue_is_pasted_without_the_ground_it_stood_on() -> None:
    image, _ = disc((30, 30, 30), (200, 200, 30), 20, 20)
    donor, box = disc((40, 160, 60), (230, 30, 30), 60, 60)
    by_pixels = apply_edit({**PASTE, "from": box, "to": box, "mask": "grabcut"}, image, donor)
    by_box = apply_edit({**PASTE, "from": box, "to": box}, image, donor)

    def green(picture: np.ndarray) -> int:
        return int((picture[..., 1].astype(int) - picture[..., 0] > 60).sum())

    assert green(by_box) > 60 > 10 > green(by_pixels)
    assert (by_pixels[60, 60] == (230, 30, 30)).all()


def test_the_placebo_of_a_paste_has_the_cues_form_and_the_more_like_contrast() -> None:
    image = np.full((96, 96, 3), 100, dtype=np.uint8)
    donor, box = disc((120, 120, 120), (230, 30, 30), 70, 70)
    donor[np.hypot(*np.mgrid[-70:26, -70:26]) <= 14] = (0, 0, 0)
    donor[60:81:2, 60:81] = 255  # the cue is striped
    donor[10:39:2, 10:39] = 255  # and so is one of the places, while the other is plain
    striped, plain = [10 / 96, 10 / 96, 39 / 96, 39 / 96], [50 / 96, 5 / 96, 79 / 96, 34 / 96]
    spec = {**PASTE, "from": box, "to": box, "mask": "grabcut"}
    edit = apply_edit(spec, image, donor)
    placebo = apply_edit({**spec, "candidates": [plain, striped]}, image, donor)
    assert placebo.astype(int).std() > 20  # the striped place was taken
    changed = [(picture != image).any(axis=2) for picture in (edit, placebo)]
    y, x = np.nonzero(changed[0] | changed[1])
    assert np.hypot(y - 70, x - 70).max() < 18  # a disc, not the corners of its box
    assert (apply_edit({**spec, "candidates": [striped, plain]}, image, donor) == placebo).all()


def test_a_paste_changes_no_pixel_of_the_object() -> None:
    rng = np.random.default_rng(4)
    for _ in range(12):
        picture, donor = (render(sample_scene(rng, n_objects=(2, 2))) for _ in range(2))
        keep = picture.boxes[:1].tolist()
        spec = {**PASTE, "from": donor.boxes[1].tolist(), "to": [0.2, 0.2, 0.8, 0.8], "keep": keep, "mask": "grabcut"}
        edited = apply_edit(spec, picture.image, donor.image)
        kept = grown(foreground(picture.image, keep))
        assert (edited[kept] == picture.image[kept]).all()
        assert (edited != picture.image).any()


def test_a_removal_and_its_placebo_change_as_many_pixels_and_keep_the_object() -> None:
    rng = np.random.default_rng(2)
    tested = 0
    for _ in range(40):
        picture = render(sample_scene(rng, n_objects=(2, 3)))
        if min(picture.visible) < 0.7:
            continue
        keep, cue = picture.boxes[:1], grow(picture.boxes[1:])
        pieces, ways = arrangements(cue, keep, rng)
        if not ways:
            continue
        tested += 1
        spec = {"op": "fill", "boxes": cue.tolist(), "keep": keep.tolist(), "mask": "grabcut"}
        placebo = {**spec, "boxes": pieces.tolist(), "candidates": [places.tolist() for places in ways]}
        kept = grown(foreground(picture.image, keep))
        edited, other = filled(picture.image, spec, kept), filled(picture.image, placebo, kept)
        assert other.sum() == pytest.approx(edited.sum(), rel=0.08)
        assert not (other & (kept | box_mask(kept.shape, cue) | box_mask(kept.shape, keep))).any()
        assert not (edited & kept).any()
    assert tested > 15


def test_a_placebo_touches_nothing_even_where_a_pixel_is_larger_than_the_gap() -> None:
    image = np.zeros((10, 10, 3), dtype=np.uint8)
    cue, obj = [0.0, 0.0, 0.24, 0.24], [0.52, 0.5, 1.0, 1.0]
    nothing = box_mask(image.shape, [obj])
    spec = {
        "op": "fill",
        "boxes": [cue],
        "keep": [obj],
        "candidates": [[[0.26, 0.0, 0.5, 0.24]], [[0.27, 0.4, 0.51, 0.64]]],
    }
    for place in spec["candidates"]:
        mask = filled(image, {**spec, "candidates": [place]}, nothing)
        assert mask.any() and not (mask & (nothing | box_mask(image.shape, [cue]))).any()


def test_what_lies_in_the_objects_box_but_not_on_the_object_can_be_removed() -> None:
    image, box = disc((40, 160, 60), (230, 30, 30), 48, 48)
    cue = [box[0] - 0.15, box[1] - 0.15, box[0] + 0.04, box[1] + 0.04]  # at the corner that the disc leaves free
    spec = {"op": "fill", "fill": "mean", "boxes": [cue], "keep": [box], "seed": 0, "mask": "grabcut"}
    corner = (slice(34, 37), slice(34, 37))
    image[24:37, 24:37] = (250, 250, 250)  # the cue reaches into the box
    assert (apply_edit(spec, image)[corner] != 250).any(axis=2).all()
    assert (apply_edit({key: spec[key] for key in spec if key != "mask"}, image)[corner] == 250).all()


def test_a_removals_placebo_takes_the_place_of_the_nearer_contrast() -> None:
    rng = np.random.default_rng(0)
    image = np.full((96, 96, 3), 100, dtype=np.uint8)
    image[10:34, 10:34] = rng.integers(0, 255, (24, 24, 1))  # the cue
    image[60:84, 10:34] = rng.integers(0, 255, (24, 24, 1))  # as busy
    image[60:84, 60:84] = rng.integers(90, 110, (24, 24, 1))  # less so
    cue, busy, quiet = ([x / 96, y / 96, (x + 24) / 96, (y + 24) / 96] for x, y in ((10, 10), (10, 60), (60, 60)))
    spec = {"op": "fill", "boxes": [cue], "keep": []}
    nothing = np.zeros((96, 96), dtype=bool)
    for candidates in ([[quiet], [busy]], [[busy], [quiet]]):
        mask = filled(image, {**spec, "candidates": candidates}, nothing)
        assert (mask == box_mask(image.shape, [busy])).all()


def test_a_new_background_keeps_the_object(pictures) -> None:
    image, donor = pictures
    donor[:] = (0, 0, 255)
    spec = {"op": "background", "donor": "d", "keep": [[0.25, 0.25, 0.75, 0.75]], "avoid": []}
    edited = apply_edit(spec, image, donor)
    assert (edited[16:32, 16:32] == image[16:32, 16:32]).mean() > 0.99
    assert (edited[:8, :8] == (0, 0, 255)).all()


def test_a_new_background_comes_up_to_the_objects_outline() -> None:
    image, box = disc((40, 160, 60), (230, 30, 30), 48, 48)
    donor = np.full((96, 96, 3), (20, 20, 200), dtype=np.uint8)
    edited = apply_edit({"op": "background", "donor": "d", "keep": [box], "avoid": [], "mask": "grabcut"}, image, donor)
    assert (edited[34:36, 34:36] == (20, 20, 200)).all()  # a corner of the box
    assert (edited[40:57, 40:57] == image[40:57, 40:57]).all()


def test_an_operator_on_the_whole_picture_and_its_placebo_change_it_equally(pictures) -> None:
    image, _ = pictures
    like = {"name": "rotate", "strength": 10.0}
    edit = apply_edit({"op": "geometry", **like}, image)
    placebo = apply_edit({"op": "geometry", "name": "shift_x", "strength": 0.5, "like": like}, image)
    sizes = [rms(picture.astype(np.float32) - image.astype(np.float32)) for picture in (edit, placebo)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.15) and (edit != placebo).any()


@pytest.mark.parametrize(
    "spec",
    [
        {"op": "geometry", "name": "blue tint", "strength": 0.3},
        {"op": "property", "name": "vivid colors", "amount": -0.1, "placebo": False, "seed": 1},
    ],
    ids=lambda spec: spec["op"],
)
def test_a_change_of_the_whole_picture_leaves_what_is_kept_as_it_is(spec: dict) -> None:
    image, box = disc((40, 160, 60), (230, 30, 30), 48, 48)
    whole, round_it = apply_edit(spec, image), apply_edit({**spec, "keep": [box], "mask": "grabcut"}, image)
    assert (round_it[40:57, 40:57] == image[40:57, 40:57]).all()
    assert (round_it[:20] == whole[:20]).all() and (whole[:20] != image[:20]).any(axis=-1).all()
    assert (whole[40:57, 40:57] != image[40:57, 40:57]).any(axis=-1).all()


def test_a_property_and_its_placebo_change_different_things(pictures) -> None:
    from pipeline.properties import measure, property_score

    image, _ = pictures
    spec = {"op": "property", "name": "blue tint", "amount": 0.2, "placebo": False, "seed": 1}
    blue, other = apply_edit(spec, image), apply_edit({**spec, "placebo": True}, image)

    def score(picture: np.ndarray) -> float:
        return float(property_score("blue tint", measure(picture)))

    assert score(blue) - score(image) == pytest.approx(0.2, abs=0.05)
    assert abs(score(other) - score(image)) < 0.1
    assert (other != image).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(3, 40))
def test_a_soft_mask_stays_inside_the_mask(seed: int, height: int, width: int) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < 0.7).astype(np.float32)
    soft = soften(mask)
    assert ((soft >= 0) & (soft <= mask)).all()
