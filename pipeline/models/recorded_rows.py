"""Rows of a file of recorded answers: CSV, JSONL or Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def check_file(path: str, what: str) -> Path:
    """The file, unread; `what` it holds, such as "predictions".

    Raises:
        UserError: there is no such file, or one of another kind.
    """
    if not Path(path).is_file():
        raise UserError(f"model: there is no file of {what} {path}.")
    if Path(path).suffix.lower() not in READERS:
        raise UserError(f"model: {path} is no kind of file that is known here. Use .csv, .jsonl or .parquet.")
    return Path(path)


def read(path: Path, what: str) -> list[dict[str, Any]]:
    """Its rows; the cells of a CSV file are text.

    Raises:
        UserError: it can't be read, or is empty.
    """
    try:
        rows = READERS[path.suffix.lower()](path)
    except UnicodeDecodeError:
        raise UserError(f"model: {path} can't be read: it is not in UTF-8. Save it as UTF-8.") from None
    except RecursionError:
        raise UserError(f"model: {path} can't be read: a row is nested too deeply.") from None
    except (ValueError, OSError, csv.Error) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise UserError(f"model: {path} can't be read: {' '.join(str(error).split())[:300]}") from None
    if not rows:
        raise UserError(f"model: {path} holds no {what}.")
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(f"row {number} has more cells than the header")
    return rows


def _jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object")
            rows.append(row)
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


READERS = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
