from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import chain, records
from pipeline.config import Audit
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.models.ledger import Ledger
from pipeline.places import place
from pipeline.store import AuditFolder, Shelf, batches, in_order, key_of, length, replacing, sweep


def captions(**texts: str) -> pa.Table:
    return records.table("captions", [{"image_id": key, "caption": text} for key, text in texts.items()])


def shelf(path: Path, *computation) -> Shelf:
    return Shelf(path, "caption", "captions", "image_id", computation)


@pytest.mark.parametrize("kind", ["rows", "keys"])
def test_a_part_that_was_cut_short_is_computed_again(tmp_path: Path, kind: str) -> None:
    cache = shelf(tmp_path)
    cache.add(["a"], captions(a="one"))
    cache.add(["b"], captions(b="two"))
    part = next(file for file in cache.folder.glob(f"*.{kind}.parquet") if file.name.startswith(key_of(["a"])))
    part.write_bytes(part.read_bytes()[:-20])
    assert cache.keys() == {"b"}
    assert cache.read(["a", "b"])["caption"].to_pylist() == ["two"]
    cache.add(["a"], captions(a="one"))
    assert cache.read(["a", "b"])["caption"].to_pylist() == ["one", "two"]


def test_the_temporary_files_of_dead_writers_alone_are_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with replacing(tmp_path / "cache" / "live") as mine:
        name = mine.name
        crumb = mine.with_name(name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
        elsewhere = mine.with_name(re.sub(r"[0-9a-f]{8}-\d+-", f"00000000-{dead.pid}-", name))
        for file in (crumb, elsewhere):
            file.write_text("half")
        sweep(tmp_path)
        assert mine.exists() and elsewhere.exists() and not crumb.exists()


def test_what_killed_writers_to_an_object_store_left_here_is_swept() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    there = place("memory://bucket/swept/report.html")
    with replacing(there) as mine:
        assert mine.name.endswith(".part.html")  # by which the object's kind is known
        mine.write_text("whole")
        crumb = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
        crumb.write_text("half")
        sweep(there.parent)
        assert mine.exists() and not crumb.exists()
    assert there.read_bytes() == b"whole" and not mine.exists()


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")])
def test_a_disk_that_takes_no_more_is_the_users_to_mend(tmp_path: Path, number: int, words: str) -> None:
    file = tmp_path / "table"
    file.write_text("old")
    with pytest.raises(UserError, match=words), replacing(file):
        raise OSError(number, "from the system")
    assert file.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError), replacing(file):
        raise FileNotFoundError(2, "another fault stays what it is")


def test_a_line_that_was_cut_short_takes_no_other_with_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "llm.jsonl", "this run")
    ledger.write({"calls": 1})
    with ledger.path.open("a") as file:
        file.write('{"run": "this run", "ca')
    ledger.write({"calls": 2})
    assert ledger.spent().calls == 3


def test_a_failed_write_leaves_the_old_file_and_no_crumbs(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["table"]
    assert file.read_text() == "old"


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    mine = shelf(tmp_path, 1)
    mine.add(["b"], captions(b="two"))
    mine.add(["a", "c"], captions(c="three", a="one"))
    assert mine.read(["c", "a", "b"])["caption"].to_pylist() == ["three", "one", "two"]
    assert mine.keys() == {"a", "b", "c"}


def test_another_computation_is_another_shelf(tmp_path: Path) -> None:
    shelf(tmp_path, 1).add(["a"], captions(a="one"))
    assert shelf(tmp_path, 2).keys() == set()


def test_a_key_with_no_rows_is_known(tmp_path: Path) -> None:
    mine = shelf(tmp_path, 1)
    mine.add(["a", "b"], captions(a="one"))
    assert mine.keys() == {"a", "b"}
    assert len(mine.read(["b"])) == 0


def test_a_part_without_its_key_list_does_not_count(tmp_path: Path) -> None:
    mine = shelf(tmp_path, 1)
    mine.add(["a"], captions(a="one"))
    for file in mine.folder.glob("*.keys.parquet"):
        file.unlink()  # as if the run had been killed between the two writes
    assert mine.keys() == set()


def test_a_key_stored_twice_comes_back_once(tmp_path: Path) -> None:
    mine = shelf(tmp_path, 1)
    mine.add(["a"], captions(a="one"))
    mine.add(["a", "b"], captions(a="one", b="two"))
    assert mine.read(["a", "b"])["caption"].to_pylist() == ["one", "two"]


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(records.SchemaError, match="caption"):
        AuditFolder(tmp_path).write("captions", pa.table({"image_id": ["a"]}))
    with pytest.raises(records.SchemaError):
        AuditFolder(tmp_path).write("captions", pa.table({"image_id": ["a"], "caption": [b"\xff"]}))


def test_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        AuditFolder(tmp_path / name).write("captions", captions(a="x", b="y"))
    assert (tmp_path / "one" / "captions.parquet").read_bytes() == (tmp_path / "two" / "captions.parquet").read_bytes()


def test_what_is_no_audit_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no audit folder"):
        AuditFolder.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no run\.json"):
        AuditFolder.open(tmp_path)


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=4))
def test_a_key_does_not_depend_on_the_order_of_a_dictionary(data: dict) -> None:
    assert key_of(data) == key_of(dict(reversed(list(data.items()))))
    assert key_of(data) != key_of(data, None)


PARTS = st.lists(st.lists(st.text("abc", max_size=3), max_size=4), max_size=5)


@given(PARTS)
def test_a_table_written_in_parts_is_read_in_these_parts(parts: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = AuditFolder(name)
        written = [
            captions(**{f"i{number}{n}": text for n, text in enumerate(texts)}) for number, texts in enumerate(parts)
        ]
        folder.write("captions", iter(written))
        read = [*batches(folder.rows("captions"), ["caption", "image_id"])]
        assert [part["caption"].to_pylist() for part in read if len(part)] == [texts for texts in parts if texts]
        whole = folder.read("captions")
        assert whole["caption"].to_pylist() == [text for texts in parts for text in texts]
        assert length(folder.rows("captions")) == len(whole)
        for first in range(len(whole)):
            some = range(first, min(first + 3, len(whole)))
            assert folder.slice("captions", some).equals(whole.slice(first, len(some)))


@given(
    st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1, max_size=4), max_size=5), st.permutations("abcdefghij")
)
def test_a_shelf_gives_rows_in_any_order_whatever_its_parts(shares: list[set[str]], order: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        mine = shelf(Path(name), 1)
        for keys in shares:
            mine.add(keys, captions(**{key: f"of {key}" for key in sorted(keys)}))
        stored = set().union(*shares)
        assert mine.known(order) == stored and mine.known([]) == set()
        assert mine.read(order)["image_id"].to_pylist() == [key for key in order if key in stored]
        for keys in shares:  # a part that was stored as it is asked for
            assert set(mine.read(sorted(keys))["image_id"].to_pylist()) == keys
        assert pa.concat_tables(mine.read_in_parts(order)).equals(mine.read(order))


def test_a_sample_by_ids_depends_on_each_id_alone() -> None:
    ids = [f"i{number}" for number in range(50)]
    order = in_order(range(50), ids, 0, "what for")
    assert sorted(order) == list(range(50)) and order != list(range(50))
    assert [n for n in order if n % 2] == in_order(range(1, 50, 2), ids, 0, "what for")
    assert order != in_order(range(50), ids, 1, "what for") != in_order(range(50), ids, 1, "something else")


@given(st.sets(st.integers(0, 29)), st.integers(1, 12))
def test_a_shard_is_given_its_own_rows_of_the_annotations(annotated: set[int], shard: int) -> None:
    row = dict.fromkeys(records.SCHEMAS["images"].names, 0) | dict.fromkeys(("path", "label", "split", "group"), "x")
    said = {"caption": "c", "phrases": [], "boxes": [], "other_labels": []}
    with tempfile.TemporaryDirectory() as name:
        folder = AuditFolder(name)
        folder.write("images", records.table("images", [row | {"image_id": f"i{n}"} for n in range(30)]))
        rows = [said | {"image_id": f"i{n}"} for n in sorted(annotated)]
        folder.write("annotations", records.table("annotations", rows))
        config = {"data": {"path": "x"}, "model": {"kind": "python", "factory": "a:b"}, "shard": shard}
        context = Context(Audit.from_dict(config), folder)
        for mine in chain.shards(context):
            ids = pa.array([f"i{n}" for n in mine])
            found = chain._of_images("annotations", ids, mine, context)["image_id"].to_pylist()
            assert found == [f"i{n}" for n in mine if n in annotated]
