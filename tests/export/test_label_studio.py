"""Label Studio's files: valid by their own configuration, boxes that come back, names that break nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bench.report.synthetic import finding
from pipeline.errors import UserError
from pipeline.export.data import ExportData
from pipeline.export.label_studio import export_label_studio, label_of, labeling_config
from pipeline.geometry import as_boxes, from_percent_xywh, to_percent_xywh
from pipeline.models import registry
from pipeline.records import ANSWERS

BOX = [0.1, 0.2, 0.4, 0.45]
CORNERS = st.tuples(*[st.floats(0, 1)] * 4).map(
    lambda v: [min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])]
)


def audit(
    root: str, *rows: dict[str, Any], path: str = "boat/{}.png", boxes: list[list[float]] | None = None
) -> ExportData:
    """Six images of a class; the first three show the cue, the others don't."""
    ids = [f"i{i}" for i in range(6)]
    shown = [BOX] if boxes is None else boxes
    default = finding(verdict="confirmed", evidence_ids=ids[:3], evidence_boxes=[shown] * 3)
    findings = [default | row for row in rows or ({},)]
    return ExportData(
        run={"digest": "abc", "data": {"root": root}},
        findings=findings,
        images=[
            {
                "image_id": key,
                "path": path.format(i),
                "label": findings[0]["class"],
                "width": 640,
                "height": 480,
            }
            for i, key in enumerate(ids)
        ],
        presence=[
            {"image_id": key, "cue_id": "buoy", "score": 0.9 - i / 10, "present": i < 3} for i, key in enumerate(ids)
        ],
    )


def written(tmp_path: Path, data: ExportData, **options: Any) -> tuple[list[dict[str, Any]], ElementTree.Element]:
    *tasks, config = export_label_studio(data, tmp_path / "out.json", **options)
    return [task for path in tasks for task in json.loads(path.read_text("utf-8"))], ElementTree.parse(config).getroot()


def check(tasks: list[dict[str, Any]], config: ElementTree.Element) -> None:
    """What Label Studio checks of a prediction: names and values from the configuration, geometry, score."""
    controls = {e.get("name"): e for e in config.iter() if e.get("toName")}
    assert {e.get("toName") for e in controls.values()} == {config.find("Image").get("name")}  # type: ignore[union-attr]
    for reference in (config.find("Image"), config.find("Header")):
        assert reference is not None and str(reference.get("value")).startswith("$")
        assert all(str(reference.get("value"))[1:] in task["data"] for task in tasks)
    for task in tasks:
        (prediction,) = task["predictions"]
        assert 0 <= prediction.get("score", 0) <= 1 and prediction["model_version"]
        ids = [part["id"] for part in prediction["result"]]
        assert len(ids) == len(set(ids))
        for part in prediction["result"]:
            control = controls[part["from_name"]]
            assert part["type"] == control.tag.lower() and part["to_name"] == control.get("toName")
            offered = {child.get("value") for child in control}
            assert set(part["value"].get("rectanglelabels", part["value"].get("choices"))) <= offered
            if part["type"] == "rectanglelabels":
                x, y, width, height = (part["value"][name] for name in ("x", "y", "width", "height"))
                assert min(x, y, width, height) >= 0 and x + width <= 100.0001 and y + height <= 100.0001


def test_tasks_fit_the_configuration_made_with_them(tmp_path: Path) -> None:
    tasks, config = written(tmp_path, audit(str(tmp_path / "set")))
    check(tasks, config)
    assert len(tasks) == 6
    first = tasks[0]
    assert first["data"]["question"] == "Is “buoy” a shortcut for “boat”? Mark it where you see it."
    assert {name: first["data"][name] for name in ("run_id", "finding_id", "image_id", "class", "cue")} == {
        "run_id": "abc",
        "finding_id": "boat-buoy",
        "image_id": "i0",
        "class": "boat",
        "cue": "buoy",
    }
    part = first["predictions"][0]["result"][0]
    assert (part["original_width"], part["original_height"]) == (640, 480)
    assert part["value"].pop("rectanglelabels") == ["buoy"]
    assert part["value"] == pytest.approx({"x": 10, "y": 20, "width": 30, "height": 25, "rotation": 0})
    assert first["predictions"][0]["score"] == pytest.approx(0.9)


def test_labelers_see_images_with_and_without_the_cue(tmp_path: Path) -> None:
    tasks, _ = written(tmp_path, audit(str(tmp_path)), with_cue=2, without_cue=2, local_root=str(tmp_path))
    assert [(t["data"]["image_id"], t["data"]["expected"]) for t in tasks] == [
        ("i0", "present"),
        ("i1", "present"),
        ("i5", "absent"),
        ("i4", "absent"),
    ]
    assert all(part["type"] != "rectanglelabels" for t in tasks[2:] for part in t["predictions"][0]["result"])


@pytest.mark.parametrize("preset", [False, True])
def test_the_verdict_is_chosen_beforehand_only_when_asked(tmp_path: Path, preset: bool) -> None:
    tasks, config = written(tmp_path, audit(str(tmp_path / "set")), preset_verdict=preset)
    check(tasks, config)
    chosen = [p["value"]["choices"] for t in tasks for p in t["predictions"][0]["result"] if p["type"] == "choices"]
    assert chosen == ([["spurious"]] * 6 if preset else [])
    assert [choice.get("value") for choice in config.iter("Choice")] == list(ANSWERS)


def test_local_files_are_named_from_the_root_that_label_studio_serves(tmp_path: Path) -> None:
    data = audit(str(tmp_path / "my set"), path="a b/#?&{}%ü.png")
    for options, folder in (
        ({}, "my set"),
        ({"local_root": str(tmp_path.parent)}, f"{tmp_path.name}/my set"),
    ):
        tasks, _ = written(tmp_path, data, **options)
        address = urlsplit(tasks[0]["data"]["image"])
        assert address.path == "/data/local-files/" and not address.fragment
        assert parse_qs(address.query) == {"d": [f"{folder}/a b/#?&0%ü.png"]}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("https://example.org/set", "https://example.org/set/a%20b/0.png"),
        ("https://example.org/set/", "https://example.org/set/a%20b/0.png"),
        ("s3://bucket/set", "s3://bucket/set/a b/0.png"),
    ],
)
def test_addresses_elsewhere(tmp_path: Path, prefix: str, expected: str) -> None:
    tasks, _ = written(tmp_path, audit("", path="a b/{}.png"), image_prefix=prefix)
    assert tasks[0]["data"]["image"] == expected


def test_batches_are_numbered_and_hold_every_task_once(tmp_path: Path) -> None:
    paths = export_label_studio(audit(str(tmp_path / "set")), tmp_path / "out.json", batch=4)
    assert [path.name for path in paths] == ["out-001.json", "out-002.json", "out.xml"]
    sizes = [len(json.loads(path.read_text("utf-8"))) for path in paths[:-1]]
    assert sizes == [4, 2]


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    made = audit(str(tmp_path / "set"))
    export_label_studio(made, tmp_path / "out.json", batch=2)
    (tmp_path / "out-2024.json").write_text('{"mine": true}')
    export_label_studio(made, tmp_path / "out.json", batch=4)
    assert sorted(path.name for path in tmp_path.glob("out*.json")) == ["out-001.json", "out-002.json", "out-2024.json"]


def test_what_people_annotated_is_not_replaced(tmp_path: Path) -> None:
    made, out = audit(str(tmp_path / "set")), tmp_path / "out.json"
    export_label_studio(made, out)
    tasks = json.loads(out.read_text("utf-8"))
    tasks[-1]["annotations"] = [{"result": []}]
    out.write_text(json.dumps(tasks))
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"people's annotations.*import-verdicts"):
        export_label_studio(made, out)
    export_label_studio(made, out, batch=4)  # beside it
    assert out.read_bytes() == before


def test_a_folder_is_filled(tmp_path: Path) -> None:
    paths = export_label_studio(audit(str(tmp_path / "set")), tmp_path / "review")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "review/tasks.json",
        "review/tasks.xml",
    ]


def test_the_least_verdict_decides_who_is_asked_about(tmp_path: Path) -> None:
    rows = [{"finding_id": v, "verdict": v} for v in ("confirmed", "associated only", "core", "inconclusive")]
    data = audit(str(tmp_path / "set"), *rows)
    for least, expected in (
        ("confirmed", {"confirmed"}),
        ("inconclusive", {"confirmed", "inconclusive"}),
        ("core", {"confirmed", "inconclusive", "associated only", "core"}),
    ):
        tasks, _ = written(tmp_path, data, least_verdict=least)
        assert {task["data"]["finding_id"] for task in tasks} == expected


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (audit("/set", {"verdict": "core"}), {}, "least_verdict=core"),
        (audit("/set"), {"local_root": "/elsewhere"}, "outside local_root"),
        (audit("s3://bucket/set"), {}, "image_prefix"),
        (audit("/set"), {"batch": 0}, "at least 1"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    tmp_path: Path, data: ExportData, options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export_label_studio(data, tmp_path / "out.json", **options)
    assert list(tmp_path.iterdir()) == []


def test_scores_that_are_no_probabilities_are_left_out(tmp_path: Path) -> None:
    data = audit(str(tmp_path / "set"))
    odd = [
        row | {"score": score}
        for row, score in zip(data.presence, (1.5, -0.2, float("nan"), 0.0, 0.5, 1.0), strict=True)
    ]
    tasks, config = written(tmp_path, ExportData(data.run, data.findings, data.images, odd))
    check(tasks, config)
    assert ["score" in task["predictions"][0] for task in tasks[:3]] == [False] * 3


@given(st.lists(CORNERS, min_size=1, max_size=4))
def test_boxes_come_back(boxes: list[list[float]]) -> None:
    back = from_percent_xywh(to_percent_xywh(as_boxes(boxes)))
    np.testing.assert_allclose(back, boxes, atol=1e-6)


@settings(max_examples=40, deadline=None)  # each writes files
@given(boxes=st.lists(CORNERS, max_size=3))
def test_exported_boxes_come_back(tmp_path_factory: pytest.TempPathFactory, boxes: list[list[float]]) -> None:
    tasks, config = written(tmp_path_factory.mktemp("ls"), audit("/set", boxes=boxes))
    check(tasks, config)
    values = [part["value"] for part in tasks[0]["predictions"][0]["result"]]
    back = from_percent_xywh([[v[name] for name in ("x", "y", "width", "height")] for v in values])
    np.testing.assert_allclose(back, np.reshape(boxes, (-1, 4)), atol=1e-6)


@settings(max_examples=40, deadline=None)  # each writes files
@given(cue=st.text(max_size=40), label=st.text(max_size=40))
def test_any_name_gives_valid_files(tmp_path_factory: pytest.TempPathFactory, cue: str, label: str) -> None:
    data = audit("/set", {"cue": cue, "class": label})
    tasks, config = written(tmp_path_factory.mktemp("ls"), data)
    check(tasks, config)
    assert tasks[0]["data"]["cue"] == cue and tasks[0]["data"]["class"] == label


@pytest.mark.parametrize("cue", ['"/><Choices name="x"/>', "$image", "a\x00b\x0bc", "&lt;", "  ", "tab\tline\nbreak"])
def test_hostile_cues_stay_one_label(cue: str) -> None:
    config = ElementTree.fromstring(labeling_config([finding(cue=cue)]))
    (label,) = config.iter("Label")
    assert label.get("value") == label_of(cue) and not label_of(cue).startswith("$")
    assert [e.tag for e in config] == ["Header", "Image", "RectangleLabels", "Choices", "TextArea"]


def test_a_cue_of_two_findings_is_one_label() -> None:
    config = ElementTree.fromstring(labeling_config([finding(), finding(**{"class": "owl"})]))
    assert len(list(config.iter("Label"))) == 1


def test_the_options_are_known_to_the_registry() -> None:
    checked = registry.check_options("export", "label-studio", {"preset_verdict": True, "least_verdict": "core"})
    assert checked["preset_verdict"] is True and checked["batch"] == 5000
    with pytest.raises(UserError, match="least_verdict"):
        registry.check_options("export", "label-studio", {"least_verdict": "all"})
