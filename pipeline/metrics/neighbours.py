"""Nearest-neighbour tests on embeddings: is the order of the images informative, do two samples differ.

Both ask the neighbour graph alone, which is made once; a permutation relabels it. Both permute within blocks (the
classes), so that images sorted by class, or another mix of classes, are not what they find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Whole = NDArray[np.int64]

NEIGHBOURS = 10
"""k, as in cleanlab's non-iid check."""
PERMUTATIONS = 999
GRID = np.linspace(0.02, 1.0, 50)
"""Shares of a sequence's length at which blocks of different lengths are compared."""


_BLOCK = 1_000_000  # index distances held in memory at a time


@dataclass(frozen=True)
class Graph:
    """The k nearest neighbours of each of n vectors, without itself: indices and cosine distances, (n, k)."""

    near: Whole
    distance: Reals


def neighbours(vectors: NDArray[np.float32], k: int = NEIGHBOURS) -> Graph:
    """The exact neighbours of each vector by cosine, nearest first; k is cut to n - 1.

    Args:
        vectors: (n, d), n at least 2; they are brought to unit length here. Cost grows with n squared.
    """
    import faiss

    unit = np.ascontiguousarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
    n = len(unit)
    k = min(k, n - 1)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    similarity, found = index.search(unit, k + 1)
    # among equal vectors a vector needn't be its own first neighbour: it is taken out wherever it stands
    own = found == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True
    keep = ~own
    return Graph(found[keep].reshape(n, k).astype(np.int64), 1.0 - similarity[keep].reshape(n, k).astype(np.float64))


def index_distance_ks(distances: Whole, n: int) -> float:
    """The Kolmogorov-Smirnov distance between index distances of neighbours and those of all pairs, in [0, 1].

    T of Cummings, Snorrason and Mueller 2023 (arXiv 2305.15696, section 2), with the conventions of
    `NonIIDIssueManager._get_statistics` in cleanlab 2.9: all pairs are not sampled, for their distribution is known
    (d places apart are n - d pairs of n (n - 1) / 2), and the neighbours' distribution is taken just below each of
    its points.

    Args:
        distances: |i - j| of every image i and each of its neighbours j, in [1, n - 1], any shape.
        n: images.
    """
    statistic, _ = _ks_and_curve(np.bincount(distances.ravel(), minlength=n)[None, :n])
    return float(statistic[0])


def _ks_and_curve(counts: Whole) -> tuple[Reals, Reals]:
    """The statistic of each row, and by how much more of the neighbours than of all pairs lie within each of GRID.

    Args:
        counts: (draws, n), how many neighbours are 0, 1, ..., n - 1 places apart.
    """
    n = counts.shape[1]
    counts = counts[:, 1:]
    total = counts.sum(1, keepdims=True)
    up_to = np.cumsum(counts, axis=1) / total
    among_pairs = np.cumsum((n - np.arange(1, n)) / (n * (n - 1) / 2))
    first, last = up_to - counts / total, up_to - 1 / total  # of equal distances these are furthest off
    gaps = np.maximum(np.abs(first - among_pairs), np.abs(last - among_pairs))
    curve = (up_to - among_pairs)[:, np.ceil(GRID * (n - 1)).astype(int) - 1]
    return np.where(counts > 0, gaps, 0.0).max(axis=1), curve


class OrderTest(NamedTuple):
    """Whether near images of a sequence are alike, for each block and for all together."""

    statistic: Reals  # (blocks,), Kolmogorov-Smirnov distances
    p: Reals  # (blocks,)
    pooled_statistic: float
    pooled_p: float


def order_test(graphs: Sequence[Graph], rng: np.random.Generator, n_permutations: int = PERMUTATIONS) -> OrderTest:
    """The k-nearest-neighbour test that a sequence is exchangeable (arXiv 2305.15696), block by block and pooled.

    Pooled, the differences of the two distributions are averaged over the blocks (weighted by their images) at equal
    shares of a block's length before their largest is taken: a drift that is weak in each block adds up, noise doesn't.
    p is (1 + hits) / (1 + permutations) (Phipson and Smyth 2010), which holds its level at any number of
    permutations. cleanlab draws 25 and fits a kernel density to them, which can give a p of exactly 0.

    Args:
        graphs: of each block, the neighbours among its own images in their order.
    """
    sizes = np.array([len(graph.near) for graph in graphs], dtype=np.float64)
    statistics = np.empty((1 + n_permutations, len(graphs)))
    curves = np.zeros((1 + n_permutations, len(GRID)))
    for block, graph in enumerate(graphs):
        n, weight = len(graph.near), len(graph.near) / sizes.sum()
        at_once = max(_BLOCK // graph.near.size, 1)
        for start in range(0, 1 + n_permutations, at_once):
            stop = min(start + at_once, 1 + n_permutations)
            places = np.tile(np.arange(n, dtype=np.int32), (stop - start, 1))
            undisturbed = 1 if start == 0 else 0
            places[undisturbed:] = rng.permuted(places[undisturbed:], axis=1)
            apart = np.abs(places[:, :, None] - places[:, graph.near]).reshape(stop - start, -1)
            apart += n * np.arange(stop - start, dtype=np.int32)[:, None]
            counts = np.bincount(apart.ravel(), minlength=n * (stop - start)).reshape(-1, n)
            statistics[start:stop, block], curve = _ks_and_curve(counts)
            curves[start:stop] += weight * curve
    pooled = np.abs(curves).max(axis=1)
    p, pooled_p = ((column >= column[0] - 1e-12).mean(0) for column in (statistics, pooled))
    return OrderTest(statistics[0], p, float(pooled[0]), float(pooled_p))


class SampleTest(NamedTuple):
    """Whether two samples differ, for each block and for all together."""

    same: Reals  # (blocks,): share of the second sample's neighbours that are of the second sample
    expected: Reals  # (blocks,): the same if the samples don't differ
    p: Reals  # (blocks,); NaN where a block has one sample alone
    pooled_same: float
    pooled_expected: float
    pooled_p: float


def two_sample_test(
    graphs: Sequence[Graph],
    second: Sequence[NDArray[np.bool_]],
    rng: np.random.Generator,
    n_permutations: int = PERMUTATIONS,
) -> SampleTest:
    """The generalised edge-count test on the k-nearest-neighbour graph, permuted within blocks.

    Chen and Friedman 2017 (JASA 112, 397-409, section 3): with R1 and R2 the edges within the two samples, the
    statistic is the squared Mahalanobis distance of (R1, R2) from its permutation mean. Counting edges within samples
    is Schilling's (1986) and Henze's (1988) test; taking the two counts apart keeps power where one sample is small
    beside the other or differs in spread alone. Here mean and covariance are those of the drawn permutations and the
    observed one together, so that all are exchangeable under the hypothesis and p = (1 + hits) / (1 + draws) is valid.

    Args:
        graphs: of each block, the neighbours among its own images, both samples together.
        second: (n,) of each block, which images are of the second sample.
    """
    edges = np.stack(
        [_edges(graph, labels, rng, n_permutations) for graph, labels in zip(graphs, second, strict=True)]
    )  # (blocks, 1 + draws, 2)
    sizes = np.array([labels.sum() for labels in second], dtype=np.float64)
    ks = np.array([graph.near.shape[1] for graph in graphs], dtype=np.float64)
    totals = np.array([len(labels) for labels in second], dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        same = edges[:, 0, 1] / (sizes * ks)
        expected = np.where(totals > 1, (sizes - 1) / (totals - 1), np.nan)
        p = np.where((sizes > 0) & (sizes < totals), [_edge_p(block) for block in edges], np.nan)
        pooled_same = float(edges[:, 0, 1].sum() / (sizes * ks).sum())
        pooled_expected = float(np.nansum(expected * sizes * ks) / (sizes * ks).sum())
    return SampleTest(same, expected, p, pooled_same, pooled_expected, _edge_p(edges.sum(0)))


def _edges(graph: Graph, labels: NDArray[np.bool_], rng: np.random.Generator, draws: int) -> Reals:
    """(1 + draws, 2): neighbours within the first and within the second sample, as observed and permuted."""
    counts = np.empty((1 + draws, 2))
    for draw in range(1 + draws):
        near = labels[graph.near]
        counts[draw] = (~near[~labels]).sum(), near[labels].sum()
        labels = rng.permutation(labels)
    return counts


def _edge_p(counts: Reals) -> float:
    centred = counts - counts.mean(0)
    spread = np.linalg.pinv(np.cov(centred.T), hermitian=True)  # singular where one count tells the other
    distance = np.einsum("ij,jk,ik->i", centred, spread, centred)
    return float((distance >= distance[0] * (1 - 1e-9)).mean())
