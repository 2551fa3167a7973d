"""Addresses, and places on an object store: in memory, and on a real S3-compatible server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import places, records
from pipeline.errors import UserError
from pipeline.models import ledger
from pipeline.models.ledger import Ledger
from pipeline.places import Place, Remote, place
from pipeline.store import AuditFolder, Shelf, batches, opened, remove, write_parquet
from tests.object_store import BUCKET, s3_server

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture(params=["s3", "memory", "file"])
def root(request: pytest.FixtureRequest, server: dict[str, str], tmp_path: Path) -> Place:
    """A folder of its own on each kind of store."""
    base = {"s3": BUCKET, "memory": "memory://bucket", "file": f"file://{tmp_path}"}[request.param]
    return place(f"{base}/{tmp_path.name}")


@given(st.lists(st.from_regex(r"[\w.-]{1,9}", fullmatch=True).filter(lambda p: p.strip(".")), min_size=2, max_size=5))
def test_names_are_taken_apart_as_paths_are(parts: list[str]) -> None:
    there, path = Remote(f"s3://{'/'.join(parts)}"), PurePosixPath("/".join(parts))
    assert place(f"s3://{'//'.join(parts)}/") == there == there.parent / there.name
    assert (there.name, str(there.parent)) == (path.name, f"s3://{path.parent}")
    assert there.with_name("x.y").with_suffix(".z").address == f"s3://{path.parent}/x.z"


def test_a_folder_of_this_machine_is_a_path() -> None:
    assert place("file:///a/b%20c") == place("file://localhost/a/b c") == Path("/a/b c")
    assert place("a/b") == Path("a/b") and place(Path("x")) == Path("x")
    assert Remote("s3://bucket").parent == Remote("s3://bucket")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://example.org/audits", "s3, gs"),
        ("ftp://example.org/audits", "'ftp'"),
        ("simplecache::s3://bucket/a", "scheme"),
        ("s3://", "s3://BUCKET/FOLDER"),
        ("s3://bucket/../other", "BUCKET/FOLDER"),
        ("s3://bucket/a*", "BUCKET/FOLDER"),
        ("file://host/a", "another machine"),
        ("s3://me:s3cr3t@bucket/a", "by the environment"),
    ],
)
def test_an_address_that_will_not_do_is_told_in_a_line(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        place(address)
    assert "s3cr3t" not in str(refused.value) and "\n" not in str(refused.value)


def test_objects_come_and_go(root: Place) -> None:
    assert not root.exists() and not root.is_dir() and not (root / "a").is_file()
    root.mkdir(parents=True, exist_ok=True)
    write_parquet(root / "sub" / "b.parquet", pa.table({"x": [1]}))
    (root / "a").write_bytes(b"one")
    assert root.is_dir() and (root / "sub").is_dir() and not root.is_file()
    assert (root / "a").is_file() and not (root / "a").is_dir() and not (root / "sub" / "a").exists()
    assert sorted(one.name for one in root.iterdir()) == ["a", "sub"]
    (root / "a").write_bytes(b"two")
    assert (root / "a").read_bytes() == b"two" and (root / "a").read_text() == "two"
    with (root / "a").open("rb") as stream:
        assert stream.read(2) == b"tw"
    with pytest.raises(FileNotFoundError):
        (root / "none").read_bytes()
    (root / "a").unlink()
    (root / "a").unlink(missing_ok=True)
    assert [one.name for one in root.iterdir()] == ["sub"]
    remove(root)
    assert not (root / "sub" / "b.parquet").exists()
    assert not root.exists() or str(root).startswith("memory:")  # which has folders


def test_an_object_is_made_once(root: Place) -> None:
    if isinstance(root, Path):
        pytest.skip("files are renamed")
    (root / "once").create(b"first")
    with pytest.raises(FileExistsError):
        (root / "once").create(b"second")
    assert (root / "once").read_bytes() == b"first"
    (root / "two").write_bytes(b"x")
    assert root.contents() == [b"first", b"x"]


def test_an_audit_that_is_half_deleted_is_still_one(root: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(root, Path):
        pytest.skip("of object stores")
    for name in ("run.json", "z.parquet", "a.parquet", "sub/b"):
        (root / name).write_bytes(b"{}")
    files, _ = root._store
    removed: list[str] = []
    monkeypatch.setattr(files, "rm_file", lambda name: removed.append(name.rpartition("/")[2]))
    remove(root)
    assert set(removed) == {"run.json", "z.parquet", "a.parquet", "b"} and removed[-1] == "run.json"


def test_a_failed_write_leaves_the_old_object_and_no_crumbs(root: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    spool: Path = Path(str(root)) if isinstance(root, Path) else places.Path("/tmp")
    write_parquet(root / "t.parquet", pa.table({"x": [1]}))
    before = set(spool.glob(".t.parquet.*"))
    with pytest.raises(RuntimeError):

        def parts() -> Iterator[pa.Table]:
            yield pa.table({"x": [2]})
            raise RuntimeError

        write_parquet(root / "t.parquet", parts(), pa.schema({"x": pa.int64()}))
    assert pq.read_table(opened(root / "t.parquet"))["x"].to_pylist() == [1]
    assert [one.name for one in root.iterdir()] == ["t.parquet"] and set(spool.glob(".t.parquet.*")) == before


def test_shelves_and_tables_are_the_same_everywhere(root: Place) -> None:
    rows = records.table("captions", [{"image_id": key, "caption": f"of {key}"} for key in "abc"])
    shelf = Shelf(root / "cache", "caption", "captions", "image_id", (1,))
    assert shelf.keys() == set() and len(shelf.read(["a"])) == 0
    shelf.add(["a", "b"], rows.slice(0, 2))
    shelf.add(["c", "d"], rows.slice(2, 1))
    assert shelf.keys() == {"a", "b", "c", "d"} and shelf.known(["d", "e"]) == {"d"}
    assert shelf.read(["c", "a"])["caption"].to_pylist() == ["of c", "of a"]
    folder = AuditFolder(root / "A")
    assert not folder.has("captions")
    with pytest.raises(UserError, match="holds no table 'captions'"):
        folder.read("captions")
    folder.write("captions", shelf.read_in_parts(["a", "b", "c"]))
    assert folder.has("captions") and folder.read("captions").equals(rows)
    with pytest.raises(UserError, match=r"no run\.json"):
        AuditFolder.open(str(folder.path))
    with pytest.raises(UserError, match="no audit folder"):
        AuditFolder.open(root / "B")


def test_a_log_of_calls_grows_everywhere(root: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store by objects of a few lines: each call is there as soon as it was noted."""
    monkeypatch.setattr(ledger, "LINES", 3)
    log, other = Ledger(root / "llm.jsonl", "this run"), Ledger(root / "llm.jsonl", "another run")
    assert log.entries() == []
    for number in range(8):
        log.write({"calls": 1, "number": number, "prompt_tokens": 2})
        assert len(log.entries()) == number + 1
    other.write({"calls": 1})
    assert [entry["number"] for entry in log.entries()] == list(range(8))
    assert log.spent().calls == 8 and log.spent().tokens == 16 and other.spent().calls == 1
    if isinstance(root, Remote):
        assert len(list((root / "llm.jsonl").iterdir())) == 4  # 3 + 3 + 2 lines, and those of the other run


def test_a_large_table_is_read_in_parts_and_in_one_version(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WHOLE", 1000)
    at = place(f"{BUCKET}/{tmp_path.name}/t.parquet")
    numbers = np.random.default_rng(0).integers(0, 1 << 60, (10, 10_000))
    parts = [pa.table({"x": row, "y": row.astype(str)}) for row in numbers]
    write_parquet(at, iter(parts), parts[0].schema)
    read: list[int] = []
    ranged = places._Ranges.readinto
    monkeypatch.setattr(places._Ranges, "readinto", lambda self, b: read.append(len(b)) or ranged(self, b))
    file = pq.ParquetFile(opened(at), pre_buffer=True)
    assert file.read_row_group(3, columns=["x"])["x"].to_pylist() == numbers[3].tolist()
    assert sum(read) < 0.2 * len(at.read_bytes())
    assert pa.concat_tables(batches(file, ["x", "y"])).equals(pa.concat_tables(parts))
    write_parquet(at, iter(parts[::-1]), parts[0].schema)
    with pytest.raises(UserError, match=r"t\.parquet can't be used"):
        file.read_row_group(7)


def test_a_store_that_cannot_be_reached_or_has_no_bucket(server: dict[str, str]) -> None:
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        place("s3://nowhere/a").write_bytes(b"")  # type: ignore[union-attr]
    assert not place("s3://nowhere/a").exists() and list(place("s3://nowhere/a").iterdir()) == []
