"""Where a cue is in an image, and where the class's own object is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import cachetools
import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from pipeline.geometry import Boxes, area, as_boxes, join, suppress
from pipeline.records import box_array
from pipeline.store import Parts, batches, length

BETTER = 1.5
"""A box that another phrase explains this much better (by the ratio of scores) is that phrase's, not this one's."""
OBJECT_SCORE = 0.25
"""A detection of the class's own name at least this sure is the object."""
MOST_BOXES = 6
REMEMBERED = 10_000
"""Answers of a BoxFinder that are kept: experiments ask for the same boxes again and again."""
PAIRS = 1 << 20
"""Pairs of detections that are held against each other at a time."""


def undisputed(detections: pa.Table) -> pa.Table:
    """The detections less those that another phrase explains much better: a detector sees some of everything in
    everything, and its labels don't compete. Two names of one thing score alike and both stay.
    """
    if not len(detections):
        return detections
    image, phrase = (_codes(detections[name]) for name in ("image_id", "phrase"))
    scores = detections["score"].to_numpy().astype(np.float64)
    boxes = as_boxes(box_array(detections["box"]))
    order = np.argsort(image, kind="stable")
    ends = np.cumsum(np.bincount(image))
    keep = np.ones(len(image), dtype=bool)
    for a, b in _pairs(order, np.concatenate([[0], ends[:-1]]), ends):
        rival = (phrase[a] != phrase[b]) & (scores[b] >= BETTER * scores[a])
        a, b = a[rival], b[rival]
        low, high = np.maximum(boxes[a, :2], boxes[b, :2]), np.minimum(boxes[a, 2:], boxes[b, 2:])
        common = np.prod(np.maximum(high - low, 0.0), axis=1)
        union = area(boxes[a]) + area(boxes[b]) - common
        keep[a[np.divide(common, union, out=np.zeros_like(common), where=union > 0) >= 0.5]] = False
    return detections.filter(pa.array(keep))


def has_boxes(cue_id: str) -> bool:
    """Whether a cue is a matter of boxes, not of the whole image."""
    return cue_id.partition(":")[0] in ("thing", "cluster")


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number (n,) for each text of a column, equal for equal ones."""
    return column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _pairs(
    order: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of rows of each image, some images at a time; an image's rows are order[start:end]."""
    sizes = ends - starts
    block = np.cumsum(sizes**2) // PAIRS
    for number in np.unique(block):
        mine = np.flatnonzero(block == number)
        each = np.repeat(mine, sizes[mine])  # the image of each row
        first = np.repeat(np.arange(starts[mine[0]], ends[mine[-1]]), sizes[each])
        within = np.arange(len(first)) - np.repeat(np.cumsum(sizes[each]) - sizes[each], sizes[each])
        yield order[first], order[np.repeat(starts[each], sizes[each]) + within]


def of_images(rows: Parts, columns: Sequence[str], ids: Collection[str] | None) -> Iterator[pa.Table]:
    """These columns of a table part by part, the rows of these images alone (None: of all)."""
    wanted = None if ids is None else pa.array(sorted(ids), pa.string())
    for part in batches(rows, columns):
        yield part if wanted is None else part.filter(pa.compute.is_in(part["image_id"], value_set=wanted))


class BoxFinder:
    """Boxes of these cues by image, from the tables `detections`, `regions` and `assignments`: of some images or all.

    What it holds grows with the images that it is asked for, not with the audit's.
    """

    def __init__(
        self,
        cues: list[dict],
        detections: Parts,
        regions: Parts,
        assignments: Parts,
        ids: Collection[str] | None = None,
    ) -> None:
        self.has_detector = length(detections) > 0
        self._thresholds = {row["cue_id"]: row["threshold"] for row in cues}
        self._seen, self._clustered = _Groups(), _Groups()
        clusters = [int(name) for row in cues for kind, _, name in [row["cue_id"].partition(":")] if kind == "cluster"]
        asked = pa.array(clusters, pa.int64())
        for part in of_images(detections, ("image_id", "phrase", "score", "box"), ids):
            part = undisputed(part)
            self._seen.add(part["image_id"], part["phrase"], part["score"], box_array(part["box"]))
        # of equal parts: assignments are written as regions are read
        for part, places in zip(
            of_images(assignments, ("region_id", "image_id", "cluster", "similarity"), ids),
            of_images(regions, ("region_id", "image_id", "box"), ids) if length(assignments) else [None],
            strict=True,
        ):
            part = part.filter(pa.compute.is_in(part["cluster"], value_set=asked))
            if places is not None and len(part):
                row = pa.compute.index_in(part["region_id"], value_set=places["region_id"].combine_chunks()).to_numpy()
                boxes = box_array(places["box"])[row]
                self._clustered.add(part["image_id"], part["cluster"], part["similarity"], boxes)

        # not caches of bound methods: they would hold the finder, which then outlives who made it
        self._cues: cachetools.LRUCache = cachetools.LRUCache(REMEMBERED)
        self._objects: cachetools.LRUCache = cachetools.LRUCache(REMEMBERED)

    def cue(self, image_id: str, cue_id: str) -> Boxes:
        """The boxes (n, 4) of a cue that has any, best first; none for a cue of the whole image."""
        return _remembered(self._cues, self._cue, image_id, cue_id)

    def _cue(self, image_id: str, cue_id: str) -> Boxes:
        kind, _, name = cue_id.partition(":")
        if kind == "thing":
            return _best(*self._seen.of(image_id, name), self._thresholds[cue_id], 0.5)
        if kind == "cluster":
            # grid cells cut what is larger than they are: a frame's side is one place, not four
            return join(_best(*self._clustered.of(image_id, int(name)), self._thresholds[cue_id], 0.3))
        return as_boxes([])

    def object(self, image_id: str, words: str) -> Boxes:
        """The boxes (n, 4) of the class's own object, named by its words."""
        return _remembered(self._objects, self._object, image_id, words)

    def _object(self, image_id: str, words: str) -> Boxes:
        return _best(*self._seen.of(image_id, words), OBJECT_SCORE, 0.5)

    def things(self, image_id: str) -> Boxes:
        """The boxes (n, 4) of whatever a detector is sure of in the picture."""
        scores, boxes = self._seen.of(image_id)
        return as_boxes(boxes[scores >= OBJECT_SCORE])


def _remembered(cache: cachetools.LRUCache, find: Callable[[str, str], Boxes], image_id: str, name: str) -> Boxes:
    found = cache.get((image_id, name))
    if found is None:
        found = cache[image_id, name] = find(image_id, name)
    return found


class _Groups:
    """Scores (n,) and boxes (n, 4) by image and by a second name, found by bisection; equals in the order added."""

    def __init__(self) -> None:
        self._images: dict[str, int] = {}
        self._names: dict[Any, int] = {}
        self._columns: tuple[list[NDArray], ...] = ([], [], [], [])  # image, name, score, box: a piece a part

    def add(self, image: pa.ChunkedArray, name: pa.ChunkedArray, score: pa.ChunkedArray, boxes: Boxes) -> None:
        """More rows."""
        codes = (_numbered(image, self._images), _numbered(name, self._names))
        added = (*codes, score.to_numpy().astype(np.float64), boxes)
        for pieces, values in zip(self._columns, added, strict=True):
            pieces.append(values)

    @functools.cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], Boxes]:
        """Keys, places in the order added, scores and boxes, by key."""
        if not self._columns[0]:
            return np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0), as_boxes([])
        key = _taken(self._columns[0]).astype(np.int64)
        key *= len(self._names)
        key += _taken(self._columns[1])
        order = np.argsort(key, kind="stable").astype(np.int32)
        return key[order], order, _taken(self._columns[2])[order], _taken(self._columns[3])[order]

    def of(self, image_id: str, name: object = None) -> tuple[NDArray[np.float64], Boxes]:
        """Those of an image and a name; of all names, in the order added, if none is given."""
        key, place, score, boxes = self._sorted
        image, names = self._images.get(image_id, -1), len(self._names)
        number = 0 if name is None else self._names.get(name, -1)
        if image < 0 or number < 0:
            return np.zeros(0), as_boxes([])
        first = image * names + number
        rows = slice(*np.searchsorted(key, [first, first + (names if name is None else 1)]))
        if name is not None:
            return score[rows], boxes[rows]
        order = np.argsort(place[rows])
        return score[rows][order], boxes[rows][order]


def _taken(pieces: list[NDArray]) -> NDArray:
    """All of a column, whose pieces are let go of."""
    column = np.concatenate(pieces)
    pieces.clear()
    return column


def _numbered(column: pa.ChunkedArray, known: dict[Any, int]) -> NDArray[np.int32]:
    """The number of each value; new values are numbered on."""
    encoded = column.combine_chunks().dictionary_encode()
    numbers = [known.setdefault(value, len(known)) for value in encoded.dictionary.to_pylist()]
    return np.array(numbers, dtype=np.int32)[encoded.indices.to_numpy()]


def _best(scores: NDArray[np.float64], boxes: Boxes, threshold: float, overlap: float) -> Boxes:
    sure = scores >= threshold
    if not sure.any():
        return as_boxes([])
    boxes, scores = as_boxes(boxes[sure]), scores[sure]
    return boxes[suppress(boxes, scores, overlap)[:MOST_BOXES]]
