"""Why the images are split: cues chosen for their gap and judged on the same images look real where none is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.evidence.presence import Cues
from pipeline.metrics import association
from pipeline.metrics.tests import false_discovery, fisher_exact
from pipeline.records import table
from pipeline.stages.measure import select

CLASSES, N_CUES, N = ["a", "b"], 60, 400


def audit(no_split: bool) -> Audit:
    return Audit.from_dict(
        {
            "data": {"path": "x"},
            "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
            "no_split": no_split,
            "measure": {"max_per_class": 3},
        }
    )


def null_world(seed: int) -> tuple[Cues, np.ndarray, np.ndarray, np.ndarray]:
    """Images of two classes, a model that errs at random, and cues that have nothing to do with either."""
    rng = np.random.default_rng(seed)
    present = rng.random((N, N_CUES)) < rng.uniform(0.2, 0.6, N_CUES)
    rows = [{"cue_id": f"cue {i}", "name": f"cue {i}", "kind": "named"} for i in range(N_CUES)]
    labels = rng.integers(0, 2, N)
    predicted = np.where(rng.random(N) < 0.3, 1 - labels, labels)
    cues = Cues(rows, [f"i{i}" for i in range(N)], present * 1.0, present)
    return cues, labels, predicted, rng.random(N) < 0.5


def confirmed(seed: int, no_split: bool) -> int:
    """How many of the chosen cues have a gap at q <= 0.05 on the images of the estimation half."""
    cues, labels, predicted, selection = null_world(seed)
    config = audit(no_split)
    halves = {"selection": selection | no_split, "estimation": ~selection | no_split}
    gaps = {
        name: association.observed_gaps(cues.present[half], labels[half], predicted[half], 2, np.ones(half.sum()))
        for name, half in halves.items()
    }
    attributes: pa.Table = table("attributes", [])
    chosen = select(
        cues,
        halves["selection"],
        association.association(gaps["selection"].counts),
        gaps["selection"],
        np.full((2, N_CUES), np.nan),
        attributes,
        config,
        CLASSES,
    )
    p = []
    half = halves["estimation"]
    for c, number in chosen:
        for mine, wrong in (((labels == c) & half, predicted != c), ((labels != c) & half, predicted == c)):
            cue = cues.present[:, number]
            # worse without the cue for the class's own images, with it for the others
            worse = ~cue if (labels[mine] == c).all() else cue
            k1, n1 = (wrong & worse & mine).sum(), (worse & mine).sum()
            k2, n2 = (wrong & ~worse & mine).sum(), (~worse & mine).sum()
            p.append(float(fisher_exact(k1, n1, k2, n2)))
    return int((false_discovery(p) <= 0.05).sum()) if p else 0


def test_leaking_the_halves_raises_false_findings() -> None:
    split = np.mean([confirmed(seed, no_split=False) > 0 for seed in range(80)])
    leaked = np.mean([confirmed(seed, no_split=True) > 0 for seed in range(80)])
    assert split <= 0.1
    assert leaked >= split + 0.2
