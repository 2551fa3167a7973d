from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence.edits import apply_edit, box_mask, exchange_background, paste, soften
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


def test_a_patch_is_pasted_where_it_should_be_and_never_over_the_object(pictures) -> None:
    image, donor = pictures
    donor[:] = (255, 0, 0)
    edited = paste(image, donor, [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [[0.75, 0.5, 1, 1]], [])
    middle = edited[30:42, 28:34]
    assert (middle == (255, 0, 0)).mean() > 0.9
    assert (edited[:, 36:] == image[:, 36:]).all()
    assert (edited[:23] == image[:23]).all()


def test_the_donors_own_object_is_left_behind(pictures) -> None:
    image, donor = pictures
    donor[:24, :12] = (0, 255, 0)  # the donor's object, in the left half of what is copied
    edited = paste(image, donor, [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [], [[0, 0, 0.25, 0.5]])
    assert not (edited[:24, :11] == (0, 255, 0)).all(axis=2).any()
    assert (edited[4:20, 15:20] == donor[4:20, 15:20]).all()


def test_a_new_background_keeps_the_object(pictures) -> None:
    image, donor = pictures
    donor[:] = (0, 0, 255)
    edited = exchange_background(image, donor, [[0.25, 0.25, 0.75, 0.75]], [])
    assert (edited[16:32, 16:32] == image[16:32, 16:32]).mean() > 0.99
    assert (edited[:8, :8] == (0, 0, 255)).all()


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
