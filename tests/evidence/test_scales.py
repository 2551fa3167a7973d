"""A detector's scale from an audit's own classes: what is read, and from which half."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.evidence.scales import fitted
from pipeline.models.calibration import calibrated, check
from pipeline.records import table


def folder(calibration: list | None = None, detect: bool = True, **audit: Any) -> Any:
    """An audit of 400 images of two classes; its detector finds "a thing" at 0.12, a thing that isn't there at 0.03.

    In the estimation half it is the other way round.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat(["a_thing", "b"], 200)
    splits = np.tile(["selection", "estimation"], 200)
    ids = [f"i{number}" for number in range(400)]
    rows: dict[str, list] = {"image_id": [], "phrase": [], "score": [], "box": []}
    for image_id, label, split in zip(ids, labels, splits, strict=True):
        for name in ("a_thing", "b"):
            there = (label == name) == (split == "selection")
            score = np.clip(rng.normal(0.12 if there else 0.03, 0.03), 0.001, 0.999)
            if calibration:
                score = calibrated(np.array([score]), check(calibration))[0]
            rows["image_id"].append(image_id)
            rows["phrase"].append(name.replace("_", " "))
            rows["score"].append(float(score))
            rows["box"].append([0.0, 0.0, 1.0, 1.0])
    tables = {
        "images": pa.table({"image_id": ids, "label": labels.tolist(), "split": splits.tolist()}),
        "detections": pa.table(rows),
        "annotations": table("annotations", []),
    }
    chosen = {"kind": "clip_regions", **({"calibration": calibration} if calibration else {})}
    raw = {
        "data": {"kind": "folder", "path": "/images"},
        "model": {"kind": "python", "factory": "m:f"},
        "detect": chosen if detect else None,
        **audit,
    }
    run = {"audit": raw, "classes": ["a_thing", "b"]}
    read = tables.__getitem__
    return SimpleNamespace(path=Path("x"), run=lambda: run, has=tables.__contains__, read=read, rows=read)


def test_what_is_there_scores_high_and_what_is_not_low() -> None:
    table = fitted(folder())
    low, middle, high = calibrated(np.array([0.03, 0.075, 0.12]), table)
    assert low < 0.1 and high > 0.9 and 0.2 < middle < 0.8


def test_a_calibration_that_was_used_is_undone_first() -> None:
    scores = np.linspace(0, 1, 50)
    plain, again = (calibrated(scores, fitted(folder(calibration))) for calibration in (None, [[0.1, 0.5], [0.3, 0.9]]))
    np.testing.assert_allclose(plain, again, atol=0.02)


def test_an_audit_without_a_half_or_without_a_detector_is_said_plainly() -> None:
    with pytest.raises(UserError, match="don't tell"):
        fitted(folder(no_split=True))  # the halves contradict each other
    with pytest.raises(UserError, match="no detections"):
        fitted(folder(detect=False))
