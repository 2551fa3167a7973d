"""Start: what a person waits for before anything is computed."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.bench.speed.lines import Line, seconds_of
from pipeline.chain import run_audit
from pipeline.config import Audit
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
    """The demo's audit, with nothing cached, in a process that has imported its models' packages."""
    shutil.rmtree(work / "demo-cache", ignore_errors=True)
    config, out = models.parent / "demo" / "audit.yaml", work / "demo"
    command = [sys.executable, "-m", "pipeline.bench.speed.start", str(config), str(out), str(work / "demo-cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the demo's audit: {done.stderr[-2000:]}")
    return AuditFolder.open(out)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cuescope {' '.join(arguments)}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    from pipeline.quiet import quieten

    quieten()
    for package in ("torch", "torchvision", "transformers", "open_clip", "faiss", "ultralytics", "scipy.stats"):
        importlib.import_module(package)
    from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: F401 - it imports what is asked for

    run_audit(Audit.from_yaml(sys.argv[1], [f"cache={sys.argv[3]}"]), sys.argv[2])
