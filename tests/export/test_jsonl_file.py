"""JSONL: the rows of the CSV export, with lists as lists and null for what was not measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.export.csv_file import export_csv
from pipeline.export.jsonl_file import export_jsonl
from pipeline.export.rows import COLUMNS
from tests.export.test_csv_file import read
from tests.export.test_label_studio import BOX, audit


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


@pytest.mark.parametrize("rows", list(COLUMNS))
def test_the_rows_are_those_of_the_csv(tmp_path: Path, rows: str) -> None:
    data = audit("/set", {"cue": "a\u2028b"})
    (path,) = export_jsonl(data, tmp_path, rows=rows)  # type: ignore[arg-type]
    (other,) = export_csv(data, tmp_path, rows=rows)  # type: ignore[arg-type]
    assert path.name == f"{rows}.jsonl" and len(lines(path)) == len(read(other))
    assert all(tuple(line) == COLUMNS[rows] for line in lines(path))


def test_lists_and_what_was_not_measured(tmp_path: Path) -> None:
    (path,) = export_jsonl(audit("/set"), tmp_path / "x.jsonl")
    assert lines(path)[0]["harm"] is None
    (path,) = export_jsonl(audit("/set"), tmp_path / "y.jsonl", rows="images")
    assert lines(path)[0]["boxes"] == [BOX]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plan"):
        export_jsonl(audit("/set"), tmp_path / "x.jsonl", rows="all")  # type: ignore[arg-type]
