"""Measure: every (class, cue) pair of a large audit at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.bench.peak import peak
from pipeline.bench.speed.lines import Line
from pipeline.config import Audit
from pipeline.evidence.presence import Cues
from pipeline.metrics import association
from pipeline.records import table
from pipeline.stages.measure import select, top_k_gaps

QUICK, FULL = (100, 100, 10_000), (1_000, 300, 100_000)
"""Classes, cues, images."""
HALVES = ("selection", "estimation")


def bench_measures(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """Association, gaps, SpurLens' gaps with their null, and the choice of cues, in both halves."""
    sizes = QUICK if quick else FULL
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.bench.speed.measures", *map(str, sizes)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    seconds, most = map(float, done.stdout.split()[-2:])
    said = "{:,} classes x {:,} cues x {:,} images".format(*sizes)
    yield Line("measure", said, seconds, 60.0, False, "s")
    yield Line("measure", f"peak memory, {said}", most, 4 * 1024, False, "MiB")


def all_pairs(n_classes: int, n_cues: int, n_images: int) -> tuple[float, float]:
    """Seconds and peak MiB of what the stage `measure` makes of presence, labels and predictions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(n_classes, size=n_images)
    predicted = np.where(rng.random(n_images) < 0.8, labels, rng.integers(n_classes, size=n_images))
    scores = rng.random((n_images, n_cues))
    rows = [
        {"cue_id": f"thing:{number}", "name": f"cue {number}", "kind": "named", "operator": "region"}
        for number in range(n_cues)
    ]
    cues = Cues(rows, [str(number) for number in range(n_images)], scores, scores > 0.9)
    groups = np.arange(n_images)
    half = rng.random(n_images) < 0.5
    audit = Audit.from_dict({"data": {"source": "folder", "path": "."}, "model": {"kind": "open_clip", "name": "-"}})
    classes = [f"class {number}" for number in range(n_classes)]
    began = time.perf_counter()
    chosen: dict[tuple[int, int], int] = {}
    for split, mine in zip(HALVES, (half, ~half), strict=True):
        weights = association.group_weights(groups[mine])
        gaps = association.observed_gaps(cues.present[mine], labels[mine], predicted[mine], n_classes, weights)
        odds = association.association(gaps.counts)
        numbers = {
            "cramers_v": association.cramers_v(gaps.counts.table),
            **top_k_gaps(cues, mine, labels, predicted, n_classes, audit),
        }
        if split == "selection":
            nothing = np.full(odds.estimate.shape, np.nan)
            chosen = select(cues, mine, odds, gaps, nothing, table("attributes", []), audit, classes)
        assert numbers["pa_gap_top_k"].shape == (n_classes, n_cues)
    seconds = time.perf_counter() - began
    assert len(chosen) <= n_classes * n_cues
    return seconds, peak()


if __name__ == "__main__":
    print(*all_pairs(*map(int, sys.argv[1:4])))
