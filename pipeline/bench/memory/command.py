"""`cuescope bench memory`: the same audit of more and more pictures, each in a process of its own.

The whole chain runs, on pictures of the rendered world with captions and boxes from their manifest, and with models
that cost next to nothing: what grows is Cuescope's own. A real model adds its weights, which are the same at every
size, so the ratio with one is smaller.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.bench.memory.pictures import first_of, write_set
from pipeline.store import write_text

FULL, QUICK = (2_000, 10_000, 50_000), (300, 600, 1_200)
MOST = 1.25
"""The largest peak may be so many times that of the smallest size."""
SETTINGS = {
    "model": {"kind": "python", "factory": "pipeline.bench.memory.models:bar_reader"},
    "caption": {"kind": "data"},
    "detect": {"kind": "data"},
    "embed": {"kind": "python", "factory": "pipeline.bench.memory.models:histograms"},
    # experiments cost the same at every size; these are enough to go through all of their code
    "measure": {"max_per_class": 4},
    "ablate": {"fills": ["mean", "blur"], "images": 16},
}


def bench_memory(quick: bool, out: Path | None) -> bool:
    """Run, print, and write where asked; whether the peak stays within the target."""
    sizes = QUICK if quick else FULL
    work = Path(tempfile.mkdtemp(prefix="cuescope-memory-"))
    try:
        print(f"Rendering {sizes[-1]:,} pictures ...", flush=True)
        manifest = write_set(work / "pictures", sizes[-1])
        rows = []
        for size in sizes:
            rows.append(audit_of(first_of(manifest, size), work / str(size)))
            print(in_a_line(rows[-1]), flush=True)
            shutil.rmtree(work / str(size))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found = verdict(rows)
    print(
        f"peak at {sizes[-1]:,} over that at {sizes[0]:,} images: {found['ratio']:.2f} (at most {MOST}): "
        f"{'holds' if found['holds'] else 'MISSED'}"
    )
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
        print(out)
    return bool(found["holds"])


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What was measured at each size, the ratio of the last peak to the first, and whether it is within the target."""
    ratio = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    return {"command": "cuescope bench memory", "sizes": rows, "ratio": ratio, "target": MOST, "holds": ratio <= MOST}


def audit_of(manifest: Path, work: Path) -> dict[str, Any]:
    """Audit the pictures of a manifest in a process of its own; see child.run for what it gives.

    Raises:
        RuntimeError: the audit failed; with what it said.
    """
    work.mkdir(parents=True)
    data = {"source": "manifest", "path": str(manifest), "box_unit": "share"}
    (work / "audit.json").write_text(json.dumps({"data": data, "cache": str(work / "cache"), **SETTINGS}))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.bench.memory.child", str(work / "audit.json"), str(work / "audit")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the audit of {manifest} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_a_line(row: dict[str, Any]) -> str:
    """A size, its peak and its time."""
    worst = max(row["peak_by_stage_mib"], key=row["peak_by_stage_mib"].get)
    seconds = row["seconds"]
    slow = sorted(seconds, key=seconds.get, reverse=True)[:3]
    return (
        f"{row['images']:7,} images: peak {row['peak_mib']:5.0f} MiB (in {worst}), {sum(seconds.values()):6.0f} s "
        f"({', '.join(f'{name} {seconds[name]:.0f}' for name in slow)})"
    )
