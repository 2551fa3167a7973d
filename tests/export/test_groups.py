"""Groups for mitigation training: class x cue, weights, and the accuracy of each group."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bench.report.synthetic import finding
from pipeline.errors import UserError
from pipeline.export.data import ExportData
from pipeline.export.groups import export_groups

CLASSES = ["boat", "train"]


def audit(n: int = 200, seed: int = 0) -> ExportData:
    """Boats go with the buoy, and are missed without it; the first half of the images is the selection half."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    shown = rng.random(n) < np.where(y == 0, 0.8, 0.1)
    right = (y == 1) | shown
    ids = [f"i{i}" for i in range(n)]
    halves = ["selection"] * (n // 2) + ["estimation"] * (n - n // 2)
    return ExportData(
        run={"classes": CLASSES, "split": True},
        findings=[finding(verdict="confirmed", cue_id="thing:buoy", cue="buoy")],
        images=[{"image_id": i, "path": f"{i}.png", "label": CLASSES[c], "split": half}
                for i, c, half in zip(ids, y, halves, strict=True)],
        presence=[{"image_id": i, "cue_id": "thing:buoy", "score": float(s), "present": bool(s)}
                  for i, s in zip(ids, shown, strict=True)],
        said={i: frozenset({CLASSES[c if ok else 1 - c]}) for i, c, ok in zip(ids, y, right, strict=True)},
    )  # fmt: skip


def written(tmp_path: Path, data: ExportData, **options: Any) -> list[list[dict[str, str]]]:
    paths = export_groups(data, tmp_path / "groups.csv", **options)
    assert [path.name for path in paths] == ["groups.csv", "groups-accuracy.csv"]
    return [list(csv.DictReader(path.open(encoding="utf-8", newline=""))) for path in paths]


def test_each_image_has_its_group_and_the_groups_weigh_the_same(tmp_path: Path) -> None:
    images, groups = written(tmp_path, audit())
    assert len(images) == 200
    weights: dict[str, float] = defaultdict(float)
    for row in images:
        assert int(row["group"]) == 2 * int(row["y"]) + int(row["present"]) and CLASSES[int(row["y"])] == row["class"]
        weights[row["group"]] += float(row["weight"])
    assert set(weights) == {"0", "1", "2", "3"}
    assert all(total == pytest.approx(50) for total in weights.values())
    for group in groups:
        assert int(group["images"]) == sum(row["group"] == group["group"] for row in images)


def test_the_worst_group_is_the_class_without_its_cue_measured_on_the_estimation_half(tmp_path: Path) -> None:
    images, groups = written(tmp_path, audit(), least_images=5)
    (worst,) = [row for row in groups if row["worst"] == "1"]
    assert (worst["class"], worst["present"], float(worst["accuracy"])) == ("boat", "0", 0.0)
    half = [row for row in images if row["split"] == "estimation" and row["group"] == worst["group"]]
    assert int(worst["measured"]) == len(half) < int(worst["images"])
    assert 0 == float(worst["accuracy_lower"]) < float(worst["accuracy_upper"]) < 0.5


def test_a_small_group_is_not_the_worst(tmp_path: Path) -> None:
    _, groups = written(tmp_path, audit(), least_images=1000)
    assert {row["worst"] for row in groups} == {"0"}


def test_any_findings_cue_can_be_named(tmp_path: Path) -> None:
    data = audit()
    data.findings[0]["verdict"] = "associated only"
    with pytest.raises(UserError, match="cue=\\.\\.\\."):
        export_groups(data, tmp_path / "g.csv")
    with pytest.raises(UserError, match="Did you mean 'buoy'"):
        export_groups(data, tmp_path / "g.csv", cue="bouy")
    assert list(tmp_path.iterdir()) == []
    images, _ = written(tmp_path, data, cue="buoy")
    assert {row["cue"] for row in images} == {"buoy"}


def test_what_people_call_spurious_is_there_whatever_the_verdict(tmp_path: Path) -> None:
    data = audit()
    data.findings[0] |= {"verdict": "inconclusive", "labelers": "spurious"}
    images, _ = written(tmp_path, data)
    assert len(images) == 200
