"""From tables to a report's data: effects by fill, which pictures are shown, what a missing one does."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import records
from pipeline.bench.report.synthetic import finding, run
from pipeline.images import RGB, UnreadableImage
from pipeline.report import assemble as assembling
from pipeline.report.assemble import Embedded, assemble, data_uri
from pipeline.report.render import render_report

IDS = [f"{i:032x}" for i in range(10)]


def image_row(image_id: str) -> dict[str, Any]:
    row: dict[str, Any] = {"image_id": image_id, "path": f"boat/{image_id[-2:]}.png", "label": "boat"}
    row |= {"split": "estimation", "group": image_id, "width": 40, "height": 30}
    return row | dict.fromkeys(records.PROPERTIES, 0.5)


def edit_rows(
    image_id: str, fill: str, hit: bool, placebo_hit: bool, group: str = "", fall: float = 0.5
) -> list[dict[str, Any]]:
    rows = []
    for arm, kept in (("edit", hit), ("placebo", placebo_hit)):
        rows.append(
            {
                "edit_id": f"{image_id}-{fill}-{arm}",
                "pair_id": f"{image_id}-{fill}",
                "label": "boat",
                "cue_id": "buoy",
                "direction": "removal",
                "fill": fill,
                "arm": arm,
                "image_id": image_id,
                "group": group or image_id,
                "spec": "{}",
                "score_before": 0.9,
                "score_after": 0.9 - fall if arm == "edit" else 0.9,
                "margin_before": 1.0,
                "margin_after": 1.0,
                "hit_before": True,
                "hit_after": kept,
                "dose": float("nan"),
            }
        )
    return rows


def tables(findings: list[dict], edits: list[dict]) -> dict[str, pa.Table]:
    return {
        "findings": records.table("findings", findings),
        "edits": records.table("edits", edits),
        "images": records.table("images", [image_row(image_id) for image_id in IDS]),
    }


def load(image_id: str) -> RGB:
    return np.full((30, 40, 3), 10 * int(image_id, 16), dtype=np.uint8)


def redo(edit: dict[str, Any]) -> tuple[RGB, RGB]:
    return np.full((30, 40, 3), 201, np.uint8), np.full((30, 40, 3), 202, np.uint8)


def test_effects_by_fill_are_flips_beyond_the_placebo_and_count_groups_once() -> None:
    edits = [
        *edit_rows(IDS[0], "mean", hit=False, placebo_hit=True, group="twins"),
        *edit_rows(IDS[1], "mean", hit=False, placebo_hit=True, group="twins"),
        *edit_rows(IDS[2], "mean", hit=True, placebo_hit=True),
        *edit_rows(IDS[3], "mean", hit=False, placebo_hit=False),
        *edit_rows(IDS[0], "blur", hit=False, placebo_hit=True),
    ]
    data = assemble(run(["boat"]), tables([finding()], edits), Embedded(load, redo))
    found = {row["fill"]: (row["estimate"], row["n"]) for row in data.effects}
    assert found == {"blur": (1.0, 1), "mean": (pytest.approx(1 / 3), 3)}


def test_triples_show_the_strongest_the_typical_and_the_weakest_image() -> None:
    edits = [row for i, fall in enumerate((0.1, 0.8, 0.4)) for row in edit_rows(IDS[i], "mean", False, True, fall=fall)]
    data = assemble(run(["boat"]), tables([finding(verdict="confirmed")], edits), Embedded(load, redo))
    assert [(t.place, t.image_id, round(t.score_after, 3)) for t in data.triples] == [
        ("strongest", IDS[1], 0.1),
        ("typical", IDS[2], 0.5),
        ("weakest", IDS[0], 0.8),
    ]
    assert data.triples[0].placebo == data_uri(np.full((30, 40, 3), 202, np.uint8))
    assert data.triples[0].score_placebo == 0.9


def test_an_edit_without_its_placebo_does_not_count() -> None:
    lonely = edit_rows(IDS[0], "mean", False, True)[:1]
    data = assemble(run(["boat"]), tables([finding(verdict="confirmed")], lonely), Embedded(load, redo))
    assert data.effects == [] and data.triples == []


def test_a_picture_that_is_gone_leaves_a_gap_not_a_crash() -> None:
    def gone(image_id: str) -> RGB:
        raise UnreadableImage("cannot be opened")

    row = finding(verdict="confirmed", evidence_ids=IDS[:3], evidence_boxes=[[], [], []])
    data = assemble(run(["boat"]), tables([row], edit_rows(IDS[0], "mean", False, True)), Embedded(gone, redo))
    assert data.thumbs == {} and data.triples == []
    assert "No evidence picture to show" in render_report(data)


def test_pictures_stop_at_the_size_limit_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembling, "MAX_PICTURE_BYTES", 1)
    rows = [
        finding(
            finding_id=f"f{i}",
            verdict="confirmed",
            harm=i / 10,
            harm_lower=i / 10,
            evidence_ids=[IDS[i]],
            evidence_boxes=[[]],
        )
        for i in range(3)
    ]
    data = assemble(run(["boat"]), tables(rows, []), Embedded(load, redo))
    assert data.pictures_left_out == 2 and list(data.thumbs) == [IDS[2]], "the most harmful finding keeps its picture"
    assert "Pictures of the last 2 findings were left out" in render_report(data)


def test_confirmed_findings_come_first_by_harm_and_the_others_by_what_was_observed() -> None:
    """How much was edited must not order what was not confirmed."""
    rows = [
        finding(finding_id="seen less", harm=0.5, harm_lower=0.4, observed_lower=0.1),
        finding(finding_id="seen more", harm=0.1, harm_lower=-0.2, observed_lower=0.2),
        finding(finding_id="unmeasured"),
        finding(finding_id="wide", verdict="confirmed", harm=0.4, harm_lower=0.02),
        finding(finding_id="sure", verdict="confirmed", harm=0.1, harm_lower=0.05),
    ]
    data = assemble(run(["boat"]), tables(rows, []), Embedded(load, redo))
    order = ["sure", "wide", "seen more", "seen less", "unmeasured"]
    assert [row["finding_id"] for row in data.findings] == order


def test_thumbnails_are_small_and_keep_their_shape() -> None:
    uri = data_uri(np.zeros((1000, 500, 3), np.uint8))
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        assert picture.size == (96, 192)
