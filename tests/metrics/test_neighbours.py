"""The neighbour tests: golden values of cleanlab's statistic, their level, their power, and what blocks explain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.neighbours import Graph, index_distance_ks, neighbours, order_test, two_sample_test


def cloud(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def axis(d: int, place: int) -> np.ndarray:
    return np.eye(d)[place]


GOLDEN = {
    # cleanlab 2.9.0, NonIIDIssueManager._get_statistics on exact cosine neighbours, k = 10
    "noise": (cloud(7, 200, 8), 0.028283919597989926),
    "drift": (cloud(7, 200, 8) + np.linspace(0, 2, 200)[:, None] * axis(8, 0), 0.09188944723618075),
    "jump": (cloud(7, 120, 16) + 3 * (np.arange(120) >= 60)[:, None] * axis(16, 3), 0.20007703081232497),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_statistic_is_cleanlabs(name: str) -> None:
    vectors, expected = GOLDEN[name]
    graph = neighbours(vectors.astype(np.float32))
    distances = np.abs(np.arange(len(vectors))[:, None] - graph.near)
    assert index_distance_ks(distances, len(vectors)) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(1, 19), min_size=1, max_size=60))
def test_the_statistic_by_counting_is_that_by_sorting(distances: list[int]) -> None:
    n = 20
    ordered = np.append(np.sort(distances), n - 1)
    pairs = np.cumsum((n - np.arange(1, n)) / (n * (n - 1) / 2))
    literal = np.abs(np.arange(len(ordered)) / len(distances) - pairs[ordered - 1]).max()
    assert index_distance_ks(np.array(distances), n) == pytest.approx(literal, abs=1e-12)


def test_neighbours_are_the_nearest_and_never_the_image_itself() -> None:
    vectors = cloud(0, 60, 5).astype(np.float32)
    vectors[10:20] = vectors[10]  # equal vectors: any may come first
    graph = neighbours(vectors, 12)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    far = 1 - unit @ unit.T
    np.fill_diagonal(far, np.inf)
    assert graph.near.shape == (60, 12)
    assert not (graph.near == np.arange(60)[:, None]).any()
    assert np.allclose(graph.distance, np.sort(far, axis=1)[:, :12], atol=1e-5)
    assert neighbours(vectors[:4], 10).near.shape == (4, 3)


def test_order_finds_drift_jumps_and_bursts_and_leaves_noise_alone() -> None:
    n = 150
    bursts = np.repeat(cloud(3, n // 3, 12), 3, axis=0) + 0.2 * cloud(4, n, 12)  # three frames of each scene
    drift, jump = cloud(1, n, 8) + np.linspace(0, 3, n)[:, None] * axis(8, 2), GOLDEN["jump"][0]
    for vectors in (drift, jump, bursts):
        test = order_test([neighbours(vectors.astype(np.float32))], np.random.default_rng(0), 199)
        assert test.p[0] == test.pooled_p == 1 / 200
    rng = np.random.default_rng(5)
    calm = order_test([neighbours(rng.permutation(drift).astype(np.float32))], rng, 199)
    assert calm.pooled_p > 0.05


def test_order_keeps_its_level() -> None:
    rng = np.random.default_rng(11)
    p = [order_test([neighbours(rng.normal(size=(60, 6)).astype(np.float32))], rng, 39).pooled_p for _ in range(200)]
    assert np.mean(np.array(p) <= 0.1) < 0.16  # three standard errors above 0.1
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.12)


def test_weak_drift_in_each_class_adds_up() -> None:
    rng = np.random.default_rng(2)
    blocks = [
        neighbours((rng.normal(size=(60, 6)) + np.linspace(0, 2, 60)[:, None] * axis(6, 0)).astype(np.float32))
        for _ in range(12)
    ]
    test = order_test(blocks, rng, 199)
    assert test.pooled_p <= 0.01 < np.median(test.p)


def two(first: np.ndarray, second: np.ndarray) -> tuple[Graph, np.ndarray]:
    return neighbours(np.concatenate([first, second]).astype(np.float32)), np.arange(len(first) + len(second)) >= len(
        first
    )


def test_samples_that_differ_are_found_also_when_one_is_small() -> None:
    rng = np.random.default_rng(0)
    for size in (200, 20):
        graph, labels = two(cloud(1, 200, 10), cloud(2, size, 10) + 1.5 * axis(10, 0))
        test = two_sample_test([graph], [labels], rng, 199)
        assert test.pooled_p == 1 / 200 and test.pooled_same > 1.3 * test.pooled_expected


def test_a_difference_in_spread_alone_is_found() -> None:
    center = 5 * axis(10, 0)  # cosine: spread about a direction
    graph, labels = two(cloud(1, 200, 10) + center, 0.4 * cloud(2, 100, 10) + center)
    assert two_sample_test([graph], [labels], np.random.default_rng(0), 199).pooled_p == 1 / 200


def test_two_samples_of_one_kind_keep_the_level() -> None:
    rng = np.random.default_rng(3)
    p = []
    for _ in range(200):
        graph, labels = two(rng.normal(size=(60, 6)), rng.normal(size=(25, 6)))
        p.append(two_sample_test([graph], [labels], rng, 39).pooled_p)
    assert np.mean(np.array(p) <= 0.1) < 0.16
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.12)


def test_another_mix_of_classes_is_no_difference() -> None:
    rng = np.random.default_rng(4)
    near, far = cloud(1, 120, 6), cloud(2, 120, 6) + 8 * axis(6, 1)
    early = np.concatenate([np.arange(120) < 100, np.arange(120) < 20])  # first sample: mostly the first class
    mixed = two_sample_test([neighbours(np.concatenate([near, far]).astype(np.float32))], [~early], rng, 199)
    blocked = two_sample_test(
        [neighbours(near.astype(np.float32)), neighbours(far.astype(np.float32))],
        [~early[:120], ~early[120:]],
        rng,
        199,
    )
    assert mixed.pooled_p == 1 / 200 and blocked.pooled_p > 0.05


def test_a_block_with_one_sample_alone_has_no_p() -> None:
    graph, labels = two(cloud(1, 40, 4), cloud(2, 40, 4))
    alone = neighbours(cloud(3, 30, 4).astype(np.float32))
    test = two_sample_test([graph, alone], [labels, np.ones(30, bool)], np.random.default_rng(0), 49)
    assert np.isnan(test.p[1]) and 0 < test.pooled_p <= 1
