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
    ahead(images, encoder=encoder, load=load, cache=cache)
    ids = images["image_id"].to_pylist()
    cells, whole = _apart(encoder, cache)
    proposed = _detected(ids, detections)
    some = [number for number, (boxes, _) in enumerate(proposed) if len(boxes)]
    pictures = load(images.take(some)) if some else []  # the encoder isn't shown a picture without boxes
    found = _embedded(encoder, [ids[n] for n in some], pictures, [proposed[n] for n in some])
    both = pa.concat_tables([found, cells.read(ids)])
    order = np.argsort(places(both["image_id"], {image_id: n for n, image_id in enumerate(ids)}), kind="stable")
    return {"regions": both.take(order), "embeddings": whole.read(ids)}


def ahead(
    images: pa.Table, *, encoder: RegionEncoder | None, load: Callable[[pa.Table], list[RGB]], cache: Place
) -> None:
    """Put the whole image and its cells into the cache, which need no detections."""
    if encoder is None:
        return
    ids = images["image_id"].to_pylist()
    cells, whole = _apart(encoder, cache)
    known = cells.known(ids) & whole.known(ids)
    new = [number for number, image_id in enumerate(ids) if image_id not in known]
    if new:
        fresh, shown = [ids[number] for number in new], load(images.take(new))
        cells.add(fresh, _embedded(encoder, fresh, shown, [(as_boxes(CELLS), CELL_NAMES)] * len(new)))
        embedded = vectors(encoder.images(shown))
        whole.add(fresh, pa.table({"image_id": fresh, "embedding": embedded}, schema=SCHEMAS["embeddings"]))


def _apart(encoder: RegionEncoder, cache: Place) -> tuple[Shelf, Shelf]:
    """Where cells and whole images are kept."""
    fixed = ("cells", VERSION, encoder.fingerprint, list(GRID), BORDER)
    return Shelf(cache, "embed", "regions", "image_id", fixed), Shelf(cache, "embed", "embeddings", "image_id", fixed)


def _embedded(
    encoder: RegionEncoder, ids: list[str], pictures: list[RGB], proposed: list[tuple[Boxes, list[str]]]
) -> pa.Table:
    """Rows of `regions`, of pictures that each have boxes."""
    if not ids:
        return SCHEMAS["regions"].empty_table()
    embedded = encoder.regions(pictures, [boxes for boxes, _ in proposed])
    boxes = np.concatenate([boxes for boxes, _ in proposed])
    owners = [image_id for image_id, (_, names) in zip(ids, proposed, strict=True) for _ in names]
    rows = {
        "region_id": [key_of(image_id, box) for image_id, box in zip(owners, boxes.tolist(), strict=True)],
        "image_id": owners,
        "source": [source for _, names in proposed for source in names],
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
