"""Hugging Face imagefolder: the pictures byte by byte, metadata beside them, and what `datasets` makes of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.export.data import ExportData
from pipeline.export.imagefolder import export_imagefolder
from tests.export.test_label_studio import BOX, audit


def pictures(path: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((480, 640, 3), sum(path.encode()) % 255, np.uint8)).save(file, "PNG")
    return file.getvalue()


def data(path: str = "boat/{}.png") -> ExportData:
    made = audit("/set", path=path)
    images = [row | {"split": "estimation"} for row in made.images]
    return replace(made, images=images, read=pictures, boxes=lambda ids: lambda image_id, cue_id: [BOX])


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text("utf-8").splitlines()]


def test_pictures_and_their_rows(tmp_path: Path) -> None:
    made = data()
    export_imagefolder(made, tmp_path / "out")
    rows = lines(tmp_path / "out")
    assert len(rows) == 6
    for row in rows:
        assert (tmp_path / "out" / "train" / row["file_name"]).read_bytes() == pictures(row["path"])
    first, last = rows[0], rows[-1]
    assert first["label"] == "boat" and first["cues"] == ["buoy"] and first["classes"] == ["boat"]
    assert first["objects"] == {
        "bbox": [[64, 96, 192, 120]], "categories": [0], "names": ["buoy"], "finding_ids": ["boat-buoy"],
    }  # fmt: skip
    assert last["cues"] == [] and last["objects"]["bbox"] == []


def test_a_file_without_a_suffix_gets_that_of_its_format(tmp_path: Path) -> None:
    export_imagefolder(data("shard.tar:{}"), tmp_path / "out")
    assert all(row["file_name"].endswith(".png") for row in lines(tmp_path / "out"))


def test_a_path_that_leads_elsewhere_leads_nowhere(tmp_path: Path) -> None:
    export_imagefolder(data("../../{}.png"), tmp_path / "a" / "b" / "out")
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "a" / "b" / "out" / "train"}


def test_a_folder_with_other_files_is_left_alone_and_our_own_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        export_imagefolder(data(), tmp_path)
    export_imagefolder(data(), tmp_path / "out")
    export_imagefolder(data(), tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 6
    (tmp_path / "out" / "train" / "mine.txt").write_text("mine")
    with (tmp_path / "out" / "train" / "metadata.jsonl").open("a") as written:  # a name that isn't ours, and no text
        written.write('{"file_name": "mine.txt"}\n{"file_name": "metadata.jsonl"}\n' + "[" * 5000 + "\n")
    export_imagefolder(data(), tmp_path / "out", with_cue=1, without_cue=0, sample=0)
    (left,) = lines(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "train").iterdir()}
    assert names == {left["file_name"], "metadata.jsonl", "mine.txt"}


def test_datasets_loads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export_imagefolder(data(), tmp_path / "out")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = list(loaded["train"])
    assert len(rows) == 6 and rows[0]["image"].size == (640, 480)
    by_id = {row["image_id"]: row for row in rows}
    assert by_id["i0"]["label"] == "boat" and by_id["i0"]["objects"]["names"] == ["buoy"]
