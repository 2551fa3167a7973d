"""Pictures of a class without its object, made of its own: what is asked, of which pictures, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Audit
from pipeline.evidence.absent import MASKED, REMOVED, Absent, without_object
from pipeline.evidence.asking import Asker
from pipeline.evidence.boxes import BoxFinder
from pipeline.evidence.edits import apply_edit
from pipeline.evidence.perception import TOGETHER, compare_absent
from pipeline.evidence.presence import Cues
from pipeline.images import RGB
from pipeline.records import SCHEMAS, table
from tests import fakes
from tests.conftest import noisy_picture

CLASSES = ["a", "b"]
OBJECT = [0.5, 0.5, 0.75, 0.75]
N = 40


def audit(**measure: Any) -> Audit:
    return Audit.from_dict(
        {
            "data": {"path": "."},
            "model": {"kind": "python", "factory": "tests.fakes:green_or_red"},
            "measure": {"top_k": 6, **measure},
        }
    )


@pytest.fixture(scope="module")
def pictures() -> list[RGB]:
    """40 pictures, every second one of `a`: those have a green square, and every second of them a red one too."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(N):
        picture = noisy_picture(rng).clip(0, 180)
        if number % 2 == 0:
            picture[24:36, 24:36] = (10, 250, 10)
        if number % 4 == 0:
            picture[2:12, 2:12] = (250, 10, 10)
        made.append(picture.astype(np.uint8))
    return made


@pytest.fixture(scope="module")
def images() -> pa.Table:
    return pa.table(
        {
            "image_id": [f"i{number:02d}" for number in range(N)],
            "label": [CLASSES[number % 2] for number in range(N)],
            "group": [f"g{number}" for number in range(N)],
            "split": ["selection" if number < 8 else "estimation" for number in range(N)],
        }
    )


@pytest.fixture
def boxes(images: pa.Table) -> BoxFinder:
    """A detector that finds every `a` but one, and no `b`."""
    rows = [
        {"image_id": f"i{number:02d}", "phrase": "a", "score": 0.9, "box": OBJECT}
        for number in range(0, N, 2)
        if number != 10
    ]
    return BoxFinder([], table("detections", rows), table("regions", []), table("assignments", []))


@pytest.fixture
def log() -> Iterator[list[tuple[str, str]]]:
    fakes.LOG.clear()
    yield fakes.LOG
    fakes.LOG.clear()


def half(images: pa.Table) -> np.ndarray:
    return np.array(images["split"].to_pylist()) == "estimation"


def cues() -> Cues:
    scores = np.stack([np.arange(N) % 4 == 0, np.arange(N) % 3 == 0], axis=1).astype(float)
    return Cues([{"cue_id": "red"}, {"cue_id": "idle"}], [f"i{n:02d}" for n in range(N)], scores, scores > 0)


def compare(
    made: list[Absent], images: pa.Table, pictures: list[RGB], cache: Path, limit: int = 10**9
) -> tuple[list[dict], list[tuple[str, str]], dict[str, int]]:
    skipped: list[tuple[str, str]] = []
    counts: dict[str, int] = {"measure": 0}

    def count(what: str, number: int) -> None:
        counts[what] += number

    def load(rows: pa.Table) -> list[RGB]:
        return [pictures[int(image_id[1:])] for image_id in rows["image_id"].to_pylist()]

    asker = Asker(fakes.green_or_red(("a", "b"), "cpu", limit), CLASSES, cache, count)
    unknown = np.full((2, 3), np.nan, dtype=np.float32)
    rows = compare_absent(
        asker, made, images, load, {0: [0, 1]}, (unknown, unknown), cues(), audit(),
        lambda what, why: skipped.append((what, why)),
    )  # fmt: skip
    return rows, skipped, counts


def test_only_pictures_whose_object_was_found_and_of_this_half_are_made(images: pa.Table, boxes: BoxFinder) -> None:
    made = without_object(images, half(images), boxes, audit(), CLASSES)
    assert {one.row for one in made} == set(range(8, N, 2)) - {10}
    assert {one.source for one in made} == {MASKED, REMOVED} and {one.label for one in made} == {0}
    few = without_object(images, half(images), boxes, audit(absent=5), CLASSES)
    assert len({one.row for one in few}) == 5 and len(few) == 10 and {one.key for one in few} < {o.key for o in made}
    assert not without_object(images, half(images), boxes, audit(absent=0), CLASSES)
    alike = images.set_column(images.column_names.index("group"), "group", pa.array(["same"] * N))
    assert len(without_object(alike, half(images), boxes, audit(), CLASSES)) == 2


def test_crowds_and_what_fills_the_picture_are_left_out(images: pa.Table) -> None:
    crowd = [[x / 8, 0.1, x / 8 + 0.1, 0.3] for x in range(7)]
    for found in (crowd, [[0.0, 0.0, 0.9, 0.9]]):
        rows = [{"image_id": "i08", "phrase": "a", "score": 0.9, "box": box} for box in found]
        finder = BoxFinder([], table("detections", rows), table("regions", []), table("assignments", []))
        assert not without_object(images, half(images), finder, audit(), CLASSES)


def test_the_object_goes_and_the_rest_stays(images: pa.Table, boxes: BoxFinder, pictures: list[RGB]) -> None:
    inside = np.zeros((48, 48), dtype=bool)
    inside[24:36, 24:36] = True
    for one in without_object(images, half(images), boxes, audit(absent=3), CLASSES):
        before = pictures[one.row]
        after = apply_edit(one.spec, before)
        green = (after[..., 1] > 200) & (after[..., 0] < 70)
        assert not green.any() and after.dtype == np.uint8
        assert (after[~inside] == before[~inside]).all() if one.source == MASKED else (after[:20] == before[:20]).all()
        assert (after[inside] == 0).all() == (one.source == MASKED)


def test_the_gap_is_that_of_the_cue_in_either_source_averaged_over_prompts_last(
    images: pa.Table, boxes: BoxFinder, pictures: list[RGB], log: list, tmp_path: Path
) -> None:
    made = without_object(images, half(images), boxes, audit(), CLASSES)
    rows, skipped, counts = compare(made, images, pictures, tmp_path)
    assert not skipped and counts["measure"] == len(made) == 30
    assert set(log) == {("a", "is there"), ("a", "never")} and len(log) == 60, "its own class, by prompts that count"
    for row in rows:
        assert set(row) == set(SCHEMAS["variants"].names)
    found = {(row["source"], row["variant"], row["cue_id"]): row for row in rows}
    assert len(found) == len(rows) == 2 * (3 + 1)
    for source in (MASKED, REMOVED):
        one, never = found[source, "is there", "red"], found[source, "never", "red"]
        together, idle = found[source, TOGETHER, "red"], found[source, TOGETHER, "idle"]
        # 8 of the 15 pictures have the red square
        assert one["hr"] == pytest.approx(8 / 15) and one["hr_lower"] < one["hr"] < one["hr_upper"]
        assert one["hr_gap_top_k"] == 1 and never["hr_gap_top_k"] == 0 and together["hr_gap_top_k"] == 0.5
        assert abs(idle["hr_gap_top_k"]) < 0.5 and idle["hr"] == together["hr"]
        assert one["n_absent"] == 15 and one["n_present"] == 0 and np.isnan(one["pa"]) and one["neither"] == 0


def test_a_second_run_asks_nothing(
    images: pa.Table, boxes: BoxFinder, pictures: list[RGB], log: list, tmp_path: Path
) -> None:
    made = without_object(images, half(images), boxes, audit(absent=4), CLASSES)
    first, _, _ = compare(made, images, pictures, tmp_path)
    asked = len(log)
    again, _, counts = compare(made, images, [], tmp_path)
    assert len(log) == asked == 16 and counts["measure"] == 0
    assert repr(first) == repr(again)  # repr: NaN is no equal of itself


def test_a_spent_budget_keeps_what_was_answered(
    images: pa.Table, boxes: BoxFinder, pictures: list[RGB], log: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.evidence.asking.CHUNK", 4)
    made = without_object(images, half(images), boxes, audit(absent=4), CLASSES)
    rows, ((what, why),), counts = compare(made, images, pictures, tmp_path, limit=10)
    assert counts["measure"] == 4 and "budget of 10 calls" in why and what.startswith("4 pictures")
    assert sum(row["n_absent"] for row in rows if row["variant"] == "is there") == 4
    log.clear()
    rows, skipped, counts = compare(made, images, pictures, tmp_path)
    assert not skipped and counts["measure"] == 4
    assert sum(row["n_absent"] for row in rows if row["variant"] == "is there") == 8
