"""Start: what a person waits for before anything is computed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.bench.speed.lines import Line, seconds_of
from pipeline.store import AuditFolder


def bench_start(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """`--help`, the demo's audit without imports, and `show` of it, each in a process of its own."""
    times = 3 if quick else 7
    yield Line("start", "cuescope --help", seconds_of(lambda: _run("--help"), times), 0.5, False, "s")
    out = demo_audit(models, work)
    spent = sum(out.run()["seconds"].values())
    yield Line("start", "the demo's audit after imports, nothing cached", spent, 45.0, False, "s")
    yield Line("start", "cuescope show", seconds_of(lambda: _run("show", str(out.path)), times), 1.5, False, "s")


def demo_audit(models: Path, work: Path) -> AuditFolder:
    """The demo's audit, with nothing cached."""
    shutil.rmtree(work / "demo-cache", ignore_errors=True)
    config = models.parent / "demo" / "audit.yaml"
    out = work / "demo"
    _run("discover", str(config), "--out", str(out), "--no-prefect", "--set", f"cache={work / 'demo-cache'}")
    return AuditFolder.open(out)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cuescope {' '.join(arguments)}: {done.stderr[-2000:]}")
