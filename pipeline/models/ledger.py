"""The log of an audit's calls of paid services: one JSON line a call, without secrets, in its folder's `llm.jsonl`.

Nothing can be appended to an object, so on an object store `llm.jsonl` is a folder: each process writes objects of its
own, of up to LINES lines, anew after each call, so that a kill loses no line that a call was paid for.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.places import Place, Remote
from pipeline.store import explained

LINES = 100
_ONE_WRITER = threading.Lock()
_objects: dict[tuple[Remote, str, int], tuple[Remote, list[str]]] = {}
"""The object that this process writes to now, of a log, a run and a process: its place and lines."""


@dataclass(frozen=True)
class Spent:
    """What was asked: answers that came from the cache cost nothing and are not calls."""

    calls: int = 0
    tokens: int = 0
    usd: float | None = None  # None: no price is known
    retries: int = 0
    refused: int = 0
    unread: int = 0  # replies that were cut short, or of another form than asked for
    failed: int = 0  # calls that came to nothing


@dataclass(frozen=True)
class Ledger:
    """Where calls are noted, and which run of the audit this is: a log holds the calls of every run."""

    path: Place
    run: str = ""

    def write(self, entry: dict[str, Any]) -> None:
        """Note one call, with its time."""
        noted = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": self.run, **entry}
        line = json.dumps(noted, ensure_ascii=False) + "\n"
        with _ONE_WRITER:
            if isinstance(self.path, Remote):
                _put(self.path, self.run, line)
            else:
                _append(self.path, line.encode())

    def entries(self) -> list[dict[str, Any]]:
        """The calls of this run; a line that a crash cut short is left out."""
        found = []
        for line in self._lines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("run") == self.run:
                found.append(entry)
        return found

    def _lines(self) -> list[str]:
        if isinstance(self.path, Remote):
            return [line for data in self.path.contents() for line in data.decode().splitlines()]
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.is_file() else []

    def spent(self) -> Spent:
        """The sums over this run."""
        asked = [entry for entry in self.entries() if not entry.get("cached")]
        outcomes = [entry.get("outcome") for entry in asked]
        prices = [entry["usd"] for entry in asked if entry.get("usd") is not None]
        return Spent(
            sum(entry.get("calls", 1) for entry in asked),
            sum(entry.get("prompt_tokens", 0) + entry.get("completion_tokens", 0) for entry in asked),
            sum(prices) if prices else None,
            sum(entry.get("retries", 0) for entry in asked),
            outcomes.count("refused"),
            outcomes.count("truncated") + outcomes.count("unusable"),
            outcomes.count("failed"),
        )


def _append(path: Path, data: bytes) -> None:
    """Add a line to a file."""
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.lseek(handle, 0, os.SEEK_END)
            if end and os.pread(handle, 1, end - 1) != b"\n":
                data = b"\n" + data  # a crash cut the line before short: it mustn't take this one with it
            os.write(handle, data)
        finally:
            os.close(handle)


def _put(path: Remote, run: str, line: str) -> None:
    """Add a line to this process's object below `path`."""
    mine = (path, run, os.getpid())
    where, lines = _objects.get(mine, (path, []))
    if not lines or len(lines) >= LINES:
        where, lines = path / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl", []
    lines = [*lines, line]
    where.write_bytes("".join(lines).encode())
    _objects[mine] = where, lines
