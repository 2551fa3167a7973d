"""Fills: what is outside the mask stays, what was under it leaves no trace, any shape of picture and mask
works."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.models import fills

FILLS = [fills.mean, fills.blur, fills.inpaint, fills.patch]
each_fill = pytest.mark.parametrize("fill", FILLS, ids=lambda f: f.__name__)


@st.composite
def picture_and_mask(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    longest = draw(st.sampled_from([3, 24, 24, 300]))  # 300: beyond the working size
    height, width = draw(st.integers(1, 24 if longest < 100 else 2)), draw(st.integers(1, longest))
    image = np.random.default_rng(draw(st.integers(0, 999))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, draw(arrays(bool, (height, width)))


@each_fill
@settings(max_examples=40, deadline=None)
@given(case=picture_and_mask(), seed=st.integers(0, 9))
def test_only_the_mask_changes_and_what_was_under_it_has_no_say(fill: Callable, case: tuple, seed: int) -> None:
    image, mask = case
    before = image.copy()
    filled = fill(image, mask, np.random.default_rng(seed))
    assert filled.shape == image.shape and filled.dtype == np.uint8
    assert np.array_equal(image, before), "the picture given must not change"
    assert np.array_equal(filled[~mask], image[~mask])
    hidden = image.copy()
    hidden[mask] = 255 - hidden[mask]
    assert np.array_equal(filled, fill(hidden, mask, np.random.default_rng(seed)))


@each_fill
def test_an_empty_mask_changes_nothing_and_a_full_one_gives_grey(fill: Callable) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    assert np.array_equal(fill(image, np.zeros((30, 40), bool), rng), image)
    assert (fill(image, np.ones((30, 40), bool), rng) == fills.GREY).all()


@each_fill
def test_a_hole_in_a_plain_picture_takes_its_colour(fill: Callable) -> None:
    image = np.full((300, 400, 3), (200, 100, 50), dtype=np.uint8)
    mask = np.zeros((300, 400), bool)
    mask[60:250, 100:330] = True
    mask[10:20, 10:20] = True
    image[mask] = (0, 0, 255)
    filled = fill(image, mask, np.random.default_rng(0)).astype(int)
    assert np.abs(filled - [200, 100, 50]).max() <= 10  # Telea's sums drift by some levels over a large hole


def test_each_part_of_a_mask_takes_the_colour_round_it() -> None:
    image = np.zeros((60, 120, 3), dtype=np.uint8)
    image[:, :60], image[:, 60:] = (250, 0, 0), (0, 0, 250)
    mask = np.zeros((60, 120), bool)
    mask[20:40, 20:40] = mask[20:40, 80:100] = True
    filled = fills.mean(image, mask, np.random.default_rng(0))
    assert filled[30, 30].tolist() == [250, 0, 0] and filled[30, 90].tolist() == [0, 0, 250]


def test_inpainting_leads_an_edge_across_the_hole() -> None:
    image = np.zeros((80, 80, 3), dtype=np.uint8)
    image[:40] = 255
    mask = np.zeros((80, 80), bool)
    mask[34:46, 34:46] = True
    filled = fills.inpaint(image, mask, np.random.default_rng(0))
    assert filled[35, 40].mean() > 180 and filled[44, 40].mean() < 75


def test_a_patch_brings_the_texture_of_the_picture() -> None:
    stripes = np.where((np.arange(96) // 4 % 2)[:, None, None] == 0, 220, 30) * np.ones((96, 96, 3))
    image = stripes.astype(np.uint8)
    mask = np.zeros((96, 96), bool)
    mask[40:60, 40:60] = True
    image[mask] = 128
    wanted = stripes[40:60, 40:60]
    errors = {
        fill.__name__: np.abs(fill(image, mask, np.random.default_rng(0))[40:60, 40:60] - wanted).mean()
        for fill in (fills.patch, fills.blur)
    }
    assert errors["patch"] < 0.4 * errors["blur"]


@each_fill
def test_a_wrong_mask_is_refused(fill: Callable) -> None:
    with pytest.raises(ValueError, match="fill takes"):
        fill(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), bool), np.random.default_rng(0))
