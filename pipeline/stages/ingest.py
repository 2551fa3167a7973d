"""ingest: the data source as a table of readable, labelled, distinct images, split once into two halves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.errors import UserError, nearest
from pipeline.images import RGB, UnreadableImage, content_id, decode
from pipeline.properties import measure as measure_properties
from pipeline.records import table

VERSION = 1


def ingest(*, audit: Audit, source: Any, progress: Callable[[int, int], None]) -> dict[str, pa.Table]:
    """Read every image once: identity by content, upright RGB, measured properties, near-duplicate group, half.

    Returns:
        `images`, in the order of the source, and `quarantine` with a reason a file. A picture found twice
        under one label is kept once; under two labels it is quarantined, for no label of it can be trusted.

    Raises:
        UserError: no image is left, or a class asked for has none.
    """
    rows: dict[str, dict[str, Any]] = {}
    twice: dict[str, set[str]] = {}
    quarantine: list[dict[str, str]] = []
    items = list(source)
    for done, item in enumerate(items):
        if audit.classes and item.label not in audit.classes:
            continue
        try:
            data = source.read(item.path)
            image = decode(data)
        except UnreadableImage as error:
            quarantine.append({"path": item.path, "reason": str(error)})
            continue
        except OSError as error:
            quarantine.append({"path": item.path, "reason": f"cannot be opened: {error.strerror or error}"})
            continue
        image_id = content_id(data)
        if image_id in rows:
            first = rows[image_id]
            if first["label"] == item.label:
                reason = f"the same picture as {first['path']}"
            else:
                twice.setdefault(image_id, {first["label"]}).add(item.label)
                reason = f"the same picture as {first['path']}, under another label"
            quarantine.append({"path": item.path, "reason": reason})
            continue
        group = difference_hash(image)
        rows[image_id] = {
            "image_id": image_id,
            "path": item.path,
            "label": item.label,
            "split": half(group, audit.seed),
            "group": group,
            "width": image.shape[1],
            "height": image.shape[0],
            **measure_properties(image),
        }
        progress(done + 1, len(items))
    for image_id, labels in twice.items():
        row = rows.pop(image_id)
        quarantine.append(
            {"path": row["path"], "reason": f"the same picture under the labels {', '.join(sorted(labels))}"}
        )
    images = table("images", list(rows.values()))
    _check_classes(audit, images, {item.label for item in items}, len(quarantine))
    return {"images": images, "quarantine": table("quarantine", quarantine)}


def difference_hash(image: RGB) -> str:
    """A 128-bit difference hash (rows and columns of an 8 x 8 reduction): equal for re-encoded or resized copies."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    across = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    down = cv2.resize(grey, (8, 9), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.concatenate([(np.diff(across, axis=1) > 2).ravel(), (np.diff(down, axis=0) > 2).ravel()])
    if not bits.any():  # a flat picture says nothing about likeness: its own pixels are its group
        return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
    return np.packbits(bits).tobytes().hex()


def half(group: str, seed: int) -> str:
    """Selection or estimation, by hash: the same for every copy, whatever else is in the data set."""
    digest = hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=1).digest()
    return "selection" if digest[0] < 128 else "estimation"


def _check_classes(audit: Audit, images: pa.Table, found: set[str], quarantined: int) -> None:
    counts = Counter(images["label"].to_pylist())
    for name in audit.classes:
        if not counts[name]:
            hint = f"All its files were quarantined ({quarantined} in all)." if name in found else nearest(name, found)
            raise UserError(f"data: the class '{name}' has no images. {hint}")
    if not counts:
        raise UserError(f"data: no image could be read; {quarantined} files were quarantined.")
    if len(counts) < 2:
        only = next(iter(counts))
        raise UserError(f"data: there is only one class, '{only}'. A cue of a class shows against other classes.")
