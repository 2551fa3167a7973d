"""The log of an audit's calls of paid services: one JSON line a call, without secrets, in its folder's `llm.jsonl`."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.store import explained

_ONE_WRITER = threading.Lock()


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

    path: Path
    run: str = ""

    def write(self, entry: dict[str, Any]) -> None:
        """Note one call, with its time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": self.run, **entry}
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        with _ONE_WRITER, explained(self.path.parent):
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                if end and os.pread(handle, 1, end - 1) != b"\n":
                    data = b"\n" + data  # a crash cut the line before short: it mustn't take this one with it
                os.write(handle, data)
            finally:
                os.close(handle)

    def entries(self) -> list[dict[str, Any]]:
        """The calls of this run; a line that a crash cut short is left out."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("run") == self.run:
                found.append(entry)
        return found

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
