"""COCO: what pycocotools needs, boxes that come back, attributes for CVAT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.export.coco import ATTRIBUTES, export_coco
from pipeline.export.data import ExportData
from pipeline.geometry import from_pixels
from pipeline.records import ANSWERS
from tests.export.test_label_studio import BOX, audit


def renamed(data: ExportData, cue_id: str) -> ExportData:
    findings = [row | {"cue_id": cue_id} for row in data.findings]
    presence = [row | {"cue_id": cue_id} for row in data.presence]
    return ExportData(data.run, findings, data.images, presence)


def written(tmp_path: Path, data: ExportData, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path, labels = export_coco(data, tmp_path / "out.json", **options)
    return json.loads(path.read_text("utf-8")), json.loads(labels.read_text("utf-8"))


def test_boxes_come_back_with_their_ids(tmp_path: Path) -> None:
    made, _ = written(tmp_path, renamed(audit("/set"), "thing:buoy"))
    assert [c["id"] for c in made["categories"]] == [1] and made["categories"][0]["name"] == "buoy"
    assert len(made["images"]) == 6 and len(made["annotations"]) == 3
    assert len({a["id"] for a in made["annotations"]}) == 3
    for annotation in made["annotations"]:
        x, y, w, h = annotation["bbox"]
        np.testing.assert_allclose(from_pixels([[x, y, x + w, y + h]], 640, 480)[0], BOX, atol=1e-4)
        assert annotation["area"] == pytest.approx(w * h) and annotation["iscrowd"] == 0
        assert tuple(annotation["attributes"]) == ATTRIBUTES
        assert annotation["attributes"]["finding_ids"] == "boat-buoy" and not annotation["attributes"]["whole_image"]
    assert {image["image_id"] for image in made["images"]} == {f"i{i}" for i in range(6)}


def test_a_cue_of_the_whole_image_is_a_box_over_all_of_it(tmp_path: Path) -> None:
    made, _ = written(tmp_path, renamed(audit("/set", boxes=[]), "property:warm tint"))
    assert [a["bbox"] for a in made["annotations"]] == [[0, 0, 640, 480]] * 3
    assert all(a["attributes"]["whole_image"] for a in made["annotations"])


def test_a_thing_without_a_box_has_no_annotation(tmp_path: Path) -> None:
    made, _ = written(tmp_path, renamed(audit("/set", boxes=[]), "thing:buoy"))
    assert made["annotations"] == [] and len(made["images"]) == 6


def test_a_cue_of_two_classes_is_one_category_and_one_box(tmp_path: Path) -> None:
    data = audit("/set", {}, {"class": "owl", "finding_id": "owl-buoy"})
    made, labels = written(tmp_path, renamed(data, "thing:buoy"))
    assert len(made["categories"]) == len(labels) == 1 and len(made["annotations"]) == 3
    assert made["annotations"][0]["attributes"]["finding_ids"] == "boat-buoy owl-buoy"


def test_a_cvat_project_has_the_labels_and_a_choice_for_the_answer(tmp_path: Path) -> None:
    _, (label,) = written(tmp_path, renamed(audit("/set"), "thing:buoy"))
    assert label["name"] == "buoy" and [a["name"] for a in label["attributes"]] == list(ATTRIBUTES)
    (answer,) = [a for a in label["attributes"] if a["name"] == "answer"]
    assert answer["input_type"] == "select" and answer["values"] == ["", *ANSWERS]


def test_mistakes_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="least_verdict=core"):
        export_coco(audit("/set", {"verdict": "core"}), tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO
    export_coco(renamed(audit("/set"), "thing:buoy"), tmp_path / "out.json", all_images=True)
    read = coco(str(tmp_path / "out.json"))
    assert len(read.getImgIds()) == 6 and len(read.getAnnIds(catIds=read.getCatIds(catNms=["buoy"]))) == 3
