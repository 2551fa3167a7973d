"""Where a cue sits, the regions of a cluster, and the captions that name a cue."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import records
from pipeline.bench.report.synthetic import finding
from pipeline.images import UnreadableImage
from pipeline.report import beside
from pipeline.report.assemble import COLUMNS, GAP, TILE, montage, tile
from pipeline.report.beside import GRID, cut, heat_of, heats, phrase, place_of, quotes, regions_of, shares, showing

IDS = [f"{i:032x}" for i in range(6)]
PARTS = st.floats(0, 1)


def images(labels: str = "boat boat boat car car boat", half: str = "estimation") -> pa.Table:
    rows = []
    for image_id, label in zip(IDS, labels.split(), strict=True):
        row: dict[str, Any] = {"image_id": image_id, "path": f"{image_id}.png", "label": label, "split": half}
        rows.append(row | {"group": image_id, "width": 40, "height": 30} | dict.fromkeys(records.PROPERTIES, 0.5))
    return records.table("images", rows)


def presence(shown: dict[str, str], cue_ids: list[str]) -> pa.Table:
    """`shown`: a cue to a digit an image, 1 where it is there."""
    return records.table(
        "presence",
        [
            {"image_id": image_id, "cue_id": cue_id, "score": 0.5, "present": shown[cue_id][place] == "1"}
            for place, image_id in enumerate(IDS)
            for cue_id in cue_ids
        ],
    )


@given(st.lists(st.tuples(PARTS, PARTS, PARTS, PARTS), min_size=1, max_size=4))
def test_a_boxs_shares_add_up_to_its_area(corners: list[tuple[float, ...]]) -> None:
    boxes = [np.array([[min(a, c), min(b, d), max(a, c), max(b, d)]]) for a, b, c, d in corners]
    areas = [float((box[0, 2] - box[0, 0]) * (box[0, 3] - box[0, 1])) for box in boxes]
    grid = shares(boxes)
    assert grid.shape == (GRID, GRID) and grid.min() >= 0 and grid.max() <= 1 + 1e-9
    assert grid.sum() / GRID**2 == pytest.approx(sum(areas) / len(areas), abs=1e-9)


def test_boxes_of_one_picture_count_once_where_they_overlap() -> None:
    box = [0.0, 0.5, 1.0, 1.0]
    assert shares([np.array([box, box])]) == pytest.approx(shares([np.array([box])]))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0.0, 0.0, 0.2, 0.2), "at the top left"),
        ((0.8, 0.3, 1.0, 0.7), "at the right"),
        ((0.0, 0.9, 1.0, 1.0), "at the bottom"),
        ((0.4, 0.4, 0.6, 0.6), "around the middle"),
        ((0.0, 0.0, 1.0, 1.0), "all over"),
        ((0.5, 0.5, 0.5, 0.5), "nowhere"),
    ],
)
def test_a_place_in_words(box: tuple[float, ...], words: str) -> None:
    assert place_of(shares([np.array([box])])) == words


def test_a_heat_map_is_deepest_where_the_cue_is_most_often() -> None:
    heat = heat_of(shares([np.array([[0.0, 0.0, 0.5, 0.5]]), np.array([[0.0, 0.0, 0.5, 1.0]])]), 2)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(heat.picture.partition(",")[2]))))
    assert heat.most == 1.0 and heat.images == 2
    assert pixels[0, 0, 3] > pixels[-1, 0, 3] > pixels[0, -1, 3] == 0


def test_only_images_of_the_class_and_the_estimation_half_that_show_it() -> None:
    row = finding(cue_id="thing:buoy")
    cue_ids = ["thing:sea", "thing:buoy"]
    shown = presence({"thing:sea": "111111", "thing:buoy": "101110"}, cue_ids)
    assert showing([row], images(), shown, cue_ids, False) == {row["finding_id"]: [IDS[0], IDS[2]]}
    assert showing([row], images(half="selection"), shown, cue_ids, False) == {row["finding_id"]: []}
    assert showing([row], images(half="selection"), shown, cue_ids, True) == {row["finding_id"]: [IDS[0], IDS[2]]}


def test_the_map_of_a_thing_comes_from_its_detections() -> None:
    cues = [{"cue_id": "thing:buoy", "threshold": 0.5}, {"cue_id": "whole:sea", "threshold": 0.5}]
    seen = records.table(
        "detections",
        [
            {"image_id": IDS[0], "phrase": "buoy", "score": 0.9, "box": [0.0, 0.0, 0.25, 0.25]},
            {"image_id": IDS[2], "phrase": "buoy", "score": 0.2, "box": [0.5, 0.5, 1.0, 1.0]},  # below the threshold
            {"image_id": IDS[3], "phrase": "buoy", "score": 0.9, "box": [0.5, 0.5, 1.0, 1.0]},  # a car's
        ],
    )
    rows = [finding(cue_id="thing:buoy"), finding(finding_id="sea", cue_id="whole:sea")]
    shown = presence({"thing:buoy": "101110", "whole:sea": "111111"}, ["thing:buoy", "whole:sea"])
    none = (records.table("regions", []), records.table("assignments", []))
    found = heats(rows, cues, images(), shown, seen, *none, False)
    assert set(found) == {rows[0]["finding_id"]}
    assert found[rows[0]["finding_id"]].place == "at the top left" and found[rows[0]["finding_id"]].images == 1


def test_a_clusters_most_typical_regions_one_an_image() -> None:
    likeness = {("r0", 0): 0.9, ("r1", 0): 0.95, ("r2", 1): 0.7, ("r3", 2): 0.99}
    regions, assigned = [], []
    for place, ((region, image), similarity) in enumerate(likeness.items()):
        box = [0.0, 0.0, 0.1 * (place + 1), 1.0]
        regions.append({"region_id": region, "image_id": IDS[image], "source": "grid", "box": box, "embedding": [1.0]})
        cluster = 8 if region == "r3" else 7
        assigned.append({"region_id": region, "image_id": IDS[image], "cluster": cluster, "similarity": similarity})
    tables = records.table("regions", regions), records.table("assignments", assigned)
    found = regions_of([finding(cue_id="cluster:7", kind="unnamed"), finding()], *tables)
    assert found == {"cluster:7": [(IDS[0], pytest.approx((0, 0, 0.2, 1))), (IDS[1], pytest.approx((0, 0, 0.3, 1)))]}


def test_captions_of_the_class_that_name_the_cue() -> None:
    captions = ["A boat by a buoy.", "Two Buoys, and a boat", "a boat", "a car by a buoy", "", "A buoyant boat"]
    table = records.table("captions", [{"image_id": i, "caption": text} for i, text in zip(IDS, captions, strict=True)])
    attribute = {"label": "boat", "phrase": "buoy", "source": "captions"}
    (said,) = quotes([finding()], [attribute], images(), table).values()
    assert said.shown == (("A boat by a ", "buoy", "."), ("Two ", "Buoys", ", and a boat"))
    assert (said.found, said.captions) == (2, 4)
    assert quotes([finding()], [attribute | {"source": "openai"}], images(), table) == {}


def test_a_phrase_is_words_and_not_a_pattern() -> None:
    assert phrase("traffic light").search("two traffic-lights at night")
    assert not phrase("a.c").search("abc")


@given(st.text(max_size=300), st.integers(0, 300), st.integers(0, 300))
def test_a_cut_text_keeps_its_middle(text: str, a: int, b: int) -> None:
    start, end = sorted((min(a, len(text)), min(b, len(text))))
    before, middle, after = cut(text, start, end)
    assert middle == text[start:end]
    assert len(before) <= beside.QUOTED + 2 and len(after) <= beside.QUOTED + 2
    if start <= beside.QUOTED and len(text) - end <= beside.QUOTED:
        assert before + middle + after == text


def test_a_montage_leaves_out_what_cannot_be_read() -> None:
    def load(image_id: str) -> np.ndarray:
        if image_id == IDS[1]:
            raise UnreadableImage("gone")
        return np.full((30, 40, 3), 10, np.uint8)

    sheet = montage([(image_id, (0.0, 0.0, 0.5, 0.5)) for image_id in IDS * 2], load)
    assert sheet is not None and sheet.shape == (2 * TILE + GAP, COLUMNS * (TILE + GAP) - GAP, 3)
    assert montage([(IDS[1], (0.0, 0.0, 1.0, 1.0))], load) is None


@given(st.integers(1, 60), st.integers(1, 60), PARTS, PARTS, PARTS, PARTS)
def test_a_tile_is_cut_from_any_picture(height: int, width: int, a: float, b: float, c: float, d: float) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    assert tile(picture, (min(a, c), min(b, d), max(a, c), max(b, d))).shape == (TILE, TILE, 3)
