"""Bias-to-Text (arXiv 2301.11104): CLIP scores of keywords and the accuracy of images that mention them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.metrics.b2t import clip_score, keyword_accuracy

VECTORS = arrays(np.float64, (6, 3), elements=st.floats(-1, 1).map(lambda v: round(v, 3)))


def test_clip_score_is_mean_similarity_to_wrong_less_to_right_images() -> None:
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])  # lengths don't count
    wrong = np.array([True, False, False])
    scores = clip_score(images, np.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), wrong)
    np.testing.assert_allclose(scores, [1.0, -1.0, 0.0], atol=1e-12)


@given(VECTORS, st.permutations(range(6)))
def test_order_and_duplication_of_images_change_nothing(images: np.ndarray, order: list[int]) -> None:
    wrong, words = np.arange(6) < 2, np.eye(3)
    expected = clip_score(images, words, wrong)
    np.testing.assert_allclose(clip_score(images[order], words, wrong[order]), expected, atol=1e-12)
    np.testing.assert_allclose(clip_score(np.tile(images, (2, 1)), words, np.tile(wrong, 2)), expected, atol=1e-12)


@given(VECTORS)
def test_swapping_wrong_and_right_turns_the_sign(images: np.ndarray) -> None:
    wrong = np.arange(6) < 3
    np.testing.assert_allclose(clip_score(images, np.eye(3), wrong), -clip_score(images, np.eye(3), ~wrong), atol=1e-12)


@pytest.mark.parametrize("wrong", [np.zeros(3, bool), np.ones(3, bool)])
def test_without_both_sides_there_is_no_score(wrong: np.ndarray) -> None:
    assert np.isnan(clip_score(np.eye(3), np.eye(3), wrong)).all()


def test_keyword_accuracy_is_over_the_images_that_mention_it() -> None:
    mentions = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    accuracy = keyword_accuracy(mentions, np.array([True, False, False]))
    np.testing.assert_allclose(accuracy[:2], [0.5, 0.0])
    assert np.isnan(accuracy[2])
