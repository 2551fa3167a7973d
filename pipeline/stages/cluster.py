"""cluster: regions that look alike, as unnamed cues; and words for each from the captions.

Spherical k-means, started by FAISS's k-means++, over the selection half's region vectors, k swept and chosen by the
simplified silhouette with cosine distance: the silhouette of Rousseeuw (1987) with distances to centroids in place of
mean distances to members, linear in the number of regions. RaVL sweeps 2|Y| to 5|Y| (arXiv 2411.04097, section 3.1);
the default here is 10|Y| to 30|Y|, because a cue that is in one region of thirty in a tenth of the images is lost among
few clusters, while a cluster too many costs nothing: what is tested is chosen by evidence, and estimated on the other
half.

Regions are read part by part. Of more than `cluster.sample` regions k-means sees those of some images, chosen by the
seed and their ids, and run.json says so; names come from the captions of these images. Every region is then assigned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.evidence.boxes import of_images
from pipeline.evidence.columns import release, scratch
from pipeline.evidence.texts import text_embeddings
from pipeline.models.protocols import Floats, RegionEncoder
from pipeline.models.words import STOP_WORDS
from pipeline.places import Place
from pipeline.records import SCHEMAS, matrix, of_half, places, table
from pipeline.store import Parts, batches, in_order, length

VERSION = 4
ITERATIONS = 25
MEMBER_QUANTILE = 0.1
"""A region belongs to a cluster's cue if it is as near the centroid as all but this share of the members."""
MOST_WORDS = 200
LEAST_MEMBERS = 10
"""No more clusters than give each this many regions on average."""
BLOCK = 1 << 14
"""Regions whose similarities to all centroids are held at a time."""


def cluster(
    images: pa.Table,
    captions: Parts,
    attributes: pa.Table,
    regions: Parts,
    *,
    audit: Audit,
    classes: Sequence[str],
    encoder: RegionEncoder | None,
    cache: Place,
    count: Callable[[str, int], None],
    skip: Callable[[str, str], None],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """`clusters` (medoid, words, centroid) and `assignments` (each region's cluster, with its cosine similarity)."""
    empty = {"clusters": table("clusters", []), "assignments": table("assignments", [])}
    if encoder is None or not audit.cluster.enabled or not length(regions):
        return empty
    ids: list[str] = images["image_id"].to_pylist()
    chosen = of_half(images, "selection") if not audit.no_split else np.ones(len(ids), bool)
    trained = to_train_on(ids, chosen, regions, audit, skip)
    vectors = vectors_of(regions, ids, trained)
    ks = sweep(audit, len(classes), len(vectors))
    if not ks:
        return empty
    mean = vectors.mean(axis=0)
    centred = centre(vectors, mean, out=vectors)
    start = far_apart(centred, ks[-1], audit.seed)
    fits = []
    for done, k in enumerate(ks):
        centroids = spherical_kmeans(centred, start[:k])
        fits.append((simplified_silhouette(centred, centroids), centroids))
        progress(done + 1, len(ks))
    centroids = max(fits, key=lambda fit: fit[0])[1]
    del centred, vectors, fits
    seen = Clusters(len(centroids), len(mean), cache)
    assigned = seen.assign(regions, ids, trained, mean, centroids)
    words = Words(
        captions, {ids[n] for n in np.flatnonzero(trained)}, attributes, audit, classes, encoder, cache, count
    )
    rows = [
        {
            "cluster": number,
            "size": int(seen.size[number]),
            "images": int(seen.images[number]),
            "medoid": seen.medoid[number],
            "name": name,
            "name_score": score,
            "threshold": float(np.quantile(near, MEMBER_QUANTILE)),
            "centroid": centroids[number],
        }
        for number, (near, total, inside) in enumerate(seen.members(ids))
        if len(near)
        for name, score in [words.best(total / np.float32(len(near)), inside)]
    ]
    return {"clusters": table("clusters", rows), "assignments": assignments(regions, assigned)}


def to_train_on(
    ids: list[str], chosen: NDArray[np.bool_], regions: Parts, audit: Audit, skip: Callable[[str, str], None]
) -> NDArray[np.bool_]:
    """(images,): those of `chosen` whose regions k-means sees; of too many a sample by the seed and their ids.

    A sample of whole images, so that a data set that grows keeps most of it, and the words of its captions suffice.
    """
    at = {image_id: number for number, image_id in enumerate(ids)}
    number = np.zeros(len(ids), dtype=np.int64)
    for part in batches(regions, ["image_id"]):
        number += np.bincount(places(part["image_id"], at), minlength=len(ids))
    total = int(number[chosen].sum())
    if total <= audit.cluster.sample:
        return chosen
    order = in_order(np.flatnonzero(chosen).tolist(), ids, audit.seed, "cluster")
    kept = order[: int(np.searchsorted(number[order].cumsum(), audit.cluster.sample, side="right"))]
    trained = np.zeros(len(ids), dtype=bool)
    trained[kept] = True
    skip(
        f"{total - int(number[trained].sum())} of {total} regions when clusters are sought",
        f"k-means sees the regions of {len(kept)} images, at most {audit.cluster.sample} (cluster.sample); "
        "every region is then assigned to its cluster",
    )
    return trained


def vectors_of(regions: Parts, ids: list[str], wanted: NDArray[np.bool_]) -> Floats:
    """(n, d): the vectors of these images' regions, in order."""
    at = {image_id: number for number, image_id in enumerate(ids)}
    mine = [wanted[places(part["image_id"], at)] for part in batches(regions, ["image_id"])]
    found, done = np.zeros((0, 0), np.float32), 0
    for part, some in zip(batches(regions, ["embedding"]), mine, strict=True):
        if some.any():
            vectors = matrix(part["embedding"])[some]
            if not done:
                found = np.empty((sum(map(np.count_nonzero, mine)), vectors.shape[1]), np.float32)
            found[done : done + len(vectors)] = vectors
            done += len(vectors)
    return found


def centre(vectors: Floats, mean: Floats, out: Floats | None = None) -> Floats:
    """Vectors less the selection half's mean, to unit length: CLIP vectors share a large common direction."""
    centred = np.subtract(vectors, mean, out=out)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return centred


class Clusters:
    """What is known of each cluster when every region was assigned: counts of all, vectors of those trained on."""

    def __init__(self, k: int, d: int, cache: Place) -> None:
        self._cache = cache
        self.size, self.images = np.zeros(k, np.int64), np.zeros(k, np.int64)
        self.medoid = [""] * k
        self._best = np.full(k, -np.inf, np.float32)
        self._total = np.zeros((k, d), np.float32)
        self._trained: list[tuple[NDArray[np.int64], ...]] = []  # of each part: cluster, image
        self._near: list[Floats] = []

    def assign(
        self, regions: Parts, ids: list[str], trained: NDArray[np.bool_], mean: Floats, centroids: Floats
    ) -> NDArray[np.float64]:
        """(regions, 2): each region's cluster and its cosine similarity to the centroid; see evidence/columns.py."""
        at = {image_id: number for number, image_id in enumerate(ids)}
        k, done = len(centroids), 0
        assigned = scratch(length(regions), 2, self._cache)
        for part in batches(regions, ["region_id", "image_id", "embedding"]):
            for first in range(0, len(part), BLOCK):
                block = part.slice(first, BLOCK)
                vectors, image = matrix(block["embedding"]), places(block["image_id"], at)
                similarity = centre(vectors, mean) @ centroids.T
                own = similarity.argmax(axis=1)
                near = similarity[np.arange(len(own)), own]
                place = slice(done, done := done + len(own))
                assigned[place, 0], assigned[place, 1] = own, near
                self.size += np.bincount(own, minlength=k)
                self._learn(block, vectors, own, near, image, trained[image])
            first_row, images = done - len(part), places(part["image_id"], at)
            own = assigned[first_row:done, 0].astype(np.int64)
            self.images += np.bincount(np.unique(images * k + own) % k, minlength=k)  # no image is in two parts
            release(assigned)
        return assigned

    def _learn(
        self,
        block: pa.Table,
        vectors: Floats,
        own: NDArray[np.int64],
        near: Floats,
        image: NDArray[np.int64],
        mine: NDArray[np.bool_],
    ) -> None:
        rows = np.flatnonzero(mine)
        # one after the other, as numpy's mean over rows adds: the same sums, to the bit
        np.add.at(self._total, own[rows], vectors[rows])
        self._trained.append((own[rows], image[rows]))
        self._near.append(near[rows])
        order = rows[np.lexsort((rows, -near[rows], own[rows]))]
        found, first = np.unique(own[order], return_index=True)
        for cluster, row in zip(found.tolist(), order[first].tolist(), strict=True):
            if near[row] > self._best[cluster]:
                self._best[cluster] = near[row]
                self.medoid[cluster] = block["region_id"][row].as_py()

    def members(self, ids: list[str]) -> Iterator[tuple[Floats, Floats, set[str]]]:
        """Of each cluster's members trained on: their similarities, the sum of their vectors, their images."""
        own, image = (np.concatenate(column) for column in zip(*self._trained, strict=True))
        near = np.concatenate(self._near)
        order = np.argsort(own, kind="stable")
        ends = np.cumsum(np.bincount(own, minlength=len(self.size)))
        for number, mine in enumerate(np.split(order, ends[:-1])):
            yield near[mine], self._total[number], {ids[n] for n in np.unique(image[mine]).tolist()}


def assignments(regions: Parts, assigned: NDArray[np.float64]) -> Iterator[pa.Table]:
    """The table `assignments`, part by part, from :meth:`Clusters.assign`."""
    done = 0
    for part in batches(regions, ["region_id", "image_id"]):
        place = slice(done, done := done + len(part))
        own, near = assigned[place, 0].astype(np.int64), assigned[place, 1].copy()
        release(assigned)
        yield part.append_column("cluster", pa.array(own)).append_column("similarity", pa.array(near))


def sweep(audit: Audit, classes: int, regions: int) -> list[int]:
    """The values of k to try."""
    low = audit.cluster.k_min or 10 * classes
    high = audit.cluster.k_max or 30 * classes
    high = min(max(low, high), regions // LEAST_MEMBERS)
    if high < 2:
        return []
    low = min(max(low, 2), high)
    return sorted({int(k) for k in np.linspace(low, high, min(audit.cluster.sweep, high - low + 1)).round()})


def far_apart(vectors: Floats, k: int, seed: int) -> Floats:
    """(k, d): of the vectors (n, d) those that k-means++ starts from (Arthur and Vassilvitskii 2007), in their order.

    They find small far-off groups, which a random start seldom does. The first of them are the start for a smaller k.
    """
    import faiss

    fit = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=0,
        spherical=True,
        seed=seed + 1,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,
        max_points_per_centroid=max(len(vectors), 1),  # or FAISS would see 256 points a centroid
    )
    fit.train(np.ascontiguousarray(vectors))
    return np.asarray(fit.centroids, dtype=np.float32)


def spherical_kmeans(vectors: Floats, start: Floats) -> Floats:
    """Unit centroids (k, d) of unit vectors (n, d), every point used, from a start (k, d): Lloyd's iterations.

    Of the clusters' sums only the vectors that changed theirs are added and taken away, few after the first iterations;
    FAISS's own k-means adds up all of them in each. A cluster that loses its last vector stays where it was.
    """
    centroids, totals = np.array(start, dtype=np.float32), np.zeros(start.shape)
    own = np.full(len(vectors), -1)
    for _ in range(ITERATIONS):
        blocks = [vectors[first : first + BLOCK] for first in range(0, len(vectors), BLOCK)]
        new = np.concatenate([(block @ centroids.T).argmax(axis=1) for block in blocks])
        moved = np.flatnonzero(new != own)
        if not len(moved):
            break
        for first in range(0, len(moved), BLOCK):
            rows = moved[first : first + BLOCK]
            change = np.zeros((len(centroids), len(rows)), np.float32)
            change[new[rows], np.arange(len(rows))] = 1
            left = np.flatnonzero(own[rows] >= 0)
            change[own[rows[left]], left] = -1
            totals += change @ (vectors[rows] if len(moved) < len(vectors) else vectors[first : first + BLOCK])
        own = new
        held = np.bincount(own, minlength=len(centroids)) > 0
        totals[~held] = 0  # and not what rounding left
        norm = np.linalg.norm(totals[held], axis=1, keepdims=True)
        centroids[held] = totals[held] / np.maximum(norm, 1e-12)
    return centroids


def simplified_silhouette(vectors: Floats, centroids: Floats) -> float:
    """Mean of (b - a) / max(a, b) with cosine distances a to the own and b to the next centroid, in [-1, 1]."""
    if len(centroids) < 2:
        return -1.0
    width = np.empty(len(vectors), np.float32)
    for first in range(0, len(vectors), BLOCK):
        block = slice(first, first + BLOCK)
        similar = vectors[block] @ centroids.T
        nearest = (np.arange(len(similar)), similar.argmax(axis=1))
        own = 1 - similar[nearest]
        similar[nearest] = -np.inf
        other = 1 - similar.max(axis=1)
        width[block] = (other - own) / np.maximum(other, 1e-12)
    return float(np.mean(width))


class Words:
    """Names for clusters: words that the captions of a cluster's images use, judged by their text vectors too."""

    def __init__(
        self,
        captions: Parts,
        chosen: set[str],
        attributes: pa.Table,
        audit: Audit,
        classes: Sequence[str],
        encoder: RegionEncoder,
        cache: Place,
        count: Callable[[str, int], None],
    ) -> None:
        parts = of_images(captions, ("image_id", "caption"), chosen)
        mine = pa.concat_tables([SCHEMAS["captions"].empty_table(), *parts])
        self.at = {image_id: number for number, image_id in enumerate(mine["image_id"].to_pylist())}
        texts = [text.lower() for text in mine["caption"].to_pylist()]
        phrases = {*attributes["phrase"].to_pylist(), *(audit.words(name) for name in classes)}
        common = Counter(word for text in texts for word in {*re.findall(r"[a-z]{3,}", text)} - STOP_WORDS)
        # by their number, and of equals the earlier in the alphabet: the order of a set is another in every process
        ranked = sorted(common.items(), key=lambda item: (-item[1], item[0]))
        phrases |= {word for word, seen in ranked[:MOST_WORDS] if seen >= 3}
        self.phrases = sorted(phrases) if encoder.has_text else []
        self.vectors = (
            text_embeddings(encoder, self.phrases, cache, count) if self.phrases else np.zeros((0, 1), np.float32)
        )
        self.holds = np.array([[p in text for text in texts] for p in self.phrases], dtype=bool)
        self.holds = self.holds.reshape(len(self.phrases), len(texts))

    def best(self, vector: Floats, image_ids: set[str]) -> tuple[str, float]:
        """The best word for a mean vector and its images, and its cosine similarity; ("", nan) with no words."""
        if not self.phrases:
            return "", float("nan")
        similarity = self.vectors @ (vector / max(float(np.linalg.norm(vector)), 1e-12))
        lift = np.zeros(len(self.phrases))
        inside = np.zeros(len(self.at), dtype=bool)
        inside[[self.at[i] for i in image_ids if i in self.at]] = True
        n = int(inside.sum())
        if 0 < n < len(inside):
            here, there = self.holds[:, inside].sum(axis=1), self.holds[:, ~inside].sum(axis=1)
            lift = np.log((here + 0.5) / (n + 1)) - np.log((there + 0.5) / (len(inside) - n + 1))
        order = standard(similarity) + 0.5 * standard(lift)
        index = int(order.argmax())
        return self.phrases[index], float(similarity[index])


def standard(values: NDArray) -> NDArray:
    """Zero mean and unit deviation; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
