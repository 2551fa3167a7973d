"""Where a colour that is known in words only is seen, and whose it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.evidence.boxes import BoxFinder
from pipeline.evidence.presence import Cues
from pipeline.records import SCHEMAS
from pipeline.stages.measure import ColoredRegions, colored_regions, object_overlap

AUDIT = Audit.from_dict({"data": {"path": "x"}, "model": {"kind": "python", "factory": "tests.fakes:patch_lover"}})
OBJECT = [0.1, 0.1, 0.5, 0.5]
CELLS = [[0.1, 0.1, 0.4, 0.4], [0.2, 0.2, 0.5, 0.5], [0.15, 0.15, 0.5, 0.5],
         [0.6, 0.6, 0.9, 0.9], [0.6, 0.1, 0.9, 0.4], [0.1, 0.6, 0.4, 0.9]]  # fmt: skip
N = 8


class Words:
    """A text encoder that knows one colour."""

    fingerprint = "words"

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32)


def overlap_of(fits: list[float], tmp_path: Path, cue_type: str = "Colorization") -> float:
    """The share of "green color" in the object, its likeness being `fits` in the six regions of every image."""
    ids = [f"i{n}" for n in range(N)]
    rows = {"cue_id": "whole:green color", "name": "green color", "kind": "named", "cue_type": cue_type,
            "operator": "geometry: insertion by green tint 0.3", "threshold": 0.0}  # fmt: skip
    cues = Cues([rows], ids, np.ones((N, 1)), np.ones((N, 1), dtype=bool))
    vectors = [np.array([f, (1 - f * f) ** 0.5], dtype=np.float32) for f in fits]
    regions = pa.table(
        {
            "region_id": [f"{i}-{k}" for i in ids for k in range(6)],
            "image_id": [i for i in ids for _ in range(6)],
            "source": ["grid 3"] * (6 * N),
            "box": CELLS * N,
            "embedding": vectors * N,
        },
        schema=SCHEMAS["regions"],
    )
    detections = pa.table(
        {"image_id": ids, "phrase": ["cactus"] * N, "score": [0.9] * N, "box": [OBJECT] * N},
        schema=SCHEMAS["detections"],
    )
    boxes = BoxFinder([rows], detections, regions, SCHEMAS["assignments"].empty_table())
    colored = colored_regions(cues, regions, Words(), tmp_path, lambda what, n: None, ids)
    found = object_overlap(ids, np.arange(N), cues, boxes, colored, AUDIT, np.zeros(N, dtype=np.int64), ["cactus"])
    return float(found[0, 0])


def test_a_colour_that_is_seen_in_the_object_is_its_own(tmp_path: Path) -> None:
    assert overlap_of([0.9, 0.8, 0.85, 0.1, 0.2, 0.1], tmp_path) > AUDIT.rank.core_overlap


def test_a_colour_of_what_lies_around_it_is_not(tmp_path: Path) -> None:
    assert overlap_of([0.1, 0.2, 0.1, 0.9, 0.8, 0.85], tmp_path) == 0


def test_of_other_cues_without_boxes_nothing_is_said(tmp_path: Path) -> None:
    assert np.isnan(overlap_of([0.9, 0.8, 0.85, 0.1, 0.2, 0.1], tmp_path, "Lighting and Shadows"))


def test_an_image_with_fewer_regions_has_no_empty_boxes() -> None:
    boxes = np.zeros((1, 2, 3, 4), np.float32)
    boxes[0, 0, 0] = [0.0, 0.0, 0.5, 0.5]
    colored = ColoredRegions([7], {"a": 0, "b": 1}, boxes)
    assert [len(colored.of(7, image_id)) for image_id in ("a", "b", "unknown")] == [1, 0, 0]
