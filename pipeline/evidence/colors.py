"""The colours of pictures with a cue against those without: the map of colours that makes one like the other.

A camera's cast, a night or a sepia print is no gain on the channels: it mixes them. Of all linear maps that take one
set's mean and covariance of RGB to another's, Monge's and Kantorovich's moves the pixels least (Pitie and Kokaram 2007,
"The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.images import RGB
from pipeline.properties import working_copy

Reals = NDArray[np.float64]

SIZE = 48
"""Pixels of the longer side of the copies that colours are counted on."""
RIDGE = 1e-4
"""Added to the variances: a set of one colour has none."""


def color_statistics(images: Sequence[RGB]) -> tuple[Reals, Reals]:
    """Mean (3,) and covariance (3, 3) of sRGB in [0, 1] over all pixels of the pictures, each weighing the same."""
    layers = [working_copy(image, SIZE).reshape(-1, 3).astype(np.float64) for image in images]
    mean = np.mean([layer.mean(axis=0) for layer in layers], axis=0)
    second = np.mean([layer.T @ layer / len(layer) for layer in layers], axis=0)
    return mean, second - np.outer(mean, mean)


def color_map(source: tuple[Reals, Reals], target: tuple[Reals, Reals]) -> list[list[float]]:
    """Rows (3, 4) of the affine map from one set's colours to another's: the last column is added."""
    (mean, covariance), (to_mean, to_covariance) = source, target
    root = _power(covariance + RIDGE * np.eye(3), 0.5)
    inverse = np.linalg.inv(root)
    matrix = inverse @ _power(root @ (to_covariance + RIDGE * np.eye(3)) @ root, 0.5) @ inverse
    return np.round(np.column_stack([matrix, to_mean - matrix @ mean]), 6).tolist()


def _power(matrix: Reals, exponent: float) -> Reals:
    """A power of a symmetric matrix with no negative eigenvalue."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, 0.0) ** exponent) @ vectors.T
