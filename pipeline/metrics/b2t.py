"""Bias-to-Text (Kim et al., CVPR 2024, arXiv 2301.11104): keywords of wrong images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reals = NDArray[np.float64]


def clip_score(image_embeddings: ArrayLike, keyword_embeddings: ArrayLike, wrong: ArrayLike) -> Reals:
    """CLIP score of each keyword: mean similarity to the wrong images less that to the right ones.

    Args:
        image_embeddings: (n_images, d), images of one class; any length, normalised here.
        keyword_embeddings: (n_keywords, d), any length.
        wrong: (n_images,), truth values.

    Returns:
        (n_keywords,), difference of cosines in [-2, 2]; above 0 the keyword speaks of the errors. NaN where
        no image, or every image, is wrong.
    """
    images, keywords = _unit(image_embeddings), _unit(keyword_embeddings)
    wrong = np.asarray(wrong, bool)
    if wrong.all() or not wrong.any():
        return np.full(len(keywords), np.nan)
    return keywords @ (images[wrong].mean(0) - images[~wrong].mean(0))


def keyword_accuracy(mentions: ArrayLike, correct: ArrayLike) -> Reals:
    """Accuracy on the images of one class whose caption has the keyword (n_keywords,), NaN for none.

    A keyword is B2T's bias where this lies below the class's accuracy and its CLIP score is above 0.

    Args:
        mentions: (n_images, n_keywords), truth values.
        correct: (n_images,), truth values.
    """
    mentions = np.asarray(mentions, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.asarray(correct, float) @ mentions) / mentions.sum(0)


def _unit(vectors: ArrayLike) -> Reals:
    vectors = np.asarray(vectors, float)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)
