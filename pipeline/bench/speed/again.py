"""Incremental: an audit that is run again, unchanged and with one image of a hundred more."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.bench.memory.command import SETTINGS
from pipeline.bench.memory.pictures import first_of, write_set
from pipeline.bench.speed.lines import Line, seconds_of
from pipeline.bench.speed.models import clip_of_size, pictures
from pipeline.models.open_clip_model import open_clip_classifier
from pipeline.store import write_text


def bench_again(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """Seconds of the whole command, with its imports."""
    size = 1_000 if quick else 50_000
    manifest, number = work / "pictures" / "manifest.parquet", size + size // 100
    if not (manifest.is_file() and pq.read_metadata(manifest).num_rows == number):
        write_set(manifest.parent, number)
    before = first_of(manifest, size)
    for old in ("first", "more", "cache"):  # of an earlier run
        shutil.rmtree(work / old, ignore_errors=True)
    first = _audit(before, work, "first")
    again = _audit(before, work, "again")
    more = _audit(manifest, work, "more", "first")
    yield Line("incremental", f"the first audit of {size:,} images, models for nothing", first, unit="s")
    yield Line("incremental", f"an unchanged audit of {size:,} images", again, 20.0, False, "s")
    yield Line("incremental", "one image of a hundred more, models for nothing, over the first audit", more / first)
    # what a person waits for: the same two audits, had each of their forwards been one of this model
    model = open_clip_classifier(("boat", "car"), "cpu", name=clip_of_size("ViT-B-32", work), precision="fp32")
    shown = pictures(8 if quick else 64, 256)
    model.logits(shown[:2])
    forward = seconds_of(lambda: model.logits(shown)) / len(shown)
    costs = [seconds + _forwards(work / name) * forward for name, seconds in (("first", first), ("more", more))]
    said = f"{size:,} images, a forward of ViT-B-32 at {forward * 1000:.0f} ms"
    # of a small first audit the start, which grows with nothing, is a larger share
    target = None if quick else 0.05
    yield Line(
        "incremental",
        "one image of a hundred more, over the first audit",
        costs[1] / costs[0],
        target,
        False,
        setting=said,
    )


def _forwards(audit: Path) -> int:
    return int(sum(json.loads((audit / "run.json").read_text(encoding="utf-8"))["forwards"].values()))


def _audit(manifest: Path, work: Path, name: str, previous: str = "") -> float:
    data = {"source": "manifest", "path": str(manifest), "box_unit": "share"}
    config = work / f"{name}.yaml"
    write_text(config, json.dumps({"data": data, "cache": str(work / "cache"), **SETTINGS}))
    out = work / (previous or "first") if name == "again" else work / name
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "discover", str(config), "--out", str(out), "--no-prefect"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - began
