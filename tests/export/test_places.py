"""Where exports are written: nothing is replaced but an earlier export, and no tasks that people have answered in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.export.coco import export_coco
from pipeline.export.csv_file import export_csv
from pipeline.export.data import ExportData
from pipeline.export.groups import export_groups
from pipeline.export.imagefolder import export_imagefolder
from pipeline.export.jsonl_file import export_jsonl
from pipeline.export.label_studio import export_label_studio
from pipeline.export.rows import COLUMNS
from tests.export.test_imagefolder import data

FLAT: list[tuple[Callable[..., list[Path]], dict[str, Any]]] = [
    (export, {"rows": rows}) for export in (export_csv, export_jsonl) for rows in COLUMNS
]
FILES = [*FLAT, (export_coco, {}), (export_groups, {}), (export_label_studio, {"image_prefix": "https://x"})]


def audited() -> ExportData:
    """With a verdict, and a class of a name that has what marks an export nowhere near the beginning."""
    answer = dict.fromkeys(COLUMNS["verdicts"], "") | {"class": "boat", "cue_id": "buoy", "boxes": []}
    made = data()
    return replace(made, run={**made.run, "classes": ["boat"]}, verdicts=[answer])


@pytest.mark.parametrize(("export", "options"), FILES)
def test_an_earlier_export_is_replaced_and_nothing_else(
    tmp_path: Path, export: Callable[..., list[Path]], options: dict[str, Any]
) -> None:
    written = export(audited(), tmp_path / "out.csv", **options)
    before = {path: path.read_bytes() for path in written}
    assert export(audited(), tmp_path / "out.csv", **options) == written
    assert {path: path.read_bytes() for path in written} == before
    for path in written:
        path.write_bytes(b"mine, mine")
        with pytest.raises(UserError, match="no earlier export"):
            export(audited(), tmp_path / "out.csv", **options)
        assert path.read_bytes() == b"mine, mine"
        path.write_bytes(before[path])


def test_an_imagefolder_that_was_audited_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    mine = json.dumps({"file_name": "a.png", "label": "boat", "objects": {"bbox": [], "categories": []}}) + "\n"
    (folder / "metadata.jsonl").write_text(mine)
    with pytest.raises(UserError, match="no earlier export"):
        export_imagefolder(audited(), tmp_path / "set")
    assert [path.name for path in folder.iterdir()] == ["metadata.jsonl"]
    assert (folder / "metadata.jsonl").read_text() == mine


@pytest.mark.parametrize("export", [export_csv, export_jsonl])
def test_tasks_that_people_have_answered_in_are_not_replaced(tmp_path: Path, export: Callable[..., list[Path]]) -> None:
    (out,) = export(audited(), tmp_path / ("t.csv" if export is export_csv else "t.jsonl"), rows="tasks")
    if export is export_csv:
        header, first, *others = csv.reader(out.open(encoding="utf-8", newline=""))
        first[header.index("present")] = "yes"
        with out.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, first, *others])
    else:
        first_line, *more = out.read_text().splitlines()
        out.write_text("\n".join([json.dumps(json.loads(first_line) | {"present": "yes"}), *more]))
    answered = out.read_bytes()
    with pytest.raises(UserError, match="holds answers"):
        export(audited(), out, rows="tasks")
    assert out.read_bytes() == answered
