"""detect: where each proposed thing, and each class's own object, is in each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.images import RGB
from pipeline.models.annotations import annotations_of, reads_annotations
from pipeline.models.protocols import Detector
from pipeline.records import SCHEMAS, THINGS

VERSION = 2


def phrases(audit: Audit, classes: Sequence[str], attributes: pa.Table) -> list[str]:
    """What the detector is asked for: the classes' own names and every proposed thing, sorted, each once."""
    things = {
        phrase
        for phrase, kind in zip(attributes["phrase"].to_pylist(), attributes["cue_type"].to_pylist(), strict=True)
        if kind in THINGS
    }
    return sorted(things | {audit.words(name) for name in classes})


def computation(attributes: pa.Table, *, audit: Audit, classes: Sequence[str], detector: Detector | None) -> tuple:
    """What a detection depends on beside the image: a text-guided detector's scores depend on the whole list."""
    return (VERSION, detector.fingerprint if detector else None, phrases(audit, classes, attributes))


def detect(
    images: pa.Table,
    attributes: pa.Table,
    annotations: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    detector: Detector | None,
    load: Callable[[pa.Table], list[RGB]],
) -> dict[str, pa.Table]:
    """One row a box; nothing where no detector is configured."""
    if detector is None:
        return {"detections": SCHEMAS["detections"].empty_table()}
    asked = phrases(audit, classes, attributes)
    shown: Any = annotations_of(images, annotations) if reads_annotations(detector) else load(images)
    rows: dict[str, list] = {"image_id": [], "phrase": [], "score": [], "box": []}
    for image_id, seen in zip(images["image_id"].to_pylist(), detector.detect(shown, asked), strict=True):
        order = np.lexsort((seen.boxes[:, 1], seen.boxes[:, 0], -seen.scores, seen.phrases))
        for index in order:
            rows["image_id"].append(image_id)
            rows["phrase"].append(asked[seen.phrases[index]])
            rows["score"].append(float(seen.scores[index]))
            rows["box"].append(seen.boxes[index].tolist())
    return {"detections": pa.table(rows, schema=SCHEMAS["detections"])}
