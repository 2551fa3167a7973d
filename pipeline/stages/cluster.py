"""cluster: regions that look alike, as unnamed cues; and words for each from the captions.

Spherical k-means (FAISS) over the selection half's region vectors, k swept and chosen by the simplified silhouette
with cosine distance: the silhouette of Rousseeuw (1987) with distances to centroids in place of mean distances to
members, linear in the number of regions. RaVL sweeps 2|Y| to 5|Y| (arXiv 2411.04097, section 3.1); the default here
is 10|Y| to 30|Y|, because a cue that is in one region of thirty in a tenth of the images is lost among few clusters,
while a cluster too many costs nothing: what is tested is chosen by evidence, and estimated on the other half.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.evidence.texts import text_embeddings
from pipeline.models.protocols import Floats, RegionEncoder
from pipeline.records import matrix, table

VERSION = 1
ITERATIONS = 25
MEMBER_QUANTILE = 0.1
"""A region belongs to a cluster's cue if it is as near the centroid as all but this share of the members."""
MOST_WORDS = 200
LEAST_MEMBERS = 10
"""No more clusters than give each this many regions on average."""


def cluster(
    images: pa.Table,
    captions: pa.Table,
    attributes: pa.Table,
    regions: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    encoder: RegionEncoder | None,
    cache: Path,
    count: Callable[[str, int], None],
    progress: Callable[[int, int], None],
) -> dict[str, pa.Table]:
    """`clusters` (medoid, words, centroid) and `assignments` (each region's cluster, with its cosine similarity)."""
    empty = {"clusters": table("clusters", []), "assignments": table("assignments", [])}
    if encoder is None or not audit.cluster.enabled or not len(regions):
        return empty
    vectors = matrix(regions["embedding"])
    image_ids = np.array(regions["image_id"].to_pylist(), dtype=object)
    chosen = set(images["image_id"].to_pylist())
    if not audit.no_split:
        splits = images["split"].to_pylist()
        chosen = {i for i, split in zip(images["image_id"].to_pylist(), splits, strict=True) if split == "selection"}
    selection = np.flatnonzero([i in chosen for i in image_ids])
    rng = np.random.default_rng([audit.seed, 11])
    if len(selection) > audit.cluster.sample:
        selection = np.sort(rng.choice(selection, audit.cluster.sample, replace=False))
    centred = centre(vectors, selection)
    ks = sweep(audit, len(classes), len(selection))
    if not ks:
        return empty
    fits = []
    for done, k in enumerate(ks):
        centroids = spherical_kmeans(centred[selection], k, audit.seed)
        fits.append((simplified_silhouette(centred[selection], centroids), centroids))
        progress(done + 1, len(ks))
    centroids = max(fits, key=lambda fit: fit[0])[1]
    similarity = centred @ centroids.T
    assigned = similarity.argmax(axis=1)
    near = similarity[np.arange(len(assigned)), assigned]
    words = Words(images, captions, attributes, audit, chosen, classes, encoder, cache, count)
    rows = []
    for number in range(len(centroids)):
        members = selection[assigned[selection] == number]
        if not len(members):
            continue
        medoid = members[near[members].argmax()]
        name, score = words.best(vectors[members].mean(axis=0), set(image_ids[members]))
        rows.append(
            {
                "cluster": number,
                "size": int((assigned == number).sum()),
                "images": len(set(image_ids[assigned == number])),
                "medoid": regions["region_id"][int(medoid)].as_py(),
                "name": name,
                "name_score": score,
                "threshold": float(np.quantile(near[members], MEMBER_QUANTILE)),
                "centroid": centroids[number],
            }
        )
    assignments = pa.table(
        {
            "region_id": regions["region_id"],
            "image_id": regions["image_id"],
            "cluster": assigned.astype(np.int64),
            "similarity": near.astype(np.float64),
        }
    )
    return {"clusters": table("clusters", rows), "assignments": assignments}


def centre(vectors: Floats, selection: NDArray[np.int64]) -> Floats:
    """Vectors less the selection half's mean, to unit length: CLIP vectors share a large common direction."""
    centred = vectors - vectors[selection].mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def sweep(audit: Audit, classes: int, regions: int) -> list[int]:
    """The values of k to try."""
    low = audit.cluster.k_min or 10 * classes
    high = audit.cluster.k_max or 30 * classes
    high = min(max(low, high), regions // LEAST_MEMBERS)
    if high < 2:
        return []
    low = min(max(low, 2), high)
    return sorted({int(k) for k in np.linspace(low, high, min(audit.cluster.sweep, high - low + 1)).round()})


def spherical_kmeans(vectors: Floats, k: int, seed: int) -> Floats:
    """Unit centroids (k, d) of unit vectors (n, d), every point used.

    Started by k-means++ (Arthur and Vassilvitskii 2007), which finds small far-off groups; a random start seldom does.
    """
    import faiss

    fit = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=ITERATIONS,
        spherical=True,
        seed=seed + 1,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,
        max_points_per_centroid=max(len(vectors), 1),
    )
    fit.train(np.ascontiguousarray(vectors))
    return np.asarray(fit.centroids, dtype=np.float32)


def simplified_silhouette(vectors: Floats, centroids: Floats) -> float:
    """Mean of (b - a) / max(a, b) with cosine distances a to the own and b to the next centroid, in [-1, 1]."""
    if len(centroids) < 2:
        return -1.0
    distance = 1 - np.partition(vectors @ centroids.T, -2, axis=1)[:, -2:]
    own, other = distance[:, 1], distance[:, 0]
    return float(np.mean((other - own) / np.maximum(other, 1e-12)))


class Words:
    """Names for clusters: words that the captions of a cluster's images use, judged by their text vectors too."""

    def __init__(
        self,
        images: pa.Table,
        captions: pa.Table,
        attributes: pa.Table,
        audit: Audit,
        chosen: set[str],
        classes: Sequence[str],
        encoder: RegionEncoder,
        cache: Path,
        count: Callable[[str, int], None],
    ) -> None:
        texts = dict(zip(captions["image_id"].to_pylist(), captions["caption"].to_pylist(), strict=True))
        self.texts = {image_id: text.lower() for image_id, text in texts.items() if image_id in chosen}
        phrases = {*attributes["phrase"].to_pylist(), *(audit.words(name) for name in classes)}
        common = Counter(word for text in self.texts.values() for word in set(re.findall(r"[a-z]{3,}", text)))
        phrases |= {word for word, seen in common.most_common(MOST_WORDS) if seen >= 3}
        self.phrases = sorted(phrases) if encoder.has_text else []
        self.vectors = (
            text_embeddings(encoder, self.phrases, cache, count) if self.phrases else np.zeros((0, 1), np.float32)
        )
        self.holds = {p: {i for i, text in self.texts.items() if p in text} for p in self.phrases}

    def best(self, vector: Floats, image_ids: set[str]) -> tuple[str, float]:
        """The best word for a mean vector and its images, and its cosine similarity; ("", nan) with no words."""
        if not self.phrases:
            return "", float("nan")
        similarity = self.vectors @ (vector / max(float(np.linalg.norm(vector)), 1e-12))
        lift = np.zeros(len(self.phrases))
        inside = image_ids & self.texts.keys()
        outside = self.texts.keys() - image_ids
        if inside and outside:
            for index, phrase in enumerate(self.phrases):
                here, there = len(self.holds[phrase] & inside), len(self.holds[phrase] & outside)
                lift[index] = np.log((here + 0.5) / (len(inside) + 1)) - np.log((there + 0.5) / (len(outside) + 1))
        order = standard(similarity) + 0.5 * standard(lift)
        index = int(order.argmax())
        return self.phrases[index], float(similarity[index])


def standard(values: NDArray) -> NDArray:
    """Zero mean and unit deviation; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
