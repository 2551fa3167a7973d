"""embed: regions of each image, and the whole of it, as vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pipeline.geometry import Boxes, area, as_boxes, borders, grid, suppress
from pipeline.images import RGB
from pipeline.models.protocols import RegionEncoder
from pipeline.places import Place
from pipeline.records import SCHEMAS, box_column, places, vectors
from pipeline.store import Shelf, key_of

VERSION = 3
LEAST_SCORE = 0.2
"""A detection below this is no region: it would be one more random box."""
MOST_DETECTIONS = 8
GRID = (2, 3, 4)
BORDER = 1 / 8
"""Class-agnostic regions: cells of these grids, for cues that no detector has a word for; and strips along the four
sides, for bars and frames, which no cell fits."""
CELLS = [*grid(GRID).tolist(), *borders(BORDER).tolist()]
CELL_NAMES = [f"grid {n}" for n in GRID for _ in range(n * n)] + ["border"] * 4


def computation(*, encoder: RegionEncoder | None, detect_computation: tuple) -> tuple:
    """What the regions depend on beside the image: the encoder, and the detector's boxes."""
    return (
        VERSION,
        encoder.fingerprint if encoder else None,
        LEAST_SCORE,
        MOST_DETECTIONS,
        list(GRID),
        BORDER,
        list(detect_computation),
    )


def embed(
    images: pa.Table,
    detections: pa.Table,
    *,
    encoder: RegionEncoder | None,
    load: Callable[[pa.Table], list[RGB]],
    cache: Place,
) -> dict[str, pa.Table]:
    """`regions` (detected boxes, grid cells and border strips, with unit vectors) and `embeddings` (one an image).

    The whole image and its cells are kept apart from the detections, which change with the phrases that are asked for.
    """
    if encoder is None:
        return {name: SCHEMAS[name].empty_table() for name in ("regions", "embeddings")}
    ids = images["image_id"].to_pylist()
    pictures = load(images)
    fixed = (VERSION, encoder.fingerprint, list(GRID), BORDER)
    cells, whole = (Shelf(cache, "embed", name, "image_id", ("cells", *fixed)) for name in ("regions", "embeddings"))
    known = cells.known(ids) & whole.known(ids)
    new = [number for number, image_id in enumerate(ids) if image_id not in known]
    if new:
        fresh, shown = [ids[number] for number in new], [pictures[number] for number in new]
        cells.add(fresh, _embedded(encoder, fresh, shown, [(as_boxes(CELLS), CELL_NAMES)] * len(new)))
        embedded = vectors(encoder.images(shown))
        whole.add(fresh, pa.table({"image_id": fresh, "embedding": embedded}, schema=SCHEMAS["embeddings"]))
    found = _embedded(encoder, ids, pictures, _detected(ids, detections))
    both = pa.concat_tables([found, cells.read(ids)])
    order = np.argsort(places(both["image_id"], {image_id: n for n, image_id in enumerate(ids)}), kind="stable")
    return {"regions": both.take(order), "embeddings": whole.read(ids)}


def _embedded(
    encoder: RegionEncoder, ids: list[str], pictures: list[RGB], proposed: list[tuple[Boxes, list[str]]]
) -> pa.Table:
    """Rows of `regions`; the encoder isn't shown a picture without boxes."""
    some = [number for number, (boxes, _) in enumerate(proposed) if len(boxes)]
    if not some:
        return SCHEMAS["regions"].empty_table()
    embedded = encoder.regions([pictures[n] for n in some], [proposed[n][0] for n in some])
    boxes = np.concatenate([proposed[n][0] for n in some])
    owners = [ids[n] for n in some for _ in proposed[n][1]]
    rows = {
        "region_id": [key_of(image_id, box) for image_id, box in zip(owners, boxes.tolist(), strict=True)],
        "image_id": owners,
        "source": [source for n in some for source in proposed[n][1]],
        "box": box_column(boxes),
        "embedding": vectors(np.concatenate(embedded)),
    }
    return pa.table(rows, schema=SCHEMAS["regions"])


def _detected(ids: list[str], detections: pa.Table) -> list[tuple[Boxes, list[str]]]:
    """For each image its surest detections and their phrases; overlapping ones count once."""
    seen: dict[str, tuple[list, list, list]] = {image_id: ([], [], []) for image_id in ids}
    columns = (detections[name].to_pylist() for name in ("image_id", "phrase", "score", "box"))
    for image_id, phrase, score, box in zip(*columns, strict=True):
        if image_id in seen and score >= LEAST_SCORE:
            boxes, scores, phrases = seen[image_id]
            boxes.append(box)
            scores.append(score)
            phrases.append(phrase)
    result = []
    for image_id in ids:
        boxes, scores, phrases = seen[image_id]
        found = as_boxes(boxes)
        keep = suppress(found, np.asarray(scores, dtype=np.float64), 0.7)[:MOST_DETECTIONS]
        keep = keep[area(found[keep]) > 0] if len(keep) else keep
        result.append((found[keep], [phrases[i] for i in keep]))
    return result
