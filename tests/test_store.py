from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import records
from pipeline.errors import UserError
from pipeline.models.ledger import Ledger
from pipeline.store import AuditFolder, Shelf, key_of, replacing, sweep


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
