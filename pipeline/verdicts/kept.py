"""Where verdicts are kept, so that they hold for later audits of the same data set.

One Parquet file a data set, of the table `verdicts`, in the folder `verdicts` beside the audits; or the file that the
configuration's line `verdicts` names. It isn't in the feature cache: that may be deleted, people's work may not. The
data set is its address (`path` or `name` of the section `data`); a set that moved, or a file that several machines
share, is named by the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.locks import alone
from pipeline.places import Place
from pipeline.records import SchemaError, conform, table
from pipeline.store import explained, key_of, opened, write_parquet

Row = dict[str, Any]


def file_of(audits: Place, kind: str, options: Mapping[str, Any]) -> Place:
    """The file of a data set.

    Args:
        audits: the folder that holds the audits.
        kind, options: of the configuration's section `data`.
    """
    address = str(options.get("path") or options.get("name") or key_of(kind, dict(options)))
    words = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(address).stem).strip("-")[:40] or "data"
    return audits / "verdicts" / f"{words}-{key_of(address)[:8]}.parquet"


def read(path: Place) -> pa.Table:
    """The verdicts that are kept in a file; none where there is no file.

    Raises:
        UserError: the file holds something else.
    """
    if not path.is_file():
        return table("verdicts", [])
    try:
        found = pq.read_table(opened(path))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"The file of verdicts {path} can't be read: {' '.join(str(error).split())}") from None
    if "called" not in found.column_names:  # written before people could name cues
        found = found.append_column("called", pa.array([""] * len(found), pa.string()))
    try:
        return conform("verdicts", found)
    except SchemaError:
        raise UserError(
            f"The file of verdicts {path} has other columns than this version of Cuescope writes. Move it away, and "
            "import the labelers' files again."
        ) from None


def add(path: Place, new: pa.Table) -> pa.Table:
    """Add verdicts to a file, and return all that it holds now. Several writers at once lose nothing."""
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    busy = f"Another process is writing to {path}; give the same command again."
    with alone(path.with_name(f".{path.name}.lock"), busy, patience=300):
        merged = merge(read(path), new)
        write_parquet(path, merged)
    return merged


def merge(old: pa.Table, new: pa.Table) -> pa.Table:
    """Both tables' answers: of a person's answers on one finding and picture the latest, of equal times the new one."""
    latest: dict[tuple[str, ...], Row] = {}
    for row in [*old.to_pylist(), *new.to_pylist()]:
        who = identity(row)
        if who not in latest or row["given"] >= latest[who]["given"]:
            latest[who] = row
    return table("verdicts", [latest[who] for who in sorted(latest)])


def identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What an answer is about, and whose it is."""
    cue = row["cue"] if row["kind"] == "named" else mark_of(row["center"])
    return row["class"], row["kind"], cue, row["image_id"], row["annotator"]


def mark_of(center: Any) -> str:
    """A short name of a cluster that its number isn't: numbers change when the data grow."""
    return key_of([round(float(x), 4) for x in center])[:12]
