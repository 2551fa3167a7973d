from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.config import Audit
from pipeline.errors import UserError
from pipeline.sources.coco import coco
from pipeline.stages.ingest import ingest
from tests.sources.conftest import rows

LETTERS = ["a", "b", "c"]


def instances(pictures: Path) -> dict:
    """One object an image: its class, in the left half."""
    files = sorted(pictures.glob("*/*.png"))
    return {
        "images": [
            {"id": n, "file_name": file.relative_to(pictures).as_posix(), "width": 96, "height": 96}  # twice as large
            for n, file in enumerate(files)
        ],
        "categories": [{"id": 10 + n, "name": name} for n, name in enumerate(LETTERS)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 10 + LETTERS.index(file.parent.name), "bbox": [0, 0, 48, 96]}
            for n, file in enumerate(files)
        ],
    }


def written(path: Path, content: dict) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_an_audit_of_coco_uses_its_boxes_and_captions(pictures: Path, audited, from_folder, tmp_path: Path) -> None:
    content = instances(pictures)
    said = [{"id": n, "image_id": n, "caption": f"picture {n}"} for n in range(len(content["images"]))]
    said += [{"id": 99, "image_id": 0, "caption": "a second caption."}]
    captions = written(tmp_path / "captions.json", {"annotations": said})
    path = written(tmp_path / "instances.json", content)
    result = audited(
        {"source": "coco", "path": path, "root": str(pictures), "captions_path": captions},
        caption={"kind": "data"}, detect={"kind": "data"},
    )  # fmt: skip
    compared = ("path", "label", "width", "brightness", "split")
    mine, theirs = ({tuple(row[name] for name in compared) for row in rows(r, "images")} for r in (result, from_folder))
    assert mine == theirs
    found = result.table("detections").to_pylist()
    assert len(found) == 30 and {tuple(row["box"]) for row in found} == {(0, 0, 0.5, 1)}
    labels = {row["image_id"]: row["label"] for row in result.table("images").to_pylist()}
    assert all(row["phrase"] == labels[row["image_id"]] for row in found)
    assert "picture 0. a second caption." in result.table("captions")["caption"].to_pylist()


def test_several_categories_are_several_labels(pictures: Path, tmp_path: Path) -> None:
    content = instances(pictures)
    content["annotations"].append({"id": 50, "image_id": 0, "category_id": 12, "bbox": [0, 0, 9, 9]})
    path = written(tmp_path / "instances.json", content)
    assert next(iter(coco(path=path, root=str(pictures)))).labels == ("a", "c")
    assert next(iter(coco(path=path, root=str(pictures), label="largest"))).labels == ("a",)


def test_masks_give_the_boxes_that_are_missing(pictures: Path, tmp_path: Path) -> None:
    content = instances(pictures)
    for row in content["annotations"]:
        del row["bbox"]
    content["annotations"][0]["segmentation"] = [[10, 20, 40, 20, 40, 60], [5, 30, 8, 30, 8, 35]]
    counts = [96 * 10 + 5, 20] + [76, 20] * 3 + [96 * 96 - (96 * 13 + 25)]
    content["annotations"][1]["segmentation"] = {"size": [96, 96], "counts": counts}
    content["annotations"][2]["segmentation"] = {"size": [96, 96], "counts": "P"}
    items = list(coco(path=written(tmp_path / "instances.json", content), root=str(pictures)))
    boxes = {item.path: item.boxes[0][1] for item in items if item.boxes}
    assert boxes["a/000.png"] == (5, 20, 40, 60)
    assert boxes["a/001.png"] == (10, 5, 14, 25)
    assert "neither polygons nor" in next(item.fault for item in items if item.path == "annotation 2")


def test_faults_are_named(pictures: Path, audited, tmp_path: Path) -> None:
    content = instances(pictures)
    content["images"] += [{"id": 0, "file_name": "b/000.png"}, {"id": 77, "file_name": "c/000.png"}, {"id": 78}]
    content["annotations"] += [
        {"id": 60, "image_id": 500, "category_id": 10, "bbox": [0, 0, 1, 1]},
        {"id": 61, "image_id": 1, "category_id": 500, "bbox": [0, 0, 1, 1]},
        {"id": 62, "image_id": 1, "category_id": 10, "bbox": [0, 0, None, 1]},
        {"id": 63, "image_id": 1, "category_id": 10},
    ]
    result = audited({"source": "coco", "path": written(tmp_path / "i.json", content), "root": str(pictures)})
    reasons = {row["path"]: row["reason"] for row in result.table("quarantine").to_pylist()}
    assert "its id 0 is that of a/000.png" in reasons["b/000.png"]
    assert "no object" in reasons["c/000.png"] and "no file_name" in reasons["image 78"]
    assert "image_id 500" in reasons["annotation 60"] and "category_id 500" in reasons["annotation 61"]
    assert "four numbers" in reasons["annotation 62"] and "neither bbox" in reasons["annotation 63"]
    assert result.run["data"]["images"] == 30


def test_boxes_of_a_picture_that_was_turned_are_left_out(tmp_path: Path, pictures: Path) -> None:
    for name in "ab":
        with Image.open(pictures / name / "000.png") as picture:
            exif = Image.Exif()
            exif[0x0112] = 6  # to be shown turned by 90 degrees
            picture.resize((64, 32)).save(tmp_path / f"{name}.jpg", exif=exif)
    content = {
        "images": [{"id": n, "file_name": f"{name}.jpg", "width": 64, "height": 32} for n, name in enumerate("ab")],
        "categories": [{"id": n, "name": name} for n, name in enumerate("ab")],
        "annotations": [{"id": n, "image_id": n, "category_id": n, "bbox": [0, 0, 9, 9]} for n in range(2)],
    }
    path = written(tmp_path / "i.json", content)
    skipped: list[str] = []
    tables = ingest(
        audit=Audit.from_dict({"data": {"source": "coco", "path": path}, "model": {"kind": "open_clip", "name": "x"}}),
        source=coco(path=path),
        captioner=None,
        detector=None,
        cache=tmp_path / "cache",
        skip=lambda what, why: skipped.append(what),
        count=lambda what, number: None,
        progress=lambda done, total: None,
    )
    assert tables["images"]["width"].to_pylist() == [32, 32] and not len(tables["annotations"])
    assert skipped == ["2 boxes of the data"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"images": [], "annotations": []}', "captions_path"),
        ("[1, 2]", "no list of 'images'"),
        ("{", "not JSON"),
    ],
)
def test_a_file_that_is_no_instances_file(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=words):
        list(coco(path=str(tmp_path / "x.json")))
