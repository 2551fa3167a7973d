"""caption: each image in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.errors import BudgetReached
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
    postpone: Callable[[Iterable[str]], None],
) -> dict[str, pa.Table]:
    """One caption an image, reported as skipped where it is empty; none where no captioner is configured, or where the
    data have to give it and don't. Images that a budget didn't reach are reported, and left for a later run."""
    if captioner is None:
        return {"captions": SCHEMAS["captions"].empty_table()}
    shown: Any = annotations_of(images, annotations) if reads_annotations(captioner) else load(images)
    ids: list[str] = images["image_id"].to_pylist()
    said: list[str | None]
    try:
        said = list(captioner.captions(shown))
    except BudgetReached as reached:
        said = reached.done or [None] * len(ids)
        left = [image_id for image_id, text in zip(ids, said, strict=True) if text is None]
        postpone(left)
        skip(
            f"captions of {_some(left)}",
            f"{reached}; raise 'caption.budget' and run the same command again to have them",
        )
    texts = pa.array(said, pa.string())
    empty = images["image_id"].filter(pa.compute.equal(texts, "")).to_pylist()
    if empty:
        skip(f"captions of {_some(empty)}", "the captioner said nothing")
    captions = pa.table({"image_id": images["image_id"], "caption": texts}, schema=SCHEMAS["captions"])
    return {"captions": captions.filter(texts.is_valid())}


def _some(image_ids: list[str]) -> str:
    """How many images, and the first of them."""
    return f"{len(image_ids)} images ({', '.join(image_ids[:3])}{', ...' if len(image_ids) > 3 else ''})"
