"""Where an audit lives, and the feature cache beside it.

An audit is a folder: one Parquet file a table, `run.json`, `report.html`. Every file is written beside its place
and renamed into it, so that a reader never sees half of one.

The cache is content-addressed: a *shelf* holds the results of one computation (a stage, its version, the model's
fingerprint, its parameters), and in it each row belongs to a key, an image's content id or an edit's id. Resuming
after a crash, auditing again with more images and sharing between audits are this one mechanism.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.records import SCHEMAS, conform


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which takes its place when the block ends without an error.

    Raises:
        UserError: the disk is full, or the folder can't be written to; what was at `path` is still there.
    """
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}.{_machine()}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a file would be too large",
}
CLOSED = {errno.EROFS: "it is read-only", errno.EACCES: "permission denied", errno.EPERM: "permission denied"}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn an error of the disk under `folder` into one that says what to do; any other passes."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            todo = (
                "Make room (or choose another disk with cache: and --out) and give the same command again: it goes on."
            )
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


def sweep(folder: Path) -> None:
    """Remove the temporary files below `folder` whose writers were killed; those of other machines stay."""
    for part in folder.rglob(".*.part"):
        writer = re.fullmatch(rf".*\.{_machine()}-(\d+)-[^.]*\.part", part.name)
        if writer and not _alive(int(writer[1])):
            with contextlib.suppress(OSError):
                part.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a Parquet file the same way; equal tables give equal bytes."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def key_of(*parts: Any) -> str:
    """A hash of plain data (numbers, strings, lists, dictionaries): 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class AuditFolder:
    """The folder of one audit."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.begun = ""  # the id of the run that chain.prepare began here, in run.json as `run`

    @classmethod
    def open(cls, path: str | Path) -> AuditFolder:
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

    def file(self, table: str) -> Path:
        """Where a table lies."""
        return self.path / f"{table}.parquet"

    def has(self, table: str) -> bool:
        """Whether the table was written."""
        return self.file(table).is_file()

    def write(self, name: str, table: pa.Table) -> None:
        """Check a table against its schema and write it."""
        write_parquet(self.file(name), conform(name, table))

    def read(self, name: str) -> pa.Table:
        """Read a table and check it against its schema.

        Raises:
            UserError: the audit doesn't hold it (it was stopped before that stage), or in another version's columns.
        """
        if not self.has(name):
            raise UserError(f"{self.path} holds no table '{name}': the audit didn't finish. Run it again to go on.")
        found = pq.read_table(self.file(name))
        if set(found.column_names) != set(SCHEMAS[name].names):
            raise UserError(
                f"{self.file(name)} was written by another version of Cuescope"
                f"{self._version()}. Run the audit again with the same --out: what still holds comes from the cache."
            )
        return conform(name, found)

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


class Shelf:
    """The cached results of one computation: `table`'s rows by key, in part files that are never changed."""

    def __init__(self, cache: Path, stage: str, table: str, key_column: str, computation: tuple[Any, ...]) -> None:
        self.folder = cache / stage / f"{table}-{key_of(*computation)}"
        self.table_name = table
        self.key_column = key_column

    def _parts(self) -> Iterator[tuple[list[str], Path]]:
        """The keys and the file of rows of each part, in the order of their names.

        A file that was cut short or damaged (a power cut, a disk) doesn't count: its keys are computed again.
        """
        for part in sorted(self.folder.glob("*.keys.parquet")) if self.folder.is_dir() else []:
            rows = part.with_name(part.name.replace(".keys.", ".rows."))
            with contextlib.suppress(pa.ArrowException, FileNotFoundError):
                pq.read_metadata(rows)
                yield pq.read_table(part)["key"].to_pylist(), rows

    def keys(self) -> set[str]:
        """Every key whose results are there (also those with no rows)."""
        found: set[str] = set()
        for keys, _ in self._parts():
            found.update(keys)
        return found

    def add(self, keys: Iterable[str], rows: pa.Table) -> None:
        """Store the rows of these keys. The key list is written last: a part without one doesn't count."""
        keys = sorted(keys)
        if not keys:
            return
        name = key_of(keys)
        write_parquet(self.folder / f"{name}.rows.parquet", conform(self.table_name, rows))
        write_parquet(self.folder / f"{name}.keys.parquet", pa.table({"key": pa.array(keys, pa.string())}))

    def read(self, keys: list[str]) -> pa.Table:
        """The rows of these keys, in the order of `keys` and, within a key, in the order they were stored."""
        wanted = {key: position for position, key in enumerate(keys)}
        schema = SCHEMAS[self.table_name]
        pieces: list[pa.Table] = []
        seen: set[str] = set()
        for keys_here, part in self._parts():
            here = [key for key in keys_here if key in wanted and key not in seen]
            if not here:
                continue
            seen.update(here)  # two runs at once may both have stored a key: the first part counts
            rows = pq.read_table(part, schema=schema)
            mask = pa.compute.is_in(rows[self.key_column], value_set=pa.array(here, pa.string()))
            pieces.append(rows.filter(mask))
        if not pieces:
            return schema.empty_table()
        rows = pa.concat_tables(pieces)
        order = pa.array([wanted[key] for key in rows[self.key_column].to_pylist()], pa.int64())
        positions = pa.table({"order": order, "row": pa.array(range(len(rows)), pa.int64())})
        return rows.take(pa.compute.sort_indices(positions, [("order", "ascending"), ("row", "ascending")]))
