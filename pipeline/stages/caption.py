"""caption: each image in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.images import RGB
from pipeline.models.annotations import annotations_of, reads_annotations
from pipeline.models.protocols import Captioner
from pipeline.records import SCHEMAS

VERSION = 1


def computation(*, captioner: Captioner | None) -> tuple:
    """What a caption depends on beside the image."""
    return (VERSION, captioner.fingerprint if captioner else None)


def caption(
    images: pa.Table,
    annotations: pa.Table,
    *,
    captioner: Captioner | None,
    load: Callable[[pa.Table], list[RGB]],
    skip: Callable[[str, str], None],
) -> dict[str, pa.Table]:
    """One caption an image, reported as skipped where it is empty; none where no captioner is configured, or where the
    data have to give it and don't."""
    if captioner is None:
        return {"captions": SCHEMAS["captions"].empty_table()}
    shown: Any = annotations_of(images, annotations) if reads_annotations(captioner) else load(images)
    texts = pa.array(captioner.captions(shown), pa.string())
    empty = images["image_id"].filter(pa.compute.equal(texts, "")).to_pylist()
    if empty:
        first = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
        skip(f"captions of {len(empty)} images ({first})", "the captioner said nothing")
    captions = pa.table({"image_id": images["image_id"], "caption": texts}, schema=SCHEMAS["captions"])
    return {"captions": captions.filter(texts.is_valid())}
