"""RaVL's gap and influence against the authors' printed demo and a loop written from the paper."""

from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import ravl

# demo_mnist.ipynb of the authors' repository, top cluster: (right with the feature, n with, right without, n
# without)
DEMO = {
    "nine": (54, 54, 2, 49),
    "one": (0, 56, 65, 65),
    "three": (37, 37, 59, 59),
    "two": (25, 36, 62, 62),
    "seven": (40, 58, 49, 50),
    "zero": (51, 52, 41, 41),
    "eight": (1, 43, 53, 55),
    "five": (26, 38, 42, 42),
    "six": (43, 55, 50, 50),
    "four": (29, 45, 53, 53),
}
PRINTED = {
    "nine": (1.0, 0.041), "one": (0, 1), "three": (1, 1), "two": (0.694, 1), "seven": (0.69, 0.98),
    "zero": (0.981, 1), "eight": (0.023, 0.964), "five": (0.684, 1), "six": (0.782, 1), "four": (0.644, 1),
}  # fmt: skip
# G_y = 2 min(n_in, n_out) / (n_in + n_out) * (p_in - p_out), each worked out by hand
BY_HAND = {
    "nine": F(98, 103) * (1 - F(2, 49)),
    "one": F(112, 121) * (0 - 1),
    "three": F(0),
    "two": F(72, 98) * (F(25, 36) - 1),
    "seven": F(100, 108) * (F(40, 58) - F(49, 50)),
    "zero": F(82, 93) * (F(51, 52) - 1),
    "eight": F(86, 98) * (F(1, 43) - F(53, 55)),
    "five": F(76, 80) * (F(26, 38) - 1),
    "six": F(100, 105) * (F(43, 55) - 1),
    "four": F(90, 98) * (F(29, 45) - 1),
}


def demo_counts():
    correct_in, n_in, correct_out, n_out = np.array(list(DEMO.values()), float).T
    return ravl.Memberships(n_in[None], correct_in[None], n_out[None], correct_out[None])


def test_demo_counts_are_those_printed():
    for name, (right_in, n_in, right_out, n_out) in DEMO.items():
        assert (right_in / n_in, right_out / n_out) == pytest.approx(PRINTED[name], abs=5.1e-4)


def test_performance_gap_of_the_demo():
    counts = demo_counts()
    gap = ravl.performance_gap(counts.n_in, counts.correct_in, counts.n_out, counts.correct_out)
    np.testing.assert_allclose(gap.by_label[0], [float(g) for g in BY_HAND.values()])
    assert gap.total[0] == pytest.approx(4.00808, abs=1e-5)
    assert list(DEMO)[ravl.correlated_label(counts, 0)] == "nine"


def test_labels_without_a_side_are_skipped():
    gap = ravl.performance_gap([5, 0, 5], [5, 0, 0], [0, 5, 5], [0, 5, 5])
    assert np.isnan(gap.by_label).tolist() == [True, True, False]
    assert gap.total == 1.0


def world(seed, n_images=30, n_labels=3, n_clusters=4):
    rng = np.random.default_rng(seed)
    region_images = np.repeat(np.arange(n_images), rng.integers(1, 4, n_images))
    clusters = rng.integers(0, n_clusters, len(region_images))
    scores = rng.integers(0, 4, (len(region_images), n_labels)) / 4  # ties are common
    labels, predictions = rng.integers(0, n_labels, (2, n_images))
    return clusters, region_images, scores, labels, predictions, n_clusters, n_labels


def by_the_paper(clusters, region_images, scores, labels, predictions, n_clusters, n_labels):
    """Section 3.1, one image at a time."""
    gaps, influences = np.full((n_clusters, n_labels), np.nan), np.full(n_clusters, -np.inf)
    for c in range(n_clusters):
        touches = np.isin(np.arange(len(labels)), region_images[clusters == c])
        for y in range(n_labels):
            inside, outside = touches & (labels == y), ~touches & (labels == y)
            if inside.any() and outside.any():
                gap = np.mean(predictions[inside] == y) - np.mean(predictions[outside] == y)
                gaps[c, y] = 2 * min(inside.sum(), outside.sum()) / np.sum(labels == y) * gap
        shares = []
        for y in range(n_labels):
            if not gaps[c, y] < 0:
                continue
            led = []
            for i in np.flatnonzero(touches & (labels == y) & (predictions != y)):
                regions = np.flatnonzero(region_images == i)
                if len(regions) > 1:
                    led.append(clusters[regions[np.argmax(scores[regions, predictions[i]])]] == c)
            if led:
                shares.append(np.mean(led))
        if shares:
            influences[c] = max(shares)
    return gaps, influences


@given(st.integers(0, 10_000))
@settings(max_examples=60)
def test_gap_and_influence_follow_the_paper(seed):
    args = world(seed)
    clusters, region_images, scores, labels, predictions, n_clusters, n_labels = args
    counts = ravl.memberships(clusters, region_images, labels, predictions, n_clusters, n_labels)
    gap = ravl.performance_gap(counts.n_in, counts.correct_in, counts.n_out, counts.correct_out)
    gaps, influences = by_the_paper(*args)
    np.testing.assert_allclose(gap.by_label, gaps, atol=1e-12)
    found = ravl.influence(clusters, region_images, scores, labels, predictions, gap.by_label)
    np.testing.assert_allclose(found, influences)


def test_images_of_one_region_have_no_influence():
    gaps = np.array([[-0.5]])
    assert ravl.influence([0], [0], [[0.1, 0.9]], [0], [1], np.array([[-0.5, 0.0]])) == [-np.inf]
    assert ravl.influence([0, 0], [0, 0], [[0.9], [0.1]], [0], [0], gaps) == [-np.inf]  # right, so not counted


def test_imbalance_alone_gives_no_gap():
    # 900 and 100 images, cluster and errors independent: the weighted gaps stay small
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [900, 100])
    predictions = np.where(rng.random(1000) < 0.8, labels, 1 - labels)
    counts = ravl.memberships(rng.integers(0, 2, 1000), np.arange(1000), labels, predictions, 2, 2)
    gap = ravl.performance_gap(counts.n_in, counts.correct_in, counts.n_out, counts.correct_out)
    assert np.abs(gap.by_label).max() < 0.2


def test_select_prunes_and_orders_as_the_authors_do():
    by_label = np.array([[0.4, -0.1], [0.9, np.nan], [0.3, -0.6], [0.1, -0.2]])
    gap = ravl.PerformanceGap(by_label, np.nansum(np.abs(by_label), axis=1))
    influences = np.array([0.25, 1.0, 0.9, 0.24])
    assert ravl.select(gap, influences).tolist() == [2, 0]
    assert ravl.select(gap, influences, sign_filter=False).tolist() == [1, 2, 0]
    assert ravl.select(gap, influences, minimum_influence=-np.inf).tolist() == [2, 0, 3]
    assert ravl.select(gap, np.full(4, -np.inf)).tolist() == []


def test_rank_regions_by_similarity_to_the_medoid():
    angles = np.radians([0, 80, 10, 30])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert ravl.rank_regions(embeddings, [0, 1, 0, 0], cluster=0, medoid=2).tolist() == [2, 0, 3]


def test_cluster_counts():
    assert (ravl.cluster_counts(10)[0], ravl.cluster_counts(10)[-1]) == (20, 49)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_silhouette_is_the_textbook_one_at_clipped_cosine_distance(seed):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(25, 3))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    clusters = rng.integers(0, 4, 25)
    clusters[0] = 9  # a cluster of one
    distance = np.clip(1 - embeddings @ embeddings.T, 0, 1)
    widths = []
    for i, own in enumerate(clusters):
        others = (clusters == own) & (np.arange(25) != i)
        if not others.any():
            widths.append(0.0)
            continue
        a = distance[i, others].mean()
        b = min(distance[i, clusters == c].mean() for c in set(clusters) - {own})
        widths.append((b - a) / max(a, b))
    assert ravl.silhouette(embeddings, clusters) == pytest.approx(np.mean(widths))
    assert ravl.silhouette(embeddings, clusters, block_size=70) == pytest.approx(np.mean(widths))


def test_best_clustering_finds_the_number_of_groups():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 20)
    embeddings = np.eye(4)[truth] + 0.1 * rng.normal(size=(80, 4))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert ravl.best_clustering(embeddings, [np.zeros(80), truth // 2, truth, truth * 2 + np.arange(80) % 2]) == 2


@given(st.integers(0, 10_000), st.booleans())
def test_images_counted_part_by_part_add_up_to_all_at_once(seed: int, several: bool) -> None:
    rng = np.random.default_rng(seed)
    n, k, classes = 30, 4, 3
    image = np.repeat(np.arange(n), rng.integers(0, 5, n))
    cluster = rng.integers(0, k, len(image))
    scores = rng.integers(0, 4, (len(image), classes)).astype(float)  # with equals
    labels, predicted = rng.integers(0, classes, n), rng.integers(0, classes, n)
    also = rng.random((n, classes)) < 0.2 if several else None
    speaks = scores[np.arange(len(image)), predicted[image]]
    nothing = np.zeros((k, classes))
    total = ravl.Tally(nothing, nothing, nothing, nothing)
    for half in (slice(0, 11), slice(11, n)):
        mine = (image >= half.start) & (image < half.stop)
        total += ravl.tally(
            cluster[mine], image[mine] - half.start, speaks[mine], labels[half], predicted[half], k, classes,
            None if also is None else also[half],
        )  # fmt: skip

    right = labels == predicted if also is None else (labels == predicted) | also[np.arange(n), predicted]
    wrong, led = np.zeros((k, classes)), np.zeros((k, classes))
    for i in range(n):  # as the paper says it, image by image
        own = np.flatnonzero(image == i)
        for c in set(cluster[own].tolist()):
            wrong[c, labels[i]] += not right[i] and len(own) > 1
            led[c, labels[i]] += not right[i] and len(own) > 1 and cluster[own[speaks[own].argmax()]] == c
    gap = total.performance_gap(labels, predicted, also)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where((gap.by_label < 0) & (wrong > 0), led / wrong, -np.inf).max(axis=1)
    np.testing.assert_array_equal(total.influence(gap.by_label), share)
    at_once = ravl.memberships(cluster, image, labels, predicted, k, classes, also)
    for mine, theirs in zip(total.memberships(labels, predicted, also), at_once, strict=True):
        np.testing.assert_array_equal(mine, theirs)
