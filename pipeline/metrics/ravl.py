"""RaVL's discovery (Varma et al., NeurIPS 2024, arXiv 2411.04097, sec. 3.1), as its code computes it.

Clusters of regions are scored by how much the model's accuracy differs with and without them (performance
gap) and by how often they hold the region that speaks most for a wrong prediction (influence).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

MINIMUM_INFLUENCE = 0.25
"""Clusters below it are pruned, in all the paper's experiments."""


class PerformanceGap(NamedTuple):
    """Weighted gap of each label, in [-1, 1], NaN where a side is empty; and the sum of their sizes."""

    by_label: Reals
    total: Reals


class Memberships(NamedTuple):
    """Images of each label with (in) and without (out) a region in each cluster: (n_clusters, n_labels)."""

    n_in: Reals
    correct_in: Reals
    n_out: Reals
    correct_out: Reals


def performance_gap(n_in: ArrayLike, correct_in: ArrayLike, n_out: ArrayLike, correct_out: ArrayLike) -> PerformanceGap:
    """Cluster performance gap of each label, and in all.

    G_y = w_y (p_in - p_out) with w_y = 2 min(n_in, n_out) / (n_in + n_out); G = sum of |G_y|.

    Args:
        n_in, correct_in: images of a label with a region in the cluster, and how many are predicted right;
            labels on the last axis, clusters on the axes before.
        n_out, correct_out: the same for images of the label without such a region.

    Returns:
        by_label with the shape of the arguments (labels that lack a side are skipped: NaN), total without
        its last axis.
    """
    n_in, correct_in, n_out, correct_out = (np.asarray(x, float) for x in (n_in, correct_in, n_out, correct_out))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = 2 * np.minimum(n_in, n_out) / (n_in + n_out)
        by_label = weight * (correct_in / n_in - correct_out / n_out)
    return PerformanceGap(by_label, np.nansum(np.abs(by_label), axis=-1))


def memberships(
    clusters: ArrayLike,
    region_images: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    n_clusters: int,
    n_labels: int,
    also: ArrayLike | None = None,
) -> Memberships:
    """The four counts that the performance gap needs.

    Args:
        clusters, region_images: (n_regions,), cluster and image index of each region.
        labels, predictions: (n_images,), class indices.
        also: (n_images, n_labels), truth values: of which labels beside its own an image is too. It has a row of its
            own for each of them, and to predict one of them is right.
    """
    sums = tally(clusters, region_images, None, labels, predictions, n_clusters, n_labels, also)
    return sums.memberships(labels, predictions, also)


class Tally(NamedTuple):
    """Sums over images from which gap and influence follow, so that images can be counted part by part.

    `n_in`, `correct_in`: see Memberships. `wrong`, `led`: images of each label that are predicted wrong and touch the
    cluster, and those of them whose top region lies in it. All are (n_clusters, n_labels).
    """

    n_in: Reals
    correct_in: Reals
    wrong: Reals
    led: Reals

    def __add__(self, other: Tally) -> Tally:  # type: ignore[override]
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    def performance_gap(
        self, labels: ArrayLike, predictions: ArrayLike, also: ArrayLike | None = None
    ) -> PerformanceGap:
        """The gap of each cluster; arguments are those of the function `memberships`, over all images."""
        return performance_gap(*self.memberships(labels, predictions, also))

    def memberships(self, labels: ArrayLike, predictions: ArrayLike, also: ArrayLike | None = None) -> Memberships:
        """The four counts; arguments are those of the function `memberships`, over all images."""
        labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
        right, n_labels = _right(labels, predictions, also), self.n_in.shape[1]
        n_all, correct_all = (np.bincount(of, minlength=n_labels) for of in (labels, labels[right]))
        return Memberships(self.n_in, self.correct_in, n_all - self.n_in, correct_all - self.correct_in)

    def influence(self, gaps: ArrayLike) -> Reals:
        """(n_clusters,): see the function `influence`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            counted = (np.asarray(gaps, float) < 0) & (self.wrong > 0)
            share = np.where(counted, self.led / self.wrong, -np.inf)
        return share.max(axis=1, initial=-np.inf)


def tally(
    clusters: ArrayLike,
    region_images: ArrayLike,
    speaks: ArrayLike | None,
    labels: ArrayLike,
    predictions: ArrayLike,
    n_clusters: int,
    n_labels: int,
    also: ArrayLike | None = None,
) -> Tally:
    """The sums of some images, all of whose regions are given.

    Args:
        clusters, region_images: (n_regions,), cluster and image index of each region.
        speaks: (n_regions,), how much each region speaks for its image's predicted label; None: no region leads.
        labels, predictions, also: see `memberships`.
    """
    clusters, region_images = np.asarray(clusters, np.int64), np.asarray(region_images, np.int64)
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    cluster, image = _touching(clusters, region_images)
    right = _right(labels, predictions, also)
    place, size = cluster * n_labels + labels[image], n_clusters * n_labels

    def summed(weights: NDArray) -> Reals:
        sums = np.asarray(np.bincount(place, weights, size), dtype=np.float64)
        return sums.reshape(n_clusters, n_labels)

    n_in, correct_in = summed(np.ones(len(place))), summed(right[image])
    if speaks is None:
        return Tally(n_in, correct_in, np.zeros_like(n_in), np.zeros_like(n_in))
    # best region of each image; of equals the first, as argmax does
    order = np.lexsort((np.arange(len(clusters)), -np.asarray(speaks, float), region_images))
    images, first = np.unique(region_images[order], return_index=True)
    top = np.full(len(labels), -1)
    top[images] = clusters[order[first]]
    several = np.bincount(region_images, minlength=len(labels)) > 1
    wrong = ~right[image] & several[image]
    return Tally(n_in, correct_in, summed(wrong), summed(wrong & (top[image] == cluster)))


def _right(labels: Indices, predictions: Indices, also: ArrayLike | None) -> NDArray[np.bool_]:
    right = labels == predictions
    return right if also is None else right | np.asarray(also, bool)[np.arange(len(labels)), predictions]


def _touching(clusters: ArrayLike, region_images: ArrayLike) -> tuple[Indices, Indices]:
    # each (cluster, image) pair once, however many regions of the image lie in the cluster
    cluster, image = np.asarray(clusters, np.int64), np.asarray(region_images, np.int64)
    most = int(image.max(initial=0)) + 1
    pairs = np.unique(cluster * most + image)
    return pairs // most, pairs % most


def influence(
    clusters: ArrayLike,
    region_images: ArrayLike,
    region_scores: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    gaps: ArrayLike,
    also: ArrayLike | None = None,
) -> Reals:
    """Cluster influence H_c: share of the wrong images touching the cluster whose top region is in it.

    The top region of an image has the highest score for the *predicted* class. Only images of labels that do
    worse with the cluster count (a negative gap), label by label; H_c is the highest share among the labels.
    Images with a single region are skipped, as in the authors' code: their top region is no choice.

    Args:
        clusters, region_images: (n_regions,), cluster and image index of each region.
        region_scores: (n_regions, n_labels), zero-shot scores of each region.
        labels, predictions: (n_images,), class indices.
        gaps: (n_clusters, n_labels), `performance_gap(...).by_label`.
        also: see `memberships`.

    Returns:
        (n_clusters,), in [0, 1]; -inf for a cluster that no such image touches.
    """
    clusters, region_images = np.asarray(clusters, np.int64), np.asarray(region_images, np.int64)
    predicted = np.asarray(predictions, np.int64)[region_images]
    speaks = np.asarray(region_scores, float)[np.arange(len(clusters)), predicted]
    n_clusters, n_labels = np.asarray(gaps).shape
    return tally(clusters, region_images, speaks, labels, predictions, n_clusters, n_labels, also).influence(gaps)


def select(
    gap: PerformanceGap,
    influences: ArrayLike,
    minimum_influence: float = MINIMUM_INFLUENCE,
    sign_filter: bool = True,
) -> Indices:
    """The clusters that survive, by falling total gap; equals stay in order of their index.

    Args:
        minimum_influence: prune below it; -inf keeps all.
        sign_filter: keep only clusters that help one label and hurt another (in the authors' code, not in
            the paper).
    """
    keep = np.asarray(influences, float) >= minimum_influence
    if sign_filter:
        with np.errstate(invalid="ignore"):
            keep &= (gap.by_label > 0).any(axis=-1) & (gap.by_label < 0).any(axis=-1)
    order = np.argsort(-gap.total, kind="stable")
    return order[keep[order]]


def rank_regions(embeddings: ArrayLike, clusters: ArrayLike, cluster: int, medoid: int) -> Indices:
    """Regions of a cluster by falling similarity to its medoid, a region index; unit embeddings (n, d)."""
    embeddings = np.asarray(embeddings, float)
    members = np.flatnonzero(np.asarray(clusters) == cluster)
    return members[np.argsort(-(embeddings[members] @ embeddings[medoid]), kind="stable")]


def correlated_label(counts: Memberships, cluster: int) -> int:
    """The label whose accuracy falls most when the cluster is absent; -1 if none has both sides."""
    with np.errstate(divide="ignore", invalid="ignore"):
        fall = counts.correct_in[cluster] / counts.n_in[cluster] - counts.correct_out[cluster] / counts.n_out[cluster]
    return -1 if np.isnan(fall).all() else int(np.nanargmax(fall))


def cluster_counts(n_labels: int) -> range:
    """The numbers of clusters that RaVL tries: 2|Y| to 5|Y| - 1."""
    return range(2 * n_labels, 5 * n_labels)


def silhouette(embeddings: ArrayLike, clusters: ArrayLike, block_size: int = 16_000_000) -> float:
    """Mean silhouette (Rousseeuw 1987) at cosine distance clipped to [0, 1].

    RaVL chooses its number of clusters by it. Opposite directions are as far as perpendicular ones. Rows are
    taken in blocks, so no n x n matrix is held.

    Args:
        embeddings: (n, d), unit length.
        clusters: (n,), cluster of each row; a cluster of one scores 0, and fewer than two clusters give NaN.
        block_size: distances held in memory at a time; doesn't change the result.
    """
    embeddings = np.asarray(embeddings)
    _, member, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    n, k = len(member), len(sizes)
    if k < 2:
        return float("nan")
    one_hot = np.zeros((n, k), dtype=embeddings.dtype)
    one_hot[np.arange(n), member] = 1
    total = 0.0
    step = max(1, block_size // n)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        distance = np.clip(1.0 - embeddings[rows] @ embeddings.T, 0.0, 1.0)
        distance[np.arange(len(rows)), rows] = 0.0
        sums = (distance @ one_hot).astype(np.float64)
        own, place = member[rows], np.arange(len(rows))
        with np.errstate(divide="ignore", invalid="ignore"):
            within = sums[place, own] / (sizes[own] - 1)
            means = sums / sizes
            means[place, own] = np.inf
            nearest = means.min(axis=1)
            width = (nearest - within) / np.maximum(nearest, within)
        total += float(np.where(sizes[own] > 1, np.nan_to_num(width), 0.0).sum())
    return total / n


def best_clustering(embeddings: ArrayLike, clusterings: Iterable[ArrayLike]) -> int:
    """Index of the clustering with the highest silhouette, the first of equals: RaVL's rule."""
    scores = [silhouette(embeddings, clusters) for clusters in clusterings]
    return int(np.nanargmax(scores))
