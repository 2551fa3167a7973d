"""Rows into the scoreboard: its figures, its promises, its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.bench.planted import scoreboard as sb
from pipeline.errors import UserError


def row(design: str = "planted", strength: float = 0.9, kind: str = "object", valid: bool = True, **ours: Any) -> dict:
    planted = [] if design == "null" else [["cat", {"kind": kind, "name": "buoy", "fixed": False}]]
    interval = {"kind": kind, "verdict": "confirmed", "truth": 0.3, "lower": 0.1, "upper": 0.5}
    mine = {
        "precision_at_10": 1.0, "at_1": True, "at_3": True, "first": "buoy", "confirmed": 1 if design != "null" else 0,
        "false": [], "intervals": [interval] * (design not in ("null", "association")), "forwards": 500, "edits": 100,
        "seconds": 9.0, "top_5": [["cat", "thing:buoy", "confirmed"]], **ours,
    }  # fmt: skip
    full = {**mine, "edits": 500, "forwards": 900, "top_5": [["cat", "thing:buoy", "confirmed"]]}
    other = {"precision_at_10": 0.5, "at_1": False, "at_3": True, "forwards": 400, "seconds": 1.0}
    return {
        "setting": {"design": design, "strength": strength, "planted": planted},
        "valid": valid and design not in ("null", "association"),
        "methods": {sb.OURS: mine, sb.EXHAUSTIVE: full, sb.BARE: mine} | dict.fromkeys(sb.PUBLISHED, other),
    }


def held(rows: list[dict]) -> dict[str, bool | None]:
    return {p.what: p.holds for p in sb.promises(rows)}


def test_good_rows_keep_every_promise() -> None:
    rows = [row() for _ in range(15)] + [row(kind="cast")] + [row("null")] * 20
    rows += [row("association", confirmed=0)] * 20
    for r in rows[:1]:
        r["methods"][sb.OURS]["intervals"] = [
            {"kind": "object", "verdict": "confirmed", "truth": 0.9, "lower": 0.1, "upper": 0.5}
        ]
    rows[15]["methods"][sb.OURS]["intervals"] = []
    assert set(held(rows).values()) == {True}


@pytest.mark.parametrize(
    ("spoiled", "line"),
    [
        (row(precision_at_10=0.0), "mean Precision@10"),
        (row("null", confirmed=1, false=[{"class": "cat"}]), "null audits with a confirmed finding (1)"),
        (row(at_1=False), "planted cue at rank 1, cue of object, background or text (2 settings)"),
        (row(edits=400), "racing's edited images, as a share of the exhaustive mode's"),
        (row(top_5=[["cat", "thing:other", "confirmed"]]), "racing and exhaustive agree on the first 5 findings"),
    ],
)
def test_one_spoiled_row_breaks_its_promise(spoiled: dict, line: str) -> None:
    assert held([row(), spoiled])[line] is False


def test_settings_that_are_not_valid_count_for_no_precision_but_for_false_findings() -> None:
    rows = [row(), row(valid=False, precision_at_10=0.0, false=[{"class": "cat"}])]
    scores = sb.method_scores(rows, sb.OURS)
    assert scores["precision_at_10"] == 1.0
    assert scores["false_confirmed_share"] == 0.5
    assert sb.method_scores(rows, "ravl")["null_audits_with_any"] is None


def test_a_quick_run_forgives_one_miss_and_no_false_finding() -> None:
    assert sb.quick_holds([row(), row(), row(at_1=False)])
    assert not sb.quick_holds([row(), row(at_1=False), row(at_1=False)])
    assert not sb.quick_holds([row(), row("null", false=[{"class": "cat"}])])
    assert not sb.quick_holds([row(), {"error": "x", "setting": {"design": "null"}}])
    assert not sb.quick_holds([row("null")])
    assert not sb.quick_holds([row(), row("null", confirmed=1)])
    assert not sb.quick_holds([row(precision_at_10=0.5), row()])
    assert not sb.quick_holds([row(edits=400), row()])
    outside = {"kind": "object", "verdict": "confirmed", "truth": 0.9, "lower": 0.1, "upper": 0.5}
    assert sb.quick_holds([row(), row(intervals=[outside])])
    assert not sb.quick_holds([row(), row(intervals=[outside, outside])])


def test_a_setting_that_failed_is_counted_and_spoils_no_figure() -> None:
    failed = {"error": "RuntimeError: no disk", "setting": {"design": "association", "strength": 0.0, "planted": []}}
    board = sb.scoreboard({"held-out": [row(), failed]}, "cuescope bench planted")
    assert board["settings"]["failed"] == 1
    assert board["methods"]["cuescope"]["precision_at_10"] == 1.0


def test_the_board_is_written_as_json_table_and_figure(tmp_path: Path) -> None:
    rows = [row(strength=0.6, precision_at_10=0.7), row(strength=0.99), row("null")]
    paths = sb.write(sb.scoreboard({"held-out": rows}, "cuescope bench planted"), tmp_path)
    assert [p.name for p in paths] == ["planted.json", "planted.md", "planted.svg"]
    board = json.loads(paths[0].read_text())
    assert set(board["methods"]["cuescope"]) == set(sb.HEADINGS)
    assert board["by_strength"]["0.6"]["cuescope"] == 0.7
    assert "**missed**" in paths[1].read_text()
    bars = ElementTree.fromstring(paths[2].read_text())
    assert sum("P" not in (t.text or "") for t in bars.iter("{http://www.w3.org/2000/svg}title")) == 14


def test_the_readme_gets_the_table_between_its_marks_and_keeps_the_rest(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{sb.MARKS[0]}\nold table\n{sb.MARKS[1]}\nbelow\n")
    board = sb.scoreboard({"held-out": [row(), row("null")]}, "cuescope bench planted")
    for _ in range(2):
        sb.write_into(readme, board)
        text = readme.read_text()
        assert text.startswith("above\n")
        assert text.endswith("\nbelow\n")
        assert "old table" not in text
        assert text.count("| cuescope |") == 1
    readme.write_text("no marks")
    with pytest.raises(UserError, match="lacks the lines"):
        sb.write_into(readme, board)


def test_of_few_intervals_all_may_cover_the_truth_of_many_some_must_not() -> None:
    assert not sb.too_many(14, 14) and not sb.too_many(298, 298)  # 0.99 ** 298 = 0.0500
    assert sb.too_many(299, 299) and not sb.too_many(590, 600)
