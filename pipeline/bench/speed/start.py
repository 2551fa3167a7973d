"""Start: what a person waits for before anything is computed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.bench.speed.lines import Line, seconds_of


def bench_start(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """`--help`, the demo's audit without imports, and `show` of it, each in a process of its own."""
    times = 3 if quick else 7
    yield Line("start", "cuescope --help", seconds_of(lambda: _run("--help"), times), 0.5, False, "s")
    out = work / "demo"
    _run(
        "discover",
        str(models.parent / "demo" / "audit.yaml"),
        "--out",
        str(out),
        "--no-prefect",
        "--set",
        f"cache={work / 'demo-cache'}",
    )
    spent = sum(json.loads((out / "run.json").read_text())["seconds"].values())
    yield Line("start", "the demo's audit after imports, nothing cached", spent, 45.0, False, "s")
    yield Line("start", "cuescope show", seconds_of(lambda: _run("show", str(out)), times), 1.5, False, "s")


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cuescope {' '.join(arguments)}: {done.stderr[-2000:]}")
