"""Where an audit lives, and the feature cache beside it.

An audit is a folder: one Parquet file a table, `run.json`, `report.html`. Every file is written beside its place
and renamed into it, so that a reader never sees half of one. Both may lie on an object store (pipeline/places.py):
there a file is made on this machine and put whole.

The cache is content-addressed: a *shelf* holds the results of one computation (a stage, its version, the model's
fingerprint, its parameters), and in it each row belongs to a key, an image's content id or an edit's id. Resuming
after a crash, auditing again with more images and sharing between audits are this one mechanism.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.places import Place, Remote, place
from pipeline.records import SCHEMAS, conform, places

GROUP = 256
"""Images whose rows lie in one row group of a table with more than a row an image."""
ROW_GROUP = 1 << 14

Parts: TypeAlias = pa.Table | pq.ParquetFile
"""A table in memory, or one on disk that is read by `batches`: a stage that asks for `Parts` is given the second."""


def batches(rows: Parts, columns: Sequence[str]) -> Iterator[pa.Table]:
    """These columns of a table, part by part and in order; of a table on disk one row group at a time.

    The rows of an image are in one part: every table is written so.
    """
    if isinstance(rows, pa.Table):
        yield rows.select(columns)
        return
    if not rows.num_row_groups:
        yield rows.schema_arrow.empty_table().select(columns)
    for group in range(rows.num_row_groups):
        yield rows.read_row_group(group, columns=list(columns), use_threads=False)
        give_back()


def give_back() -> None:
    """Hand freed memory back to the system: allocators keep it, and what comes next would come on top of it."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def whole(rows: Parts, columns: Sequence[str]) -> pa.Table:
    """These columns of a table, all rows."""
    return rows.select(columns) if isinstance(rows, pa.Table) else rows.read(columns=list(columns))


def length(rows: Parts) -> int:
    """The number of rows."""
    return len(rows) if isinstance(rows, pa.Table) else rows.metadata.num_rows


def opened(path: Place) -> Path | BinaryIO:
    """What pyarrow reads a file from; raises as `Remote.open`."""
    return path if isinstance(path, Path) else path.open()


@contextmanager
def replacing(path: Place) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which takes its place when the block ends without an error.

    Raises:
        UserError: the disk is full, or the folder can't be written to; what was at `path` is still there.
    """
    if isinstance(path, Remote):
        with explained(SPOOL, "Make room there, or set TMPDIR to another folder"), _part(SPOOL, path) as temporary:
            yield temporary
            path.put(temporary)
        return
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part(path.parent, path) as temporary:
            yield temporary
            temporary.chmod(0o644)
            os.replace(temporary, path)


SPOOL = Path(tempfile.gettempdir())
"""Where a file is made that is put on an object store."""


@contextmanager
def _part(folder: Path, path: Place) -> Iterator[Path]:
    """A temporary file, whose name says who writes it; on an object store the kind of an object follows its suffix."""
    prefix = f".{path.name}.{_machine()}-{os.getpid()}-"
    suffix = ".part" + (path.suffix if isinstance(path, Remote) else "")
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a file would be too large",
}
CLOSED = {errno.EROFS: "it is read-only", errno.EACCES: "permission denied", errno.EPERM: "permission denied"}


@contextmanager
def explained(folder: Place, room: str = "Make room (or choose another disk with cache: and --out)") -> Iterator[None]:
    """Turn an error of the disk under `folder` into one that says what to do; any other passes."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            todo = f"{room} and give the same command again: it goes on."
            raise UserError(f"{folder} can't be written to: {FULL[error.errno]}. {todo}") from None
        if error.errno in CLOSED:
            todo = "Make it writable, or choose another folder (--out for the audit, cache: in the configuration)."
            raise UserError(f"{folder} can't be written to: {CLOSED[error.errno]}. {todo}") from None
        raise


@functools.cache
def _machine() -> str:
    """Eight hexadecimal digits for where process ids mean what they mean here: the host, and its pid namespace."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.blake2b(f"{platform.node()} {namespace}".encode(), digest_size=4).hexdigest()


def sweep(folder: Place) -> None:
    """Remove the temporary files below `folder` whose writers were killed; those of other machines stay."""
    parts = folder.rglob(".*.part") if isinstance(folder, Path) else SPOOL.glob(".*.part*")
    for part in parts:
        writer = re.fullmatch(rf".*\.{_machine()}-(\d+)-[^.]*\.part(\.\w+)?", part.name)
        if writer and not alive(int(writer[1])):
            with contextlib.suppress(OSError):
                part.unlink()


def alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def remove(folder: Place) -> None:
    """Delete an audit's folder with all that is in it; on an object store what is half deleted is still an audit."""
    if isinstance(folder, Path):
        shutil.rmtree(folder)
    else:
        folder.rmtree(last="run.json")


def write_text(path: Place, text: str) -> None:
    """Write a text file so that readers see the old one or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_parquet(path: Place, rows: pa.Table | Iterable[pa.Table], schema: pa.Schema | None = None) -> None:
    """Write a Parquet file the same way; equal tables give equal bytes, and so do equal parts, a row group each."""
    with replacing(path) as temporary:
        if isinstance(rows, pa.Table):
            pq.write_table(rows, temporary, row_group_size=ROW_GROUP, **_encoding(rows.schema))
            return
        assert schema is not None
        with pq.ParquetWriter(temporary, schema, **_encoding(schema)) as writer:
            for part in rows:
                writer.write_table(part, row_group_size=max(len(part), 1))


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """No dictionary of what never comes twice: the numbers of vectors and boxes, of which there are the most."""
    return {"compression": "zstd", "use_dictionary": [f.name for f in schema if not pa.types.is_nested(f.type)]}


def key_of(*parts: Any) -> str:
    """A hash of plain data (numbers, strings, lists, dictionaries): 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def in_order(numbers: Sequence[int], ids: Sequence[str], *about: Any) -> list[int]:
    """These numbers of `ids` in an order that follows from what it is for and each id alone.

    The first of them are a sample of which a data set that grows keeps most.
    """
    start = hashlib.blake2b(key_of(*about).encode(), digest_size=8)

    def turn(number: int) -> int:
        own = start.copy()
        own.update(ids[number].encode())
        return int.from_bytes(own.digest(), "big")

    turns = np.fromiter(map(turn, numbers), np.uint64, len(numbers))
    return [numbers[place] for place in np.argsort(turns, kind="stable").tolist()]


class AuditFolder:
    """The folder of one audit."""

    def __init__(self, path: str | Place) -> None:
        self.path = place(path)
        self.begun = ""  # the id of the run that chain.prepare began here, in run.json as `run`

    @classmethod
    def open(cls, path: str | Place) -> AuditFolder:
        """An existing audit.

        Raises:
            UserError: the folder is missing or holds no audit.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise UserError(f"There is no audit folder {path}. Make one with: cuescope discover CONFIG --out {path}")
        if not (folder.path / "run.json").is_file():
            raise UserError(f"{path} is not an audit: it holds no run.json.")
        return folder

    def file(self, table: str) -> Place:
        """Where a table lies."""
        return self.path / f"{table}.parquet"

    def has(self, table: str) -> bool:
        """Whether the table was written."""
        return self.file(table).is_file()

    def write(self, name: str, rows: pa.Table | Iterable[pa.Table]) -> None:
        """Check a table against its schema and write it; parts are written as they come, and none parts an image."""
        if isinstance(rows, pa.Table):
            write_parquet(self.file(name), conform(name, rows))
        else:
            write_parquet(self.file(name), (conform(name, part) for part in rows), SCHEMAS[name])

    def read(self, name: str) -> pa.Table:
        """Read a table and check it against its schema.

        Raises:
            UserError: the audit doesn't hold it (it was stopped before that stage), or in another version's columns.
        """
        return conform(name, self.rows(name).read())

    def rows(self, name: str) -> pq.ParquetFile:
        """The table on disk, for `batches`; raises as `read` does."""
        try:
            found = pq.ParquetFile(opened(self.file(name)), pre_buffer=isinstance(self.path, Remote))
        except FileNotFoundError:
            raise UserError(
                f"{self.path} holds no table '{name}': the audit didn't finish. Run it again to go on."
            ) from None
        if set(found.schema_arrow.names) != set(SCHEMAS[name].names):
            raise UserError(
                f"{self.file(name)} was written by another version of Cuescope"
                f"{self._version()}. Run the audit again with the same --out: what still holds comes from the cache."
            )
        return found

    def slice(self, name: str, which: range) -> pa.Table:
        """Some rows of a table in a row; no others are read but those of their row groups."""
        file = self.rows(name)
        if not which:
            return SCHEMAS[name].empty_table()
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        first, last = np.searchsorted(ends, [which.start, which.stop - 1], side="right")
        found = conform(name, file.read_row_groups(range(first, last + 1)))
        return found.slice(which.start - (ends[first - 1] if first else 0), len(which))

    def _version(self) -> str:
        said = self.run().get("cuescope") if (self.path / "run.json").is_file() else None
        return f" ({said})" if said else ""

    def tables(self) -> dict[str, pa.Table]:
        """Every table that is there."""
        return {name: self.read(name) for name in SCHEMAS if self.has(name)}

    def run(self) -> dict[str, Any]:
        """What run.json says."""
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{self.path}/run.json can't be read: {error}") from None

    def write_run(self, run: dict[str, Any]) -> None:
        """Write run.json."""
        write_text(self.path / "run.json", json.dumps(run, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def keys_of(part: Place) -> pa.Array:
    """The key list of a part; of one that was cut short or damaged (a power cut, a disk) none, so that it is computed
    again."""
    try:
        return read_keys(part)
    except (pa.ArrowException, FileNotFoundError):
        return pa.array([], pa.string())


@functools.cache
def read_keys(part: Place) -> pa.Array:
    """The key list of a part whose rows can be read; parts never change, so that a process reads each list once."""
    pq.read_metadata(opened(part.with_name(part.name.replace(".keys.", ".rows."))))
    return pq.read_table(opened(part))["key"].combine_chunks()


class Shelf:
    """The cached results of one computation: `table`'s rows by key, in part files that are never changed."""

    def __init__(self, cache: Place, stage: str, table: str, key_column: str, computation: tuple[Any, ...]) -> None:
        self.folder = cache / stage / f"{table}-{key_of(*computation)}"
        self.table_name = table
        self.key_column = key_column

    def _parts(self) -> list[Place]:
        if isinstance(self.folder, Path) and not self.folder.is_dir():
            return []
        return sorted(part for part in self.folder.iterdir() if part.name.endswith(".keys.parquet"))

    def keys(self) -> set[str]:
        """Every key whose results are there (also those with no rows)."""
        return {key for part in self._parts() for key in keys_of(part).to_pylist()}

    def _found(self, keys: Sequence[str]) -> dict[Place, list[str]]:
        """Part to those of these keys that are to be read from it."""
        same = self.folder / f"{key_of(sorted(keys))}.keys.parquet"
        if len(keys_of(same)):  # as of a shard that is as it was: no other list need be read
            return {same: list(keys)}
        wanted = pa.array(keys, pa.string())
        seen: set[str] = set()
        found: dict[Place, list[str]] = {}
        for part in self._parts():
            here = keys_of(part)
            mine = here.filter(pa.compute.is_in(here, value_set=wanted)).to_pylist()
            if new := [key for key in mine if key not in seen]:
                found[part] = new  # two runs at once may both have stored a key: the first part counts
                seen.update(new)
        return found

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys whose results are there."""
        return {key for mine in self._found(keys).values() for key in mine} if keys else set()

    def add(self, keys: Iterable[str], rows: pa.Table) -> None:
        """Store the rows of these keys. The key list is written last: a part without one doesn't count."""
        keys = sorted(keys)
        if not keys:
            return
        name = key_of(keys)
        write_parquet(self.folder / f"{name}.rows.parquet", conform(self.table_name, rows))
        write_parquet(self.folder / f"{name}.keys.parquet", pa.table({"key": pa.array(keys, pa.string())}))

    def read(self, keys: Sequence[str]) -> pa.Table:
        """The rows of these keys, in the order of `keys` and, within a key, in the order they were stored."""
        schema = SCHEMAS[self.table_name]
        pieces: list[pa.Table] = []
        for part, here in self._found(keys).items():
            rows = pq.read_table(opened(part.with_name(part.name.replace(".keys.", ".rows."))), schema=schema)
            if len(here) < len(keys_of(part)):
                mask = pa.compute.is_in(rows[self.key_column], value_set=pa.array(here, pa.string()))
                rows = rows.filter(mask)
            pieces.append(rows)
        if not pieces:
            return schema.empty_table()
        rows = pa.concat_tables(pieces)
        order = places(rows[self.key_column], {key: position for position, key in enumerate(keys)})
        return rows if (np.diff(order) >= 0).all() else rows.take(np.argsort(order, kind="stable"))

    def read_in_parts(self, keys: Sequence[str]) -> Iterator[pa.Table]:
        """The same, GROUP keys at a time."""
        for first in range(0, len(keys), GROUP):
            yield self.read(keys[first : first + GROUP])
