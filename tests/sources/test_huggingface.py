from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.sources.huggingface import huggingface
from tests.sources.conftest import rows

datasets = pytest.importorskip("datasets")

IMAGE = [("bytes", pa.binary()), ("path", pa.string())]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def imagefolder(pictures: Path, root: Path) -> str:
    """The Hub's imagefolder with metadata: files beside a metadata.jsonl."""
    (root / "train").mkdir(parents=True)
    lines = []
    for file in sorted(pictures.glob("*/*.png")):
        name = f"{file.parent.name}-{file.name}"
        shutil.copy(file, root / "train" / name)
        objects = {"bbox": [[0, 0, 24, 48]], "categories": ["lamp"]}
        row = {"file_name": name, "label": file.parent.name, "text": f"see {name}", "objects": objects}
        lines.append(json.dumps(row))
    (root / "train" / "metadata.jsonl").write_text("\n".join(lines))
    return str(root)


def test_an_imagefolder_with_metadata(pictures: Path, audited, from_folder, tmp_path: Path) -> None:
    data = {"source": "huggingface", "name": imagefolder(pictures, tmp_path / "set"), "columns": {"caption": "text"}}
    result = audited(
        data, caption={"kind": "data"}, detect={"kind": "data"}, propose={"kind": "list", "attributes": ["lamp"]}
    )
    compared = ("label", "group", "split", "brightness")
    mine, theirs = (sorted(tuple(r[c] for c in compared) for r in rows(x, "images")) for x in (result, from_folder))
    assert mine == theirs
    assert {row["path"].split("/")[0] for row in result.table("images").to_pylist()} == {"train"}
    assert "a-000.png" in {row["path"].split("/")[-1] for row in result.table("images").to_pylist()}
    assert "see a-000.png" in result.table("captions")["caption"].to_pylist()
    found = result.table("detections").to_pylist()
    assert len(found) == 30 and {tuple(row["box"]) for row in found} == {(0, 0, 0.5, 1)}


def test_a_saved_data_set_with_class_numbers_and_splits(pictures: Path, audited, from_folder, tmp_path: Path) -> None:
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b", "c"])})
    files = sorted(pictures.glob("*/*.png"))

    def part(chosen: list[Path], extra: list[int]) -> object:
        bytes_of = [{"bytes": file.read_bytes(), "path": file.name} for file in chosen]
        numbers = ["abc".index(file.parent.name) for file in chosen]
        return datasets.Dataset.from_dict({"img": bytes_of + bytes_of[: len(extra)], "fine": numbers + extra}, features)

    whole = datasets.DatasetDict({"train": part(files[::2], [-1]), "test": part(files[1::2], [])})
    whole.save_to_disk(tmp_path / "saved")
    data = {
        "source": "huggingface", "name": str(tmp_path / "saved"), "columns": {"image": "img", "label": "fine"},
        "splits": {"train": "selection", "test": "estimation"},
    }  # fmt: skip
    result = audited(data)
    assert rows(result, "images", "path", "split") == rows(from_folder, "images", "path", "split")
    assert rows(result, "predictions") == rows(from_folder, "predictions")
    assert all(
        (row["split"] == "selection") == row["path"].startswith("train/") for row in result.table("images").to_pylist()
    )
    assert [row["reason"] for row in result.table("quarantine").to_pylist()] == ["it has no label"]


def test_a_data_set_may_not_name_any_file(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "saved").mkdir()  # as Parquet, for save_to_disk would put the file's bytes in the table
    image = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}], pa.struct(IMAGE))
    pq.write_table(pa.table({"image": image, "label": ["a"]}), tmp_path / "saved" / "train.parquet")
    source = huggingface(name=str(tmp_path / "saved"))
    item = next(iter(source))
    with pytest.raises(OSError, match="outside"):
        source.read(item.path)
    assert huggingface(name=str(tmp_path / "saved"), allow_outside=True).read(item.path) == b"secret"


def test_mistakes_are_one_plain_line(pictures: Path, tmp_path: Path) -> None:
    name = imagefolder(pictures, tmp_path / "set")
    for options, words in (
        ({"name": name, "split": "trian"}, "Did you mean 'train'"),
        ({"name": name, "columns": {"label": "lable"}}, "Did you mean 'label'"),
        ({"name": str(tmp_path / "none")}, "there is no folder"),
    ):
        with pytest.raises(UserError, match=words):
            list(huggingface(**options))
