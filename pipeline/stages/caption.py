"""caption: each image in words."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from pipeline.images import RGB
from pipeline.models.protocols import Captioner, Spent
from pipeline.records import SCHEMAS

VERSION = 1


def computation(*, captioner: Captioner | None) -> tuple:
    """What a caption depends on beside the image."""
    return (VERSION, captioner.fingerprint if captioner else None)


def caption(
    images: pa.Table,
    *,
    captioner: Captioner | None,
    load: Callable[[pa.Table], list[RGB]],
    count: Callable[[str, int], None],
    skip: Callable[[str, str], None],
) -> dict[str, pa.Table]:
    """One caption an image, reported as skipped where it is empty; none where no captioner is configured."""
    if captioner is None:
        return {"captions": SCHEMAS["captions"].empty_table()}
    before = getattr(captioner, "spent", Spent())
    texts = captioner.captions(load(images))
    after = getattr(captioner, "spent", Spent())
    count("calls", after.calls - before.calls)
    count("tokens", after.tokens - before.tokens)
    empty = [image_id for image_id, text in zip(images["image_id"].to_pylist(), texts, strict=True) if not text]
    if empty:
        first = ", ".join(empty[:3])
        skip(
            f"captions of {len(empty)} images ({first}{', ...' if len(empty) > 3 else ''})",
            "the captioner said nothing",
        )
    return {"captions": pa.table({"image_id": images["image_id"], "caption": texts}, schema=SCHEMAS["captions"])}
