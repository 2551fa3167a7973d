"""embed: what is detected and the picture's cells, each embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.geometry import Boxes
from pipeline.images import RGB
from pipeline.records import SCHEMAS, table
from pipeline.stages.embed import CELLS, MOST_DETECTIONS, embed


class Counting:
    """An encoder whose vector of a region is its box and its picture's colour, and that counts what it is asked."""

    has_text = False
    fingerprint = "counting"

    def __init__(self) -> None:
        self.boxes = self.whole = 0

    def regions(self, images: Sequence[RGB], boxes: Sequence[Boxes]) -> list[np.ndarray]:
        self.boxes += sum(len(mine) for mine in boxes)
        return [
            np.array([[*box, image[0, 0, 0]] for box in mine], dtype=np.float32).reshape(-1, 5)
            for image, mine in zip(images, boxes, strict=True)
        ]

    def images(self, images: Sequence[RGB]) -> np.ndarray:
        self.whole += len(images)
        return np.array([[0, 0, 0, 0, image[0, 0, 0]] for image in images], dtype=np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError


IMAGES = pa.table({"image_id": ["a", "b", "c"]})
COLORS = {"a": 10, "b": 20, "c": 30}


def load(images: pa.Table) -> list[RGB]:
    return [np.full((8, 8, 3), COLORS[i], np.uint8) for i in images["image_id"].to_pylist()]


def detections(*rows: tuple[str, str, float, list[float]]) -> pa.Table:
    return table("detections", [dict(zip(("image_id", "phrase", "score", "box"), row, strict=True)) for row in rows])


BUOY = detections(("b", "buoy", 0.9, [0.1, 0.1, 0.3, 0.3]), ("b", "lamp", 0.5, [0.5, 0.5, 0.9, 0.9]),
                  ("c", "buoy", 0.1, [0, 0, 0.2, 0.2]))  # fmt: skip


def test_each_image_has_its_detections_first_then_its_cells(tmp_path: Path) -> None:
    made = embed(IMAGES, BUOY, encoder=Counting(), load=load, cache=tmp_path)
    regions = made["regions"]
    assert regions.schema == SCHEMAS["regions"] and len(regions) == 3 * len(CELLS) + 2
    of_b = [row for row in regions.to_pylist() if row["image_id"] == "b"]
    assert [row["source"] for row in of_b[:3]] == ["buoy", "lamp", "grid 2"] and of_b[-1]["source"] == "border"
    for row in regions.to_pylist():
        assert row["embedding"] == pytest.approx([*row["box"], COLORS[row["image_id"]]])
    assert regions["image_id"].to_pylist() == sorted(regions["image_id"].to_pylist())
    assert len(set(regions["region_id"].to_pylist())) == len(regions)
    assert [row["embedding"][-1] for row in made["embeddings"].to_pylist()] == [10, 20, 30]


def test_other_phrases_cost_other_detections_alone(tmp_path: Path) -> None:
    encoder = Counting()
    first = embed(IMAGES, BUOY, encoder=encoder, load=load, cache=tmp_path)
    assert encoder.boxes == 3 * len(CELLS) + 2 and encoder.whole == 3
    again = embed(
        IMAGES, detections(("a", "cat", 0.7, [0.0, 0.0, 0.5, 0.5])), encoder=encoder, load=load, cache=tmp_path
    )
    assert encoder.boxes == 3 * len(CELLS) + 3 and encoder.whole == 3
    assert again["regions"]["source"].to_pylist().count("cat") == 1
    # order of the images is the caller's, whatever the cache holds
    turned = embed(IMAGES.take([2, 0, 1]), BUOY, encoder=encoder, load=load, cache=tmp_path)
    assert turned["embeddings"]["image_id"].to_pylist() == ["c", "a", "b"]
    assert sorted(turned["regions"].to_pylist(), key=str) == sorted(first["regions"].to_pylist(), key=str)


def test_of_overlapping_detections_the_surest_and_at_most_so_many(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.8, (30, 2))
    many = detections(*(("a", "thing", float(s), [x, y, x + 0.1, y + 0.1])
                        for (x, y), s in zip(corners, rng.uniform(0.3, 0.9, 30), strict=True)),
                      ("a", "twin", 0.99, [0.5, 0.5, 0.9, 0.9]),
                      ("a", "other twin", 0.98, [0.5, 0.5, 0.9, 0.89]))  # fmt: skip
    sources = embed(IMAGES.slice(0, 1), many, encoder=Counting(), load=load, cache=tmp_path)["regions"]["source"]
    found = [source for source in sources.to_pylist() if source not in {"border"} and not source.startswith("grid")]
    assert len(found) == MOST_DETECTIONS and found[0] == "twin" and "other twin" not in found
