"""The audits of one configuration: a folder each, named by its date, in one folder with their cache.

audits/boats/2026-11-19-030000/   run.json, tables, report.html
audits/boats/2026-11-26-030000/
audits/boats/.cuescope/           the cache of all of them
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.chain import is_locked
from pipeline.errors import UserError
from pipeline.places import Place
from pipeline.records import SchemaError, worst_first
from pipeline.store import AuditFolder, remove

DATED = re.compile(r"\d{4}-\d\d-\d\d-\d{6}(?:-\d+)?")


@dataclass(frozen=True)
class Past:
    """One audit of a configuration."""

    path: Place
    started: str
    state: str  # finished | running | unfinished | unreadable
    images: int | None
    confirmed: int | None
    worst: str  # class and cue of the most harmful confirmed finding, or empty
    harm: float | None  # its expected harm, a share
    counts: dict[str, int] | None  # how many findings changed in which way, where it was compared

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "path": str(self.path)}


def name_of(config: Path) -> str:
    """What the audits of a configuration are called: by its file, or by its folder where that is `audit.yaml`."""
    return config.stem if config.stem != "audit" else config.resolve().parent.name


def new_folder(root: Place, now: datetime.datetime | None = None) -> Place:
    """A folder for an audit that begins now (UTC); none of that name is there yet."""
    stamp = (now or datetime.datetime.now(datetime.UTC)).strftime("%Y-%m-%d-%H%M%S")
    candidates = (root / (stamp if turn == 1 else f"{stamp}-{turn}") for turn in range(1, 1000))
    return next(folder for folder in candidates if not folder.exists())


def history(root: Place) -> list[Past]:
    """The audits in a folder, the oldest first; folders that are no dated audit are left out."""
    if not root.is_dir():
        return []
    return [_past(path) for path in _dated(root)]


def _dated(root: Place) -> list[Place]:
    paths = [path for path in root.iterdir() if DATED.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
    return sorted((path for path in paths if (path / "run.json").is_file()), key=_order)


def _order(path: Place) -> tuple[str, int]:
    return path.name[:17], int(path.name[18:] or 1)


def _past(path: Place) -> Past:
    folder = AuditFolder(path)
    try:
        run = folder.run()
        findings = folder.read("findings").to_pylist() if folder.has("findings") else []
    except (UserError, SchemaError, pa.ArrowException, OSError):
        return Past(path, path.name, "unreadable", None, None, "", None, None)
    state = "finished" if run.get("finished") else "running" if is_locked(folder) else "unfinished"
    confirmed = sorted((row for row in findings if row["verdict"] == "confirmed"), key=worst_first)
    first = confirmed[0] if confirmed else None
    return Past(
        path,
        run["started"],
        state,
        run["data"].get("images"),
        len(confirmed) if folder.has("findings") else None,
        f"{first['class']}: {first['cue']}" if first else "",
        first["harm"] if first and math.isfinite(first["harm"]) else None,
        (run.get("comparison") or {}).get("counts"),
    )


def latest(root: Place) -> Place | None:
    """The newest finished audit in a folder."""
    return next((past.path for past in reversed(history(root)) if past.state == "finished"), None)


def to_retire(pasts: Sequence[Past], keep: int) -> list[Past]:
    """What goes when the newest `keep` finished audits are kept: whatever is older than these and not running."""
    finished = [number for number, past in enumerate(pasts) if past.state == "finished"]
    if keep < 1 or len(finished) <= keep:
        return []
    return [past for past in pasts[: finished[-keep]] if past.state != "running"]


def retire(pasts: Sequence[Past]) -> None:
    """Delete these audits. Their cache stays: it is shared, and what it holds is addressed by content."""
    for past in pasts:
        remove(past.path)


def print_history(pasts: Sequence[Past]) -> None:
    """The audits as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipeline.report.sentences import DASH, of_100, words

    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, caption="harm of 100 predictions; what changed since the one before"
    )
    for name in ("audit", "state", "images", "confirmed", "worst", "harm", "new", "worse", "better", "gone"):
        table.add_column(name, justify="left" if name in ("audit", "state", "worst") else "right", overflow="fold")
    for past in pasts:
        counts = past.counts or {}
        table.add_row(
            Text(past.path.name),
            Text(past.state, "" if past.state == "finished" else "yellow"),
            f"{past.images:,}" if past.images is not None else DASH,
            DASH if past.confirmed is None else str(past.confirmed),
            Text(": ".join(words(part) for part in past.worst.split(": ", 1)) if past.worst else DASH),
            of_100(math.nan if past.harm is None else past.harm),
            *(str(counts[name]) if name in counts else DASH for name in ("new", "worse", "better", "gone")),
        )
    Console().print(table)
