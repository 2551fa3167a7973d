"""The methods side by side: each ranks candidate cues of one audited set, on the same regions, embeddings, answers.

Every method gives one ranking over all classes, the most suspicious first; a candidate has a class where the method
names one, and its regions, the surest first. They are our own, from the papers, at the papers' settings:

- random: clusters in random order, regions in random order;
- ravl: clusters by RaVL's rule, influence cut, sign filter and weighted gap (arXiv 2411.04097, section 3.1);
- spurlens: attributes by the larger of the PA and HR gap of top and bottom K (arXiv 2503.08884, section 4);
- b2t: caption keywords by CLIP score on wrong less right images of a class (arXiv 2301.11104, section 3);
- domino: error-aware mixture slices over the regions (arXiv 2203.14960), each region with its image's label;
- cuescope without ablation, cuescope: the product's own findings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.evidence.boxes import BoxFinder
from pipeline.evidence.texts import text_embeddings
from pipeline.geometry import as_boxes
from pipeline.metrics import b2t, domino, ravl, spurlens
from pipeline.models.caption_mining import phrases
from pipeline.models.protocols import RegionEncoder
from pipeline.places import Place
from pipeline.records import matrix
from pipeline.stages.cluster import far_apart, spherical_kmeans
from pipeline.store import AuditFolder

SHOWN = 10
"""Regions of a candidate that are judged: RaVL's Precision@10."""
DEEPEST = 10
"""Candidates of a ranking that are kept."""
WHOLE = (0.0, 0.0, 1.0, 1.0)
PROMPT = "a photo of a {}"
MOST_KEYWORDS = 20
"""B2T takes the 20 keywords of the wrong images that a keyword extractor ranks first; here the most frequent."""

Region = tuple[int, tuple[float, ...]]  # image's row, box
Fit = Callable[[NDArray[np.float32], int, int], NDArray[np.float32]]
"""Vectors, k and a seed to k representatives."""


@dataclass(frozen=True)
class Candidate:
    """A suspected cue: the class it is said to be spurious for, or None; what it is called; where it is seen."""

    label: str | None
    name: str
    regions: list[Region] = field(repr=False)
    cue_id: str = ""


@dataclass(frozen=True)
class Evidence:
    """What all methods share, read from an audit's folder."""

    folder: AuditFolder
    audit: Audit
    encoder: RegionEncoder
    cache: Place
    seed: int

    @cached_property
    def classes(self) -> list[str]:
        """Class names in order."""
        return list(self.folder.run()["classes"])

    @cached_property
    def ids(self) -> list[str]:
        """Image ids; a row number of any method is a place in this list."""
        return list(self.folder.read("images")["image_id"].to_pylist())

    @cached_property
    def row(self) -> dict[str, int]:
        """Image id to row."""
        return {image_id: number for number, image_id in enumerate(self.ids)}

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(n,) class indices."""
        return np.array([self.classes.index(label) for label in self.folder.read("images")["label"].to_pylist()])

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) class indices."""
        return np.array([self.classes.index(p) for p in self.folder.read("predictions")["predicted"].to_pylist()])

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(n, classes) probabilities."""
        return matrix(self.folder.read("predictions")["scores"]).astype(np.float64)

    @cached_property
    def regions(self) -> Any:
        """The table `regions`."""
        return self.folder.read("regions")

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """(m,) the image's row of each region."""
        return np.array([self.row[i] for i in self.regions["image_id"].to_pylist()])

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """(m, 4)."""
        return as_boxes(self.regions["box"].to_pylist())

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(m, d) unit vectors of the regions."""
        return matrix(self.regions["embedding"])

    @cached_property
    def image_vectors(self) -> NDArray[np.float32]:
        """(n, d) unit vectors of the images."""
        table = self.folder.read("embeddings")
        found = dict(zip(table["image_id"].to_pylist(), matrix(table["embedding"]), strict=True))
        return np.stack([found[i] for i in self.ids])

    def words(self, texts: list[str]) -> NDArray[np.float32]:
        """(t, d) unit vectors of texts."""
        return text_embeddings(self.encoder, texts, self.cache, lambda what, n: None)

    def at(self, numbers: NDArray[np.int64]) -> list[Region]:
        """Regions by their numbers, the first SHOWN."""
        return [(int(self.owner[n]), tuple(self.boxes[n].tolist())) for n in numbers[:SHOWN]]


def random(e: Evidence) -> list[Candidate]:
    """Regions in random order, as RaVL's baseline of that name."""
    rng = np.random.default_rng([e.seed, 41])
    return [Candidate(None, f"random {k}", e.at(rng.permutation(len(e.owner)))) for k in range(DEEPEST)]


def k_means(vectors: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    """(k, d): the pipeline's own centroids."""
    return spherical_kmeans(vectors, [far_apart(vectors, k, seed)])[0]


_CLUSTERED: dict[str, NDArray[np.int64]] = {}
"""The last audited set's: settings that share their pictures come one after another and differ in the model alone."""


def _ravl_clusters(e: Evidence, fit: Fit, most: int | None) -> NDArray[np.int64]:
    """(m,) the cluster of each region."""
    regions = hashlib.blake2b(e.vectors.tobytes(), digest_size=16).hexdigest()
    key = f"{e.seed} {len(e.classes)} {regions} {fit.__name__} {most}"
    if key not in _CLUSTERED:
        order = np.random.default_rng([e.seed, 43]).permutation(len(e.owner))
        seen = e.vectors if most is None else e.vectors[np.sort(order[:most])]
        fits = []
        for k in ravl.cluster_counts(len(e.classes)):
            representatives = fit(seen, k, e.seed)
            fits.append((e.vectors @ representatives.T).argmax(axis=1))
        sample = order[:2000]
        best = ravl.best_clustering(e.vectors[sample], [one[sample] for one in fits])
        _CLUSTERED.clear()
        _CLUSTERED[key] = fits[best]
    return _CLUSTERED[key]


def ravl_ranking(e: Evidence, fit: Fit = k_means, most: int | None = None) -> list[Candidate]:
    """Spherical k-means with RaVL's k (2|Y| to 5|Y| - 1 by the silhouette), its influence cut, filter and gap.

    K-medoids with a cosine distance and spherical k-means minimise the same cosine distances to one representative;
    the regions of a cluster are ranked by similarity to its medoid, as in the paper.

    Args:
        fit: another clustering. most: regions that it sees, chosen by chance; by default all.
    """
    clusters = _ravl_clusters(e, fit, most)
    n = int(clusters.max()) + 1
    scores = e.vectors @ e.words([PROMPT.format(name) for name in e.classes]).T
    counts = ravl.memberships(clusters, e.owner, e.labels, e.predicted, n, len(e.classes))
    gap = ravl.performance_gap(counts.n_in, counts.correct_in, counts.n_out, counts.correct_out)
    influence = ravl.influence(clusters, e.owner, scores, e.labels, e.predicted, gap.by_label)
    ranking = []
    for cluster in ravl.select(gap, influence)[:DEEPEST]:
        members = np.flatnonzero(clusters == cluster)
        near = e.vectors[members] @ e.vectors[members].sum(axis=0)
        medoid = int(members[near.argmax()])
        order = ravl.rank_regions(e.vectors, clusters, int(cluster), medoid)
        label = ravl.correlated_label(counts, int(cluster))
        ranking.append(Candidate(e.classes[label] if label >= 0 else None, f"cluster {cluster}", e.at(order)))
    return ranking


def spurlens_ranking(e: Evidence) -> list[Candidate]:
    """Named cues by the larger gap of the K images that show them most and least, over all images; K of the audit.

    A classifier's "yes" is its prediction: PA is accuracy on the class's images, HR the share of others taken for it.
    """
    cues = e.folder.read("cues").to_pylist()
    scores = _presence(e, len(cues))
    named = [n for n, row in enumerate(cues) if row["kind"] == "named" and row["source"] != "measured"]
    if not named:
        return []
    finite = np.nan_to_num(scores[:, named], neginf=-1.0, nan=-1.0)
    rng = np.random.default_rng([e.seed, 47])
    pa, hr = spurlens.top_k_gaps(finite, e.labels, e.predicted, len(e.classes), rng, e.audit.measure.top_k)
    gap = np.fmax(np.nan_to_num(pa, nan=-1.0), np.nan_to_num(hr, nan=-1.0))
    order = np.argsort(-gap, axis=None, kind="stable")[:DEEPEST]
    places = CuePlaces(e)
    ranking = []
    for c, k in zip(*np.unravel_index(order, gap.shape), strict=True):
        row = cues[named[k]]
        ranking.append(Candidate(e.classes[c], row["name"], places.of(row["cue_id"]), row["cue_id"]))
    return ranking


def b2t_ranking(e: Evidence) -> list[Candidate]:
    """Keywords of each class's wrongly predicted images by CLIP score; a keyword's regions are those most like it."""
    captions = dict(zip(*(e.folder.read("captions")[c].to_pylist() for c in ("image_id", "caption")), strict=True))
    wrong = e.labels != e.predicted
    found: list[tuple[float, str, str]] = []
    for c, label in enumerate(e.classes):
        mine = np.flatnonzero(e.labels == c)
        seen: dict[str, int] = {}
        for number in mine[wrong[mine]]:
            for phrase, _ in phrases(captions.get(e.ids[number], ""), e.audit.words(label)):
                seen[phrase] = seen.get(phrase, 0) + 1
        keywords = sorted(seen, key=lambda phrase: (-seen[phrase], phrase))[:MOST_KEYWORDS]
        if keywords:
            values = b2t.clip_score(e.image_vectors[mine], e.words(keywords), wrong[mine])
            found += [(float(v), label, k) for v, k in zip(values, keywords, strict=True) if not np.isnan(v)]
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    ranking = []
    for _, label, keyword in found[:DEEPEST]:
        near = e.vectors @ e.words([keyword])[0]
        ranking.append(Candidate(label, keyword, e.at(np.argsort(-near, kind="stable"))))
    return ranking


def domino_ranking(e: Evidence) -> list[Candidate]:
    """Mixture slices of the regions, each with its image's label and probabilities, the largest error first."""
    rng = np.random.default_rng([e.seed, 53])
    slices = domino.find_slices(
        e.vectors, e.labels[e.owner], e.scores[e.owner], rng, n_slices=DEEPEST, n_dimensions=min(128, len(e.owner))
    )
    order = np.argsort(-slices.membership, axis=0, kind="stable")
    return [
        Candidate(e.classes[int(slices.prediction_shares[k].argmax())], f"slice {k}", e.at(order[:, k]))
        for k in range(slices.membership.shape[1])
    ]


def findings_ranking(e: Evidence, findings: Sequence[dict[str, Any]]) -> list[Candidate]:
    """Cuescope's findings, in the order given, with their places."""
    places = CuePlaces(e)
    return [Candidate(row["class"], row["cue"], places.of(row["cue_id"]), row["cue_id"]) for row in findings]


class CuePlaces:
    """Where the cues of an audit are seen, the surest images first."""

    def __init__(self, e: Evidence) -> None:
        self._e = e
        cues = e.folder.read("cues").to_pylist()
        self._column = {row["cue_id"]: number for number, row in enumerate(cues)}
        self._scores = _presence(e, len(cues))
        tables = (e.folder.read(name) for name in ("detections", "regions", "assignments"))
        self._boxes = BoxFinder(cues, *tables)

    def of(self, cue_id: str) -> list[Region]:
        """A cue's best box in each of the images that show it most; the whole image for one without boxes."""
        column = self._scores[:, self._column[cue_id]]
        order = np.argsort(-np.nan_to_num(column, nan=-np.inf), kind="stable")[:SHOWN]
        found = []
        for number in order:
            boxes = self._boxes.cue(self._e.ids[number], cue_id)
            found.append((int(number), tuple(boxes[0].tolist()) if len(boxes) else WHOLE))
        return found


def _presence(e: Evidence, n_cues: int) -> NDArray[np.float64]:
    table = e.folder.read("presence")
    return np.asarray(table["score"].to_numpy(), dtype=np.float64).reshape(-1, n_cues)


PUBLISHED: dict[str, Callable[[Evidence], list[Candidate]]] = {
    "random": random,
    "ravl": ravl_ranking,
    "spurlens": spurlens_ranking,
    "b2t": b2t_ranking,
    "domino": domino_ranking,
}
