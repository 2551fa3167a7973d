"""Bad rows, shards and lists through every source that isn't a folder: nothing crashes, nothing is lost uncounted."""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import Audit, discover
from pipeline.errors import UserError
from tests.conftest import noisy_picture
from tests.hostile import corpus
from tests.hostile.corpus import CLASSES, ESCAPE, SCRIPT, TURNED, encoded
from tests.hostile.test_corpus import accounted, is_plain


def good(number: int) -> bytes:
    return encoded(noisy_picture(np.random.default_rng(1000 + number)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set's folder with good pictures in it and a private one beside it."""
    base = tmp_path_factory.mktemp("rows")
    (base / "set").mkdir()
    for number in range(16):
        (base / "set" / f"{number}.png").write_bytes(good(number))
    (base / "private.png").write_bytes(good(99))
    (base / "set" / "link.png").symlink_to(base / "private.png")
    for name, data in corpus.no_images().items():
        (base / "set" / name).write_bytes(data)
    return base


@pytest.fixture
def audited(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Audits a data section without edits and checks the accounts; run.json."""

    def run(data: dict[str, Any], **more: Any) -> dict[str, Any]:
        audit = {
            "data": data,
            "model": {"kind": "python", "factory": "tests.hostile.fakes:any_classes"},
            "ablate": {"enabled": False},
            "no_split": True,
            "cache": str(tmp_path / "cache"),
            **more,
        }
        out = tmp_path / "out"
        discover(Audit.from_dict(audit), out)
        return accounted(out)

    return run


def reasons(tmp_path: Path) -> list[str]:
    return [row["reason"] for row in pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()]


A, B = CLASSES["a"], CLASSES["b"]
GOOD = [{"image": f"{n}.png", "label": (A, B)[n % 2]} for n in range(16)]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"image": "", "label": A}, "names no image"),
    ({"image": "nowhere.png", "label": A}, "cannot be opened"),
    ({"image": "../private.png", "label": A}, "outside"),
    ({"image": "x/../../private.png", "label": A}, "outside"),
    ({"image": "/etc/passwd", "label": A}, "outside"),
    ({"image": "file:///etc/passwd", "label": A}, "outside"),
    ({"image": "file://elsewhere/x.png", "label": A}, "another machine"),
    ({"image": "link.png", "label": A}, "outside"),
    ({"image": ".", "label": A}, "a folder, a pipe or a device"),
    ({"image": "empty.png", "label": A}, "empty"),
    ({"image": "page.png", "label": A}, "not an image"),
    ({"image": "s3://somebody-elses/secret.png", "label": A}, "outside"),
    ({"image": "gs://somebody-elses/secret.png", "label": A}, "outside"),
    ({"image": "memory://x/y.png", "label": A}, "outside"),
    ({"image": "ftp://host/x.png", "label": A}, "not allowed"),
    ({"image": "javascript://x/%0aalert(1)", "label": A}, "not allowed"),
    ({"image": "http://host.invalid/x.png", "label": A}, "http is not encrypted"),
    ({"image": "https://127.0.0.1:1/x.png", "label": A}, "private address"),
    ({"image": "https://[::ffff:169.254.169.254]/latest/meta-data", "label": A}, "private address"),
    ({"image": "zip://x.png::file:///tmp/y.zip", "label": A}, "not allowed"),
    ({"image": "data:image/png;base64,????", "label": A}, "base64"),
    ({"image": "data:text/html,<script>", "label": A}, "not base64"),
    ({"image": "0.png", "label": A}, "the same picture"),
    ({"image": "2.png", "label": ""}, "no label"),
    ({"image": "3.png", "label": "x" * 501}, "longer than 500"),
    ({"image": "4.png", "label": A, "caption": "y" * 20_001}, "longer than 20,000"),
    ({"image": "5.png", "label": A, "split": "holdout"}, "split"),
    ({"image": "6.png", "label": A, "boxes": "[[0, 0, 1"}, "not JSON"),
    ({"image": "7.png", "label": A, "boxes": "[" * 100_000}, "not JSON"),
    ({"image": "8.png", "label": A, "boxes": "[[0, 0, NaN, 1]]"}, "not finite"),
    ({"image": "9.png", "label": A, "boxes": '[[0, 0, "x", 1]]'}, "four numbers"),
    ({"image": f"{ESCAPE}{TURNED}\n.png", "label": A}, "cannot be opened"),
    ({"image": "x" * 5000, "label": A}, "cannot be opened"),
    ({"image": "\0", "label": A}, "no path"),
]
COLUMNS = ("image", "label", "caption", "split", "boxes")


def rows() -> list[dict[str, Any]]:
    blank = dict.fromkeys(COLUMNS, "")
    return [{**blank, **row} for row in (*GOOD, *(row for row, _ in BAD))]


def write_csv(path: Path) -> None:
    with open(path, "w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(row for row in rows() if "\0" not in row["image"])
    with open(path, "ab") as stream:
        stream.write(b"3.png,latin-\xe9,,,\r\n")
        stream.write(b"too,many,cells,in,this,row\r\nfew\r\n")
        stream.write(b'4.png,"left open\r\n5.png,x,,,\r\n')


def write_jsonl(path: Path) -> None:
    lines = [json.dumps(row) for row in rows()]
    lines += ['{"image": "3.png", "label": "half \\ud800"}', "{", "[]", "null", "[" * 100_000, '{"image": {"a": 1}}']
    lines += [
        json.dumps({"image": 7, "label": A}),
        '{"image": "5.png", "label": {"a": 1}}',
        '{"image": "6.png", "label": NaN}',
    ]
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_bad_rows_of_a_manifest(folder: Path, audited, tmp_path: Path, suffix: str) -> None:
    path = folder / "set" / f"list.{suffix}"
    {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}[suffix](path)
    run = audited({"source": "manifest", "path": str(path)})
    why = reasons(tmp_path)
    expected = len(GOOD) + len(BAD) + {"csv": 3, "jsonl": 9, "parquet": 0}[suffix]
    assert run["data"]["given"] == expected and run["data"]["pictures"] >= len(GOOD) - 1
    for row, words in BAD:
        if suffix != "csv" or "\0" not in row["image"]:
            assert any(words in reason for reason in why), (words, why)
    if suffix == "csv":
        assert any("not in UTF-8" in reason for reason in why) and any("left open" in reason for reason in why)
    assert "latest/meta-data" not in json.dumps(run)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", b"", "no column"),
        ("x.csv", "image,label\na,b\n".encode("utf-16"), "UTF-16"),
        ("x.csv", bytes(100), "no text"),
        ("x.csv", b"\x89PNG\r\n\x1a\n" + bytes(20), "no text"),
        ("x.jsonl", b"[" * 100_000, "no column"),
        ("x.parquet", b"PAR1" + bytes(50) + b"PAR1", "x.parquet can't be read"),
        ("x.parquet", b"", "not a .parquet file"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.json", b"\xff\xfe{", "not JSON"),
        ("x.json", b"null", "no COCO file"),
        ("x.json", b'{"images": [], "annotations": {}, "categories": []}', "no COCO file"),
    ],
    ids=range(11),
)
def test_a_list_that_is_none_is_one_plain_line(audited, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        audited({"source": "coco" if name.endswith("json") else "manifest", "path": str(tmp_path / name)})
    assert words in str(caught.value) and is_plain(str(caught.value)) and len(str(caught.value)) < 600


def test_a_bad_coco_file(folder: Path, audited, tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 48} for n in range(16)]
    boxes = [{"id": n, "image_id": n, "category_id": n % 2, "bbox": [4, 4, 20, 20]} for n in range(16)]
    images += [
        {"id": 3, "file_name": "again.png"},
        {"id": None, "file_name": "a.png"},
        {"id": [1], "file_name": "list.png"},
        {"id": 50},
        {"id": 51, "file_name": "../private.png", "width": "wide", "height": -1},
        {"id": 52, "file_name": "/etc/passwd"},
        {"id": 53, "file_name": "https://user:password@host/x.png"},
        {"id": 54, "file_name": "half \ud800.png"},
        {"id": 55, "file_name": "page.png"},
    ]
    boxes += [
        {"id": 100, "image_id": 1, "category_id": 99, "bbox": [0, 0, 1, 1]},
        {"id": 101, "image_id": [1], "category_id": 0, "bbox": [0, 0, 1, 1]},
        {"id": 102, "image_id": 1, "category_id": 0, "bbox": "wide"},
        {"id": 103, "image_id": 1, "category_id": 0, "bbox": [0, 0, float("nan"), 1]},
        {"id": 104, "image_id": 1, "category_id": 0},
        {"id": 105, "image_id": 1, "category_id": 0, "segmentation": {"size": [9, 9], "counts": "~"}},
        *({"id": n, "image_id": n, "category_id": 0, "bbox": [0, 0, 5, 5]} for n in (51, 52, 54, 55)),
    ]
    names = [{"id": 0, "name": A}, {"id": 1, "name": B}, {"id": {}, "name": "x"}, {"name": "no id"}]
    path = folder / "set" / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": names}))
    run = audited({"source": "coco", "path": str(path)})
    assert run["data"]["pictures"] >= 15
    why = " ".join(reasons(tmp_path))
    for words in (
        "outside",
        "no id",
        "may be a secret",
        "not in UTF-8",
        "is not in the file",
        "not finite",
        "not an image",
    ):
        assert words in why, words
    assert b"password" not in (tmp_path / "out" / "quarantine.parquet").read_bytes()


def member(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def test_bad_shards(audited, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "0.tar", "w") as archive:
        for number in range(12):
            member(archive, f"{number:03d}.png", good(number))
            member(archive, f"{number:03d}.cls", (A, B)[number % 2].encode())
    with tarfile.open(shards / "1.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for stem, name in (("up", "../../escaped.png"), ("absolute", "/tmp/escaped-by-cuescope.png")):
            member(archive, name, good(20 + len(stem)))
            member(archive, name.replace(".png", ".cls"), A.encode())
        member(archive, "link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        member(archive, "link.cls", A.encode())
        member(archive, "hard.png", type=tarfile.LNKTYPE, linkname="../../etc/passwd")
        member(archive, "device.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        member(archive, "pipe.png", type=tarfile.FIFOTYPE)
        member(archive, "twice.png", good(30))
        member(archive, "twice.cls", A.encode())
        member(archive, "between.png", good(31))
        member(archive, "between.cls", b"\xff\xfe")
        member(archive, "twice.png", good(32))
        member(archive, "twice.cls", B.encode())
        member(archive, "two.png", good(33))
        member(archive, "two.jpg", good(34))
        member(archive, "two.cls", A.encode())
        member(archive, "deep.png", good(35))
        member(archive, "deep.json", b"[" * 100_000)
        member(archive, "pickle.png", good(36))
        member(archive, "pickle.pyd", b"cos\nsystem\n(S'touch /tmp/escaped-by-cuescope'\ntR.")
        member(archive, f"{SCRIPT}{ESCAPE}\u202e\n.png", b"not a picture")
        member(archive, f"{SCRIPT}{ESCAPE}\u202e\n.cls", A.encode())
    with tarfile.open(shards / "2.tar", "w") as archive:  # says it is larger than the file
        member(archive, "huge.png", good(40))
        member(archive, "huge.cls", A.encode())
    data = bytearray((shards / "2.tar").read_bytes())
    data[124:136] = b"77777777777\0"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (shards / "2.tar").write_bytes(data)
    (shards / "3.tar").write_bytes((shards / "0.tar").read_bytes()[:7000])
    (shards / "4.tar").write_bytes(b"not a tar at all" * 100)
    with tarfile.open(shards / "5.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member(archive, "s.png", good(50), pax_headers={"GNU.sparse.major": "x", "GNU.sparse.map": "1,a,2"})
    deep = tarfile.TarInfo("a")
    deep.type, deep.size = tarfile.XHDTYPE, 0
    (shards / "6.tar").write_bytes(deep.tobuf() * 3000)
    run = audited({"source": "webdataset", "path": str(shards / "*.tar")})
    assert not Path("/tmp/escaped-by-cuescope").exists() and not Path("/tmp/escaped-by-cuescope.png").exists()
    assert not list(tmp_path.rglob("escaped.png"))
    why = reasons(tmp_path)
    for words in ("a link, a device", "an earlier member", "a further image", "no label", "to its end", "not an image"):
        assert any(words in reason for reason in why), (words, why)
    assert sum("a link, a device" in reason for reason in why) == 4
    assert run["data"]["pictures"] >= 12


def test_a_bad_local_data_set(audited, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "private.png").write_bytes(good(99))
    cells = [{"bytes": good(n), "path": f"{n}.png"} for n in range(12)]
    cells += [
        {"bytes": None, "path": "../private.png"},
        {"bytes": None, "path": "/etc/passwd"},
        {"bytes": None, "path": "https://user:password@127.0.0.1/x.png?sig=abc"},
        {"bytes": b"", "path": f"{SCRIPT}{ESCAPE}\n.png"},
        {"bytes": b"not a picture", "path": None},
        {"bytes": None, "path": None},
        None,
    ]
    labels = [(A, B)[n % 2] for n in range(len(cells))]
    pq.write_table(pa.table({"image": cells, "label": labels}), root / "train.parquet")
    run = audited({"source": "huggingface", "name": str(root)})
    assert run["data"]["given"] == len(cells) and run["data"]["pictures"] == 12
    assert b"password" not in (tmp_path / "out" / "quarantine.parquet").read_bytes()


@pytest.mark.parametrize(
    "files", ["https://127.0.0.1:1/x.parquet", "/etc/*.parquet", "../other/*.parquet", "hf://datasets/a/b/x.parquet"]
)
def test_a_card_leads_to_no_other_place(tmp_path: Path, audited, files: str) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    pq.write_table(
        pa.table({"image": [{"bytes": good(0), "path": None}], "label": ["a"]}), tmp_path / "set" / "x.parquet"
    )
    (tmp_path / "set" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: '{files}'\n---\n"
    )
    with pytest.raises(UserError, match=r"outside it\. data\.allow_outside"):
        audited({"source": "huggingface", "name": str(tmp_path / "set")})


def test_pictures_in_the_rows_themselves(audited, tmp_path: Path) -> None:
    """Every bad picture as bytes in a Parquet file and as a data URL in CSV."""
    bad = corpus.pictures()
    cells = [{"bytes": good(n), "path": None} for n in range(12)] + [{"bytes": v, "path": None} for v in bad.values()]
    labels = [(A, B)[n % 2] for n in range(len(cells))]
    pq.write_table(pa.table({"image": cells, "label": labels}), tmp_path / "list.parquet")
    assert audited({"source": "manifest", "path": str(tmp_path / "list.parquet")})["data"]["given"] == len(cells)
    small = [cell["bytes"] for cell in cells if len(cell["bytes"]) < 100_000]
    with open(tmp_path / "list.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "label"))
        for data, label in zip(small, labels, strict=False):
            writer.writerow((f"data:image/png;base64,{base64.b64encode(data).decode()}", label))
    assert audited({"source": "manifest", "path": str(tmp_path / "list.csv")})["data"]["given"] == len(small)
