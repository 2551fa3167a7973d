"""Clustering: k-means with a swept k against what RaVL does (K-medoids, chosen by the silhouette), and how it grows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.bench.peak import peak
from pipeline.bench.speed.lines import Line
from pipeline.config import Audit
from pipeline.metrics import ravl
from pipeline.models.protocols import Floats, RegionEncoder
from pipeline.records import SCHEMAS, box_column, table, vectors
from pipeline.stages import cluster
from pipeline.store import AuditFolder

KINDS = 40
"""Groups that the made-up regions lie round."""
PER_IMAGE = 20
LABELS = 8
MOST_SECONDS, MOST_MEBIBYTES = 600.0, 6 * 1024
"""For a million regions."""


def bench_clusters(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """10,000 regions against K-medoids; then up to a million (quick: a hundred thousand) through the stage itself."""
    regions, d = 10_000, 512
    made = round_groups(regions, d)
    ks = list(ravl.cluster_counts(LABELS))
    cluster.far_apart(made[:100], 2, 0)  # so that the package is imported
    began = time.perf_counter()
    start = cluster.far_apart(made, ks[-1], 0)
    fits = cluster.spherical_kmeans(made, [start[:k] for k in ks])
    ours = int(np.argmax(cluster.simplified_silhouettes(made, fits)))
    mine = time.perf_counter() - began
    tried = ks[len(ks) // 6 :: len(ks) // 3] if quick else ks
    spent = [_medoids_of(made, k) for k in tried]
    each, once = (sum(seconds) * len(ks) / len(tried) for seconds in zip(*spent, strict=True))
    said = f"{regions:,} regions of {d} numbers, k from {ks[0]} to {ks[-1]}"
    said += f"; theirs timed at {len(tried)} of {len(ks)}" if len(tried) < len(ks) else ""
    yield Line("clusters", "k-means over K-medoids with silhouette", each / mine, 50.0, setting=said)
    began = time.perf_counter()
    cosine_distances(made)
    once += time.perf_counter() - began
    yield Line("clusters", "k-means over the same with distances made once for all k", once / mine, setting=said)
    yield Line("clusters", f"the sweep, which chose k = {ks[ours]}", mine, unit="s")
    small, large = (20_000, 100_000) if quick else (100_000, 1_000_000)
    times = {}
    for size in (small, large):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.bench.speed.clusters", str(size), str(work / f"regions-{size}")],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        times[size], most = map(float, done.stdout.split()[-2:])
        limit = MOST_SECONDS * size / 1_000_000
        yield Line("clusters", f"{size:,} x 512 clustered, assigned and named", times[size], limit, False, "s")
        yield Line("clusters", f"peak memory at {size:,} x 512", most, MOST_MEBIBYTES, False, "MiB")
    growth = times[large] / times[small] * small / large
    yield Line("clusters", f"time a region at {large:,} over that at {small:,}", growth, 1.15, False)


def round_groups(number: int, d: int, seed: int = 0) -> Floats:
    """(number, d) unit vectors round KINDS directions, as region embeddings lie."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((KINDS, d)).astype(np.float32)
    made = directions[rng.integers(KINDS, size=number)]
    made += rng.standard_normal((number, d), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def _medoids_of(vectors: Floats, k: int) -> tuple[float, float]:
    """Seconds of K-medoids and its silhouette from vectors, as scikit-learn-extra and scikit-learn take them with
    metric="cosine"; and of both by distances that are known, as RaVL's code calls the same two."""
    marks = [time.perf_counter()]

    def mark() -> float:
        marks.append(time.perf_counter())
        return marks[-1] - marks[-2]

    distance = cosine_distances(vectors)
    made = mark()
    own = distance[:, k_medoids(distance, k)].argmin(axis=1)
    clustered = mark()
    silhouette_of(distance, own, k)
    by_distance = mark()
    ravl.silhouette(vectors, own)
    return made + clustered + mark(), clustered + by_distance


def cosine_distances(vectors: Floats) -> Floats:
    """(n, n) of unit vectors, as RaVL's code makes them, once for all k."""
    distance = np.clip(1 - vectors @ vectors.T, 0, 1)
    np.fill_diagonal(distance, 0)
    return distance


def k_medoids(distance: Floats, k: int, seed: int = 0, iterations: int = 300) -> NDArray[np.int64]:
    """(k,) rows that are medoids, by distances (n, n), as scikit-learn-extra's "alternate" method from a start by
    "k-medoids++", which RaVL calls: assign, then the member with the least sum of distances, until nothing changes."""
    medoids = _plus_plus(distance, k, np.random.default_rng(seed))
    for _ in range(iterations):
        own = distance[:, medoids].argmin(axis=1)
        new = medoids.copy()
        for number in range(k):
            mine = np.flatnonzero(own == number)
            if len(mine):
                new[number] = mine[distance[np.ix_(mine, mine)].sum(axis=1).argmin()]
        if (new == medoids).all():
            break
        medoids = new
    return medoids


def _plus_plus(distance: Floats, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(k,) rows far apart: of some that are drawn by their squared distance from the nearest so far the best each."""
    chosen = [int(rng.integers(len(distance)))]
    nearest = distance[chosen[0]] ** 2
    for _ in range(k - 1):
        tried = rng.choice(len(distance), 2 + int(np.log(k)), p=nearest / nearest.sum(dtype=np.float64))
        left = np.minimum(nearest, distance[tried] ** 2)
        best = int(left.sum(axis=1).argmin())
        chosen.append(int(tried[best]))
        nearest = left[best]
    return np.array(chosen)


def silhouette_of(distance: Floats, own: NDArray[np.int64], k: int) -> float:
    """The silhouette (Rousseeuw 1987) by distances (n, n), in one product."""
    rows, size = np.arange(len(own)), np.bincount(own, minlength=k)
    members = np.zeros((len(own), k), np.float32)
    members[rows, own] = 1
    sums = distance @ members
    a = sums[rows, own] / np.maximum(size[own] - 1, 1)
    other = sums / np.maximum(size, 1)
    other[:, size == 0] = np.inf
    other[rows, own] = np.inf
    b = other.min(axis=1)
    return float(np.mean(np.where(size[own] > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-12), 0)))


class _Words:
    """An encoder that knows words alone: the stage asks it for names."""

    has_text, fingerprint = True, "bench"

    def texts(self, texts: Sequence[str]) -> Floats:
        return round_groups(len(texts), 512, seed=1)


def whole_stage(size: int, work: Path) -> tuple[float, float]:
    """Seconds and peak MiB of the stage `cluster` on so many regions in a file, which is made first."""
    work.mkdir(parents=True, exist_ok=True)
    folder = AuditFolder(work)
    ids = [f"{number:032x}" for number in range(size // PER_IMAGE)]
    if not folder.has("regions"):
        folder.write("regions", _regions(ids))
    images = _images(ids)
    captions = pa.table({"image_id": ids, "caption": [f"a boat with thing {n % 200}" for n in range(len(ids))]})
    began = time.perf_counter()
    tables = cluster.cluster(
        images,
        captions.cast(SCHEMAS["captions"]),
        table("attributes", []),
        folder.rows("regions"),
        audit=Audit.from_dict({"data": {"source": "folder", "path": "."}, "model": {"kind": "open_clip", "name": "-"}}),
        classes=("boat", "car"),
        encoder=cast(RegionEncoder, _Words()),
        cache=work / "cache",
        count=lambda what, number: None,
        skip=lambda what, why: None,
        progress=lambda done, total: None,
    )
    folder.write("assignments", tables["assignments"])
    seconds = time.perf_counter() - began
    return seconds, peak()


def _regions(ids: list[str]) -> Iterator[pa.Table]:
    box = np.array([[0.1, 0.1, 0.5, 0.5]])
    step = 512
    for first in range(0, len(ids), step):
        some = ids[first : first + step]
        n = len(some) * PER_IMAGE
        yield pa.table(
            {
                "region_id": [f"{first * PER_IMAGE + number:032x}" for number in range(n)],
                "image_id": [image_id for image_id in some for _ in range(PER_IMAGE)],
                "source": ["grid 4"] * n,
                "box": box_column(np.repeat(box, n, axis=0)),
                "embedding": vectors(round_groups(n, 512, seed=first)),
            },
            schema=SCHEMAS["regions"],
        )


def _images(ids: list[str]) -> pa.Table:
    from pipeline.records import PROPERTIES

    rows = [
        {
            "image_id": image_id,
            "path": f"{number}.jpg",
            "label": ("boat", "car")[number % 2],
            "split": ("selection", "estimation")[number // 2 % 2],
            "group": image_id,
            "width": 500,
            "height": 375,
            **dict.fromkeys(PROPERTIES, 0.5),
        }
        for number, image_id in enumerate(ids)
    ]
    return table("images", rows)


if __name__ == "__main__":
    print(*whole_stage(int(sys.argv[1]), Path(sys.argv[2])))
