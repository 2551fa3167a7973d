from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import UserError
from pipeline.sources.webdataset import webdataset
from tests.sources.conftest import rows


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def write_shards(pictures: Path, root: Path, kind: str) -> Path:
    """Ten samples a shard, as the format's own writer lays them out."""
    root.mkdir(exist_ok=True)
    files = sorted(pictures.glob("*/*.png"))
    for number in range(3):
        with tarfile.open(root / f"train-{number:03d}.tar", "w") as archive:
            for n in range(10 * number, 10 * number + 10):
                label = files[n].parent.name
                if kind == "cls":
                    add(archive, f"{n:04d}.cls", str("abc".index(label)).encode())
                    add(archive, f"{n:04d}.txt", f"number {n}".encode())
                else:
                    row = {"class": label, "boxes": [[0, 0, 24, 48]], "box_labels": ["lamp"]}
                    add(archive, f"sub/{n:04d}.json", json.dumps(row).encode())
                add(archive, f"{'sub/' if kind == 'json' else ''}{n:04d}.png", files[n].read_bytes())
    return root


def test_shards_with_class_numbers_and_captions(pictures: Path, audited, from_folder, tmp_path: Path) -> None:
    write_shards(pictures, tmp_path / "shards", "cls")
    data = {"source": "webdataset", "path": str(tmp_path / "shards/*.tar"), "class_names": ["a", "b", "c"]}
    result = audited(data, caption={"kind": "data"})
    compared = ("label", "group", "split", "brightness")
    mine, theirs = (sorted(tuple(r[c] for c in compared) for r in rows(x, "images")) for x in (result, from_folder))
    assert mine == theirs
    assert "train-001.tar/0012.png" in result.table("images")["path"].to_pylist()
    assert sorted(result.table("captions")["caption"].to_pylist()) == sorted(f"number {n}" for n in range(30))


def test_shards_in_another_file_system_with_json(pictures: Path, audited, tmp_path: Path) -> None:
    root = write_shards(pictures, tmp_path / "shards", "json")
    memory = fsspec.filesystem("memory")
    for shard in root.iterdir():
        memory.pipe(f"/shards/{shard.name}", shard.read_bytes())
    try:
        result = audited(
            {"source": "webdataset", "path": "memory://shards/train-{000..002}.tar"},
            detect={"kind": "data"}, propose={"kind": "list", "attributes": ["lamp"]},
        )  # fmt: skip
        assert len(webdataset(path="memory://shards/*.tar").shards) == 3
    finally:
        memory.rm("/shards", recursive=True)
    assert result.run["data"]["per_class"] == {"a": 10, "b": 10, "c": 10}
    assert len(result.table("detections")) == 30


def test_faults_in_shards_are_named(pictures: Path, tmp_path: Path) -> None:
    file = next(pictures.glob("*/*.png"))
    with tarfile.open(tmp_path / "x-0.tar", "w") as archive:
        add(archive, "good.cls", b"a")
        add(archive, "good.png", file.read_bytes())
        add(archive, "bare.cls", b"a")
        add(archive, "bad.png", file.read_bytes())
        add(archive, "bad.json", b"{")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    whole = (tmp_path / "x-0.tar").read_bytes()
    (tmp_path / "x-1.tar").write_bytes(whole[:2000])
    source = webdataset(path=str(tmp_path / "x-*.tar"))
    faults = {item.path: item.fault for item in source}
    assert faults["x-0.tar/good.png"] == ""
    assert "no image" in faults["x-0.tar/bare"] and "no label" in faults["x-0.tar/bad.png"]
    assert "to its end" in faults["x-1.tar"]
    assert source.read("x-0.tar/good.png") == file.read_bytes()
    assert "a link" in faults["x-0.tar/link.png"]
    for path in ("x-0.tar/link.png", "x-0.tar/../x", "../x.tar/a.png"):
        with pytest.raises(OSError, match=r"there is no|holds no"):
            source.read(path)


@pytest.mark.parametrize(
    ("name", "words"), [("none-*.tar", "no shards"), ("x.tar.gz", "unpack"), ("text.tar", "can't be read")]
)
def test_mistakes_are_one_plain_line(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"")
    (tmp_path / "text.tar").write_text("no tar " * 200)
    with pytest.raises(UserError, match=words):
        webdataset(path=str(tmp_path / name))
