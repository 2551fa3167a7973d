"""Where a cue is in an image, and where the class's own object is."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa

from pipeline.geometry import Boxes, as_boxes, iou, join, suppress

BETTER = 1.5
"""A box that another phrase explains this much better (by the ratio of scores) is that phrase's, not this one's."""
OBJECT_SCORE = 0.25
"""A detection of the class's own name at least this sure is the object."""
MOST_BOXES = 6


def undisputed(detections: pa.Table) -> pa.Table:
    """The detections less those that another phrase explains much better: a detector sees some of everything in
    everything, and its labels don't compete. Two names of one thing score alike and both stay.
    """
    images = detections["image_id"].to_pylist()
    if not images:
        return detections
    phrases = np.array(detections["phrase"].to_pylist(), dtype=object)
    scores = detections["score"].to_numpy().astype(np.float64)
    boxes = as_boxes(detections["box"].to_pylist())
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image_id in enumerate(images):
        rows[image_id].append(row)
    keep = np.ones(len(images), dtype=bool)
    for mine in rows.values():
        other = phrases[mine][:, None] != phrases[mine][None, :]
        better = scores[mine][None, :] >= BETTER * scores[mine][:, None]
        keep[mine] = ~((iou(boxes[mine], boxes[mine]) >= 0.5) & other & better).any(axis=1)
    return detections.filter(pa.array(keep))


def has_boxes(cue_id: str) -> bool:
    """Whether a cue is a matter of boxes, not of the whole image."""
    return cue_id.partition(":")[0] in ("thing", "cluster")


class BoxFinder:
    """Boxes by image, from the tables `detections`, `regions` and `assignments`."""

    def __init__(self, cues: list[dict], detections: pa.Table, regions: pa.Table, assignments: pa.Table) -> None:
        detections = undisputed(detections)
        self.has_detector = len(detections) > 0
        self._thresholds = {row["cue_id"]: row["threshold"] for row in cues}
        self._seen: dict[tuple[str, str], list[tuple[float, list[float]]]] = defaultdict(list)
        columns = (detections[name].to_pylist() for name in ("image_id", "phrase", "score", "box"))
        for image_id, phrase, score, box in zip(*columns, strict=True):
            self._seen[image_id, phrase].append((score, box))
        self._clustered: dict[tuple[str, int], list[tuple[float, list[float]]]] = defaultdict(list)
        if len(assignments):
            boxes = dict(zip(regions["region_id"].to_pylist(), regions["box"].to_pylist(), strict=True))
            columns = (assignments[name].to_pylist() for name in ("region_id", "image_id", "cluster", "similarity"))
            for region_id, image_id, cluster, similarity in zip(*columns, strict=True):
                self._clustered[image_id, cluster].append((similarity, boxes[region_id]))

    def cue(self, image_id: str, cue_id: str) -> Boxes:
        """The boxes (n, 4) of a cue that has any, best first; none for a cue of the whole image."""
        kind, _, name = cue_id.partition(":")
        if kind == "thing":
            found, overlap = self._seen.get((image_id, name), []), 0.5
        elif kind == "cluster":
            # grid cells cut what is larger than they are: a frame's side is one place, not four
            return join(_best(self._clustered.get((image_id, int(name)), []), self._thresholds[cue_id], 0.3))
        else:
            return as_boxes([])
        return _best(found, self._thresholds[cue_id], overlap)

    def object(self, image_id: str, words: str) -> Boxes:
        """The boxes (n, 4) of the class's own object, named by its words."""
        return _best(self._seen.get((image_id, words), []), OBJECT_SCORE, 0.5)


def _best(found: list[tuple[float, list[float]]], threshold: float, overlap: float) -> Boxes:
    sure = [(score, box) for score, box in found if score >= threshold]
    if not sure:
        return as_boxes([])
    boxes = as_boxes([box for _, box in sure])
    return boxes[suppress(boxes, np.array([score for score, _ in sure]), overlap)[:MOST_BOXES]]
