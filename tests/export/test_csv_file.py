"""CSV: what goes in comes out, and no cell is a formula."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cells import FORMULA, cell, text_of
from pipeline.errors import UserError
from pipeline.export.csv_file import export_csv
from pipeline.models import registry
from pipeline.records import SCHEMAS
from tests.export.test_label_studio import audit


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_finding(tmp_path: Path) -> None:
    data = audit("/set", {"removal_effect": -0.25, "removal_n": 7, "cue": 'a "b", c\nd'})
    (path,) = export_csv(data, tmp_path / "out.csv")
    (row,) = read(path)
    assert set(row) == {name for name in SCHEMAS["findings"].names if not name.startswith("evidence_")}
    assert float(row["removal_effect"]) == -0.25 and row["removal_n"] == "7" and row["cue"] == 'a "b", c\nd'
    assert row["harm"] == "", "what was not measured is empty"


def test_a_row_an_evidence_image(tmp_path: Path) -> None:
    (path,) = export_csv(audit("/set"), tmp_path, rows="images")
    rows = read(path)
    assert path.name == "images.csv"
    assert [row["image_id"] for row in rows] == ["i0", "i1", "i2"]
    assert json.loads(rows[0]["boxes"]) == [[0.1, 0.2, 0.4, 0.45]] and float(rows[0]["presence"]) == 0.9


@given(st.text(max_size=30))
def test_no_text_is_a_formula_and_the_rest_is_left_alone(text: str) -> None:
    made = cell(text)
    assert not made.lstrip(" ").startswith(FORMULA)
    assert made in (text, "'" + text) and text_of(made) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =HYPERLINK(1)", "'=1"])
def test_formulas_are_quoted(text: str) -> None:
    assert cell(text) == "'" + text


def test_numbers_are_no_formulas() -> None:
    assert cell(-0.5) == -0.5 and cell(float("nan")) == "" and cell(None) == ""


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="findings, images"):
        export_csv(audit("/set"), tmp_path / "out.csv", rows="all")  # type: ignore[arg-type]
    assert registry.check_options("export", "csv", {}) == {"rows": "findings", "least_verdict": "inconclusive"}
    assert list(tmp_path.iterdir()) == []
