"""Answers in a table: CSV from a spreadsheet, or JSONL, with the columns of `cuescope export --set rows=tasks`.

A row names its finding by `finding_id`, or by `class` and `cue`; its picture by `image_id` or `path`, or none for a
verdict on the finding as a whole; and says `verdict` (spurious, core, not present, unsure), `present` (yes or no) or
both. `annotator`, `given` (a time), `note`, `called` (a better name of the cue) and `source` may be there. Rows with no
answer were not labelled yet.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.cells import text_of
from pipeline.errors import UserError
from pipeline.sources.items import as_text
from pipeline.verdicts.answers import Answer, Found, Unusable, presence_of, seen, text_in, utc, verdict_of

SAID = ("verdict", "present")


def read_table(path: Path, otherwise: str) -> Found:
    """The answers of a CSV or JSONL file (by its suffix).

    Args:
        path: .csv or .tsv, separated by commas, semicolons or tabs; .jsonl or .ndjson.
        otherwise: the time of answers that have none.

    Raises:
        UserError: it can't be read, or its columns name no finding or no answer.
    """
    text = text_in(path)
    lines = path.suffix.lower() in (".jsonl", ".ndjson") or text.startswith('{"')
    rows = _of_jsonl(path, text) if lines else _of_csv(path, text)
    found = Found()
    for row in rows:
        try:
            answer = _answer(row, otherwise)
        except Unusable as why:
            found.unusable.append(str(why))
            continue
        if answer is not None:
            found.answers.append(answer)
    return found


def _of_csv(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = {(name or "").strip() for name in reader.fieldnames or ()}
        if not ("finding_id" in columns or {"class", "cue"} <= columns) or not columns & set(SAID):
            raise UserError(
                f"{path}: expected the columns finding_id (or class and cue) and verdict or present; "
                f"found {', '.join(sorted(columns)) or 'none'}."
            )
        for row in reader:
            yield {(name or "").strip(): value for name, value in row.items()}
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV: {error}.") from None


def _of_jsonl(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected an object with finding_id and verdict or present.")
        yield row


def _answer(row: Mapping[str, Any], otherwise: str) -> Answer | None:
    """The answer of a row, or None where it says nothing yet."""

    def text(name: str) -> str:
        value = row.get(name)
        return "" if value is None else as_text(text_of(str(value)).strip())

    verdict, present = verdict_of(row.get("verdict")), presence_of(row.get("present"))
    if not verdict and present is None and not text("called"):
        return None
    image = text("image_id") or text("path")
    if present is not None and not image:
        raise Unusable("'present' is said of no picture: the row has neither image_id nor path")
    if not text("finding_id") and not (text("class") and text("cue")):
        raise Unusable("a row with neither a finding_id nor a class and a cue")
    return Answer(
        finding_id=text("finding_id"),
        label=text("class"),
        cue=text("cue"),
        image=image,
        verdict=verdict,
        present=seen(verdict, present) if image else None,
        annotator=text("annotator") or "unnamed",
        given=utc(row.get("given"), otherwise),
        note=text("note")[:2000],
        called=text("called")[:200],
        mark=text("cluster_mark"),
    )
