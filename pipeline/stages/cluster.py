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
"""Regions worked on at a time when each has one cluster."""
TOGETHER = 1 << 12
"""Centroids, of several k, that k-means seeks in one product; more would only take memory."""
SIMILARITIES = 1 << 21
"""Similarities of regions to centroids held at a time when k is sought: they stay in a processor's cache."""


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
    best, centroids = -np.inf, start
    groups = together(ks)
    for done, some in enumerate(groups):
        fits = spherical_kmeans(centred, [start[:k] for k in some])
        for silhouette, fit in zip(simplified_silhouettes(centred, fits), fits, strict=True):
            if silhouette > best:
                best, centroids = silhouette, fit
        progress(done + 1, len(groups))
    del centred, vectors, start, fits
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


def together(ks: Sequence[int]) -> list[list[int]]:
    """These numbers of clusters in groups, in order, each of at most TOGETHER centroids, or of a single k."""
    groups: list[list[int]] = []
    for k in ks:
        if groups and sum(groups[-1]) + k <= TOGETHER:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def spherical_kmeans(vectors: Floats, starts: Sequence[Floats]) -> list[Floats]:
    """Unit centroids (k, d) of unit vectors (n, d), every point used, from each start (k, d): Lloyd's iterations.

    All starts go together, their similarities in one product: vectors are read once for all, which is most of what few
    centroids cost. Of the clusters' sums only the vectors that changed theirs are added and taken away, few after the
    first iterations; FAISS's own k-means adds up all of them in each. A cluster that loses its last vector stays where
    it was.
    """
    from scipy import sparse  # here, for its import takes longer than most commands

    fits, totals = [np.array(start, dtype=np.float32) for start in starts], [np.zeros(start.shape) for start in starts]
    own = np.full((len(starts), len(vectors)), -1, np.int32)
    moving = list(range(len(starts)))
    for _ in range(ITERATIONS):
        stacked, parts = stack([fits[number] for number in moving])
        old, new = own[moving], np.empty((len(moving), len(vectors)), np.int32)
        for rows in blocks(len(vectors), len(stacked)):
            similar = vectors[rows] @ stacked.T
            for number, part in enumerate(parts):
                new[number, rows] = similar[:, part].argmax(axis=1)
        change = np.zeros(stacked.shape)
        first = np.array([part.start for part in parts])[:, None]
        for begin in range(0, len(vectors), BLOCK):
            rows = slice(begin, begin + BLOCK)
            moved = new[:, rows] != old[:, rows]
            left = moved & (old[:, rows] >= 0)
            to, of = (first + new[:, rows])[moved], (first + old[:, rows])[left]
            sign = np.repeat(np.array([1, -1], np.float32), [len(to), len(of)])
            places = np.concatenate([to, of]), np.concatenate([moved.nonzero()[1], left.nonzero()[1]])
            block = vectors[rows]
            change += sparse.csc_array((sign, places), shape=(len(stacked), len(block))) @ block
        own[moving] = new
        changed = (new != old).any(axis=1)
        moving = [number for number, some in zip(moving, changed, strict=True) if some]
        if not moving:
            break
        for number, part in zip(moving, [part for part, some in zip(parts, changed, strict=True) if some], strict=True):
            centroids, total = fits[number], totals[number]
            total += change[part]
            held = np.bincount(own[number], minlength=len(centroids)) > 0
            total[~held] = 0  # and not what rounding left
            norm = np.linalg.norm(total[held], axis=1, keepdims=True)
            centroids[held] = total[held] / np.maximum(norm, 1e-12)
    return fits


def simplified_silhouettes(vectors: Floats, fits: Sequence[Floats]) -> list[float]:
    """For each fit (k, d): mean of (b - a) / max(a, b) with cosine distances a to the own and b to the next centroid.

    In [-1, 1]; -1 for a single cluster.
    """
    totals = np.zeros(len(fits))
    stacked, parts = stack(fits)
    for rows in blocks(len(vectors), len(stacked)):
        similar = vectors[rows] @ stacked.T
        for number, part in enumerate(parts):
            if len(fits[number]) < 2:
                continue
            mine = similar[:, part]
            nearest = (np.arange(len(mine)), mine.argmax(axis=1))
            own = 1 - mine[nearest]
            mine[nearest] = -np.inf
            other = 1 - mine.max(axis=1)
            totals[number] += ((other - own) / np.maximum(other, 1e-12)).sum(dtype=np.float64)
    return [total / len(vectors) if len(fit) > 1 else -1.0 for total, fit in zip(totals.tolist(), fits, strict=True)]


def stack(fits: Sequence[Floats]) -> tuple[Floats, list[slice]]:
    """Centroids of several fits one under the other, and each fit's rows among them."""
    ends = np.cumsum([len(fit) for fit in fits]).tolist()
    return np.concatenate(fits), [slice(end - len(fit), end) for end, fit in zip(ends, fits, strict=True)]


def blocks(vectors: int, centroids: int) -> Iterator[slice]:
    """Rows whose similarities to so many centroids are held at a time: SIMILARITIES numbers, and no fewer than 256."""
    rows = max(SIMILARITIES // centroids, 256)
    return (slice(first, first + rows) for first in range(0, vectors, rows))


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
