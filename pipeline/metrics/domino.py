"""Error-aware mixture slices in the manner of Domino (Eyuboglu et al., ICLR 2022, arXiv 2203.14960).

A mixture over (embedding, label, prediction): each slice has a Gaussian of diagonal covariance over
embeddings and a categorical over labels and over predictions, so that a slice is alike in looks and in kind
of error. The slices whose predictions differ most from their labels are returned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

Reals = NDArray[np.float64]

_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Slices:
    """The slices with the largest error, in falling order."""

    membership: Reals  # (n_images, n_slices), share of the image among all components
    error: Reals  # (n_slices,), |max over classes of (prediction share - label share)|, in [0, 1]
    label_shares: Reals  # (n_slices, n_classes); zeros for a component that lost all its images
    prediction_shares: Reals  # (n_slices, n_classes)
    n_iterations: int
    converged: bool


def find_slices(
    embeddings: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    rng: np.random.Generator,
    n_slices: int = 5,
    n_components: int = 25,
    n_dimensions: int | None = 128,
    label_weight: float = 1.0,
    prediction_weight: float = 1.0,
    confusion_noise: float = 1e-3,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    variance_floor: float = 1e-6,
) -> Slices:
    """Fit the mixture by expectation maximisation and return its worst slices; the authors' defaults.

    Components start from the cells of the confusion matrix, as there. The authors' code refuses fewer
    components than cells; here the cells with the most images are then taken.

    Args:
        embeddings: (n_images, d).
        labels: (n_images,), class indices.
        probabilities: (n_images, n_classes), the model's probabilities, or one-hot predictions.
        n_dimensions: principal components kept; None keeps the embeddings as they are.
        label_weight, prediction_weight: gamma of the label's and the prediction's log-likelihood.

    Raises:
        ValueError: no image, or shapes that don't fit.
    """
    x, y_hat = np.asarray(embeddings, float), np.asarray(probabilities, float)
    index = np.asarray(labels, np.int64)
    if x.ndim != 2 or y_hat.ndim != 2 or not len(x) == len(y_hat) == len(index) > 0:
        raise ValueError(f"embeddings {x.shape}, labels {index.shape} and probabilities {y_hat.shape} don't fit")
    y = np.eye(y_hat.shape[1])[index]
    if n_dimensions is not None:
        x = _principal(x, n_dimensions)
    n_components = min(n_components, len(x))
    squares = x**2
    responsibility = _start(y, y_hat, n_components, confusion_noise, rng)

    bound, converged, iterations = -np.inf, False, 0
    parameters = _maximise(x, squares, y, y_hat, responsibility, variance_floor)
    for _ in range(max_iterations):
        iterations += 1
        log_joint = _log_joint(x, squares, y, y_hat, parameters, label_weight, prediction_weight)
        evidence = logsumexp(log_joint, axis=1)
        parameters = _maximise(x, squares, y, y_hat, np.exp(log_joint - evidence[:, None]), variance_floor)
        previous, bound = bound, float(evidence.mean())
        if abs(bound - previous) < tolerance:
            converged = True
            break

    log_joint = _log_joint(x, squares, y, y_hat, parameters, label_weight, prediction_weight)
    membership = np.exp(log_joint - logsumexp(log_joint, axis=1)[:, None])
    error = np.abs((parameters.y_hat - parameters.y).max(axis=1))
    worst = np.argsort(-error, kind="stable")[:n_slices]
    return Slices(
        membership[:, worst],
        error[worst],
        parameters.y[worst],
        parameters.y_hat[worst],
        iterations,
        converged,
    )


@dataclass(frozen=True)
class _Parameters:
    weight: Reals  # (k,)
    mean: Reals  # (k, d)
    variance: Reals  # (k, d)
    y: Reals  # (k, n_classes)
    y_hat: Reals  # (k, n_classes)


def _principal(x: Reals, n_dimensions: int) -> Reals:
    centred = x - x.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:n_dimensions].T


def _start(y: Reals, y_hat: Reals, k: int, noise: float, rng: np.random.Generator) -> Reals:
    n_classes = y.shape[1]
    cells = np.arange(n_classes**2)
    if k < len(cells):
        occupied, size = np.unique(y.argmax(1) * n_classes + y_hat.argmax(1), return_counts=True)
        cells = occupied[np.argsort(-size, kind="stable")][:k]
    confusion = y[:, cells // n_classes] * y_hat[:, cells % n_classes]
    responsibility = np.tile(confusion, (1, -(-k // len(cells))))[:, :k]
    responsibility = responsibility / np.maximum(responsibility.sum(1, keepdims=True), _EPS)
    # images of no kept cell start anywhere; the others are told apart by the noise alone
    responsibility = responsibility + max(noise, _EPS) * rng.random(responsibility.shape)
    return responsibility / responsibility.sum(1, keepdims=True)


def _maximise(
    x: Reals, squares: Reals, y: Reals, y_hat: Reals, responsibility: Reals, variance_floor: float
) -> _Parameters:
    size = responsibility.sum(0) + 10 * _EPS
    share = responsibility.T / size[:, None]
    mean = share @ x
    variance = np.maximum(share @ squares - mean**2, 0.0) + variance_floor
    return _Parameters(size / len(x), mean, variance, share @ y, share @ y_hat)


def _log_joint(
    x: Reals,
    squares: Reals,
    y: Reals,
    y_hat: Reals,
    parameters: _Parameters,
    label_weight: float,
    prediction_weight: float,
) -> Reals:
    precision = 1.0 / parameters.variance
    mahalanobis = squares @ precision.T - 2 * x @ (parameters.mean * precision).T
    mahalanobis += (parameters.mean**2 * precision).sum(1)
    gaussian = -0.5 * (x.shape[1] * np.log(2 * np.pi) + np.log(parameters.variance).sum(1) + mahalanobis)
    label = np.log(y @ parameters.y.T + _EPS)
    prediction = np.log(y_hat @ parameters.y_hat.T + _EPS)
    return np.log(parameters.weight) + gaussian + label_weight * label + prediction_weight * prediction
