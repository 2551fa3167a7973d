"""Clusters of regions that are read part by part, and of a sample of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Audit
from pipeline.records import SCHEMAS, matrix, table
from pipeline.stages.cluster import (
    ITERATIONS,
    centre,
    cluster,
    far_apart,
    simplified_silhouettes,
    spherical_kmeans,
    together,
)
from pipeline.store import AuditFolder, Parts

N, EACH, D, KINDS = 120, 5, 8, 6


class Blind:
    """An encoder that knows no words."""

    fingerprint = "blind"
    has_text = False


def audit(**more: Any) -> Audit:
    model = {"kind": "python", "factory": "tests.fakes:patch_lover"}
    return Audit.from_dict({"data": {"path": "x"}, "model": model, "cluster": {"k_min": KINDS, "k_max": KINDS} | more})


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    """Images whose regions are of six kinds."""
    rng = np.random.default_rng(0)
    ids = [f"i{number:03d}" for number in range(N)]
    kinds = rng.normal(0, 1, (KINDS, D))
    vectors = kinds[rng.integers(0, KINDS, N * EACH)] + rng.normal(0, 0.15, (N * EACH, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return {
        "images": pa.table({"image_id": ids, "split": ["selection" if n % 2 else "estimation" for n in range(N)]}),
        "regions": pa.table(
            {
                "region_id": [f"{i}-{n}" for i in ids for n in range(EACH)],
                "image_id": [i for i in ids for _ in range(EACH)],
                "source": ["grid 2"] * (N * EACH),
                "box": [[0.0, 0.0, 0.5, 0.5]] * (N * EACH),
                "embedding": list(vectors),
            },
            schema=SCHEMAS["regions"],
        ),
    }


def clustered(
    tables: dict[str, pa.Table], cache: Path, regions: Parts | None = None, **options: Any
) -> tuple[list[dict[str, Any]], pa.Table, list[str]]:
    """Rows of `clusters`, `assignments`, and what was said to be left out."""
    said: list[str] = []
    found = cluster(
        tables["images"], table("captions", []), table("attributes", []),
        tables["regions"] if regions is None else regions,
        audit=audit(**options), classes=["a"], encoder=Blind(), cache=cache, count=lambda what, n: None,  # type: ignore[arg-type]
        skip=lambda what, why: said.append(f"{what}: {why}"), progress=lambda done, total: None,
    )  # fmt: skip
    return found["clusters"].to_pylist(), pa.concat_tables([*found["assignments"]]), said


def on_disk(tables: dict[str, pa.Table], folder: Path, images: int) -> Parts:
    """The regions in a file, so many images a part."""
    step = images * EACH
    parts = (tables["regions"].slice(first, step) for first in range(0, N * EACH, step))
    AuditFolder(folder).write("regions", parts)
    return AuditFolder(folder).rows("regions")


def plain(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(v for name, v in row.items() if name not in ("name_score", "centroid", "threshold")) for row in rows]


@pytest.mark.parametrize("images", [1, 7, N])
def test_regions_read_part_by_part_give_the_clusters_of_the_whole(
    tables: dict[str, pa.Table], tmp_path: Path, images: int
) -> None:
    whole, assigned, said = clustered(tables, tmp_path)
    parted, again, _ = clustered(tables, tmp_path, on_disk(tables, tmp_path, images))
    assert plain(parted) == plain(whole) and not said
    assert again.drop(["similarity"]).equals(assigned.drop(["similarity"]))
    np.testing.assert_allclose(again["similarity"], assigned["similarity"], atol=1e-6)
    np.testing.assert_allclose([r["threshold"] for r in parted], [r["threshold"] for r in whole], atol=1e-6)


def test_what_a_cluster_says_of_itself_follows_from_its_members(tables: dict[str, pa.Table], tmp_path: Path) -> None:
    rows, assigned, _ = clustered(tables, tmp_path, on_disk(tables, tmp_path, 7))
    half = dict(zip(*(tables["images"][name].to_pylist() for name in ("image_id", "split")), strict=True))
    members = assigned.to_pylist()
    for row in rows:
        mine = [m for m in members if m["cluster"] == row["cluster"]]
        assert row["size"] == len(mine) and row["images"] == len({m["image_id"] for m in mine})
        trained = [m for m in mine if half[m["image_id"]] == "selection"]
        assert row["medoid"] == max(trained, key=lambda m: m["similarity"])["region_id"]
        assert row["threshold"] == pytest.approx(np.quantile([m["similarity"] for m in trained], 0.1), abs=1e-6)


def test_of_too_many_regions_whole_images_are_sampled_by_the_seed_and_it_is_said(
    tables: dict[str, pa.Table], tmp_path: Path
) -> None:
    _, every, nothing = clustered(tables, tmp_path, sample=N * EACH // 2)
    rows, assigned, said = clustered(tables, tmp_path, sample=103)
    assert not nothing and len(said) == 1
    assert said[0].startswith("200 of 300 regions") and "20 images, at most 103 (cluster.sample)" in said[0]
    assert assigned["region_id"].equals(every["region_id"])  # every region has a cluster all the same
    assert clustered(tables, tmp_path, sample=103)[1].equals(assigned)
    assert sum(row["size"] for row in rows) == N * EACH


def test_a_set_that_grows_keeps_most_of_its_sample(tables: dict[str, pa.Table]) -> None:
    from pipeline.stages.cluster import to_train_on

    def sample(most: int) -> set[str]:
        ids = tables["images"]["image_id"].to_pylist()[:most]
        trained = to_train_on(
            ids, np.ones(most, bool), tables["regions"].slice(0, most * EACH), audit(sample=100), lambda what, why: None
        )
        return {ids[n] for n in np.flatnonzero(trained)}

    before, after = sample(100), sample(N)
    assert len(before) == len(after) == 20 and len(before & after) >= 14  # 20 of 120 instead of 20 of 100


def test_k_means_sees_every_point(tables: dict[str, pa.Table]) -> None:
    """FAISS would see 256 points a centroid: each centroid then were no mean of all of its members."""
    vectors = matrix(tables["regions"]["embedding"])
    many = np.concatenate([vectors] * 4) + np.random.default_rng(1).normal(0, 0.05, (4 * len(vectors), D))
    points = centre(many.astype(np.float32), many.mean(axis=0).astype(np.float32))
    assert len(points) > 2 * 2 * 256
    (centroids,) = spherical_kmeans(points, [far_apart(points, 2, 0)])
    own = (points @ centroids.T).argmax(axis=1)
    for number in range(2):
        mean = points[own == number].mean(axis=0)
        assert mean @ centroids[number] / np.linalg.norm(mean) > 1 - 1e-4


def test_a_cluster_without_vectors_stays_where_it_was() -> None:
    points = np.eye(D, dtype=np.float32)[[0] * 20 + [1] * 20]
    start = np.stack([points[0], points[-1], -points[0]])
    np.testing.assert_allclose(spherical_kmeans(points, [start])[0], start, atol=1e-6)


def test_several_starts_together_end_where_each_ends_alone_as_lloyd_s_iterations_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.stages.cluster.BLOCK", 100)
    monkeypatch.setattr("pipeline.stages.cluster.SIMILARITIES", 1)  # so that there are several blocks
    rng = np.random.default_rng(5)
    points = centre(rng.normal(0, 1, (700, D)).astype(np.float32), np.zeros(D, np.float32))
    starts = [points[:k] for k in (2, 5, 11)]
    fits = spherical_kmeans(points, starts)
    for start, fit in zip(starts, fits, strict=True):
        np.testing.assert_allclose(fit, spherical_kmeans(points, [start])[0], atol=1e-5)
        plain = start.copy()
        for _ in range(ITERATIONS):
            own = (points @ plain.T).argmax(axis=1)
            sums = np.stack([points[own == number].sum(axis=0) for number in range(len(plain))])
            plain = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        np.testing.assert_allclose(fit, plain, atol=1e-5)


def test_many_centroids_are_sought_in_groups_with_the_same_result(
    tables: dict[str, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert together([4000, 96, 1, 5000, 5001, 2]) == [[4000, 96], [1], [5000], [5001], [2]]
    rows, assigned, _ = clustered(tables, tmp_path, k_min=2, k_max=12, sweep=5)
    monkeypatch.setattr("pipeline.stages.cluster.TOGETHER", 1)
    apart, again, _ = clustered(tables, tmp_path, k_min=2, k_max=12, sweep=5)
    assert len(rows) > 2 and plain(apart) == plain(rows)
    assert again.drop(["similarity"]).equals(assigned.drop(["similarity"]))


def test_a_start_is_of_vectors_far_apart_and_its_first_are_the_start_for_a_smaller_k() -> None:
    rng = np.random.default_rng(3)
    groups = np.eye(D, dtype=np.float32)[:5].repeat([200, 200, 200, 200, 4], axis=0)
    points = centre(groups + rng.normal(0, 0.001, groups.shape).astype(np.float32), np.zeros(D, np.float32))
    start = far_apart(points, 8, 0)
    assert ((points @ start.T).max(axis=0) > 1 - 1e-6).all()
    assert set(start[:5].argmax(axis=1)) == set(range(5))  # the small group too
    assert (far_apart(points, 5, 0) == start[:5]).all()


def test_the_silhouette_is_that_of_all_points_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points = centre(rng.normal(0, 1, (500, D)).astype(np.float32), np.zeros(D, np.float32))
    fits, expected = [points[:7], points[:1], points[10:13]], [-1.0] * 3
    for number in (0, 2):
        distance = np.sort(1 - points @ fits[number].T, axis=1)
        expected[number] = np.mean((distance[:, 1] - distance[:, 0]) / np.maximum(distance[:, 1], 1e-12))
    monkeypatch.setattr("pipeline.stages.cluster.SIMILARITIES", 1)
    assert simplified_silhouettes(points, fits) == pytest.approx(expected, abs=1e-6)


class Talker(Blind):
    """An encoder for whom every text is alike: captions alone name a cluster."""

    has_text = True

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.tile(np.eye(1, D, dtype=np.float32), (len(texts), 1))


def test_a_cluster_is_never_named_by_a_word_of_grammar(tmp_path: Path) -> None:
    from pipeline.stages.cluster import Words

    ids = [f"i{number}" for number in range(40)]
    # "and" goes with the cluster's images better than the thing does
    texts = ["a boat and with a buoy" if n < 18 else "the boat and" if n < 20 else "a boat" for n in range(40)]
    captions = table("captions", [{"image_id": i, "caption": text} for i, text in zip(ids, texts, strict=True)])
    words = Words(
        captions, set(ids), table("attributes", []), audit(), ["a"], Talker(), tmp_path, count=lambda what, n: None  # type: ignore[arg-type]
    )  # fmt: skip
    assert words.best(np.ones(D, np.float32), set(ids[:20]))[0] == "buoy"
