"""Where the stores lie: a folder of this machine, or a place on an object store (s3, gs; memory for tests).

`Remote` has the part of pathlib's interface that the stores use, so that a store is written once. Four things differ
from a general path library, and are why it is our own: an object is written whole or not at all, no listing is
remembered (other machines write too), no bucket is ever made, and whatever goes wrong is one plain line. Credentials,
endpoints and other options come from the environment, as the store's own client reads it; an address can't hold them.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from pipeline import secrets
from pipeline.errors import UserError
from pipeline.secrets import is_url, shown

STORES = ("file", "memory", "s3", "gs")
"""Schemes of addresses that can be written to."""
WHOLE = 8 << 20
"""Bytes up to which an object is read at once, and not by ranges."""


@dataclass(frozen=True, order=True)
class Remote:
    """A place on an object store; a folder is what the names of objects begin with, and needs no making."""

    address: str

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.address}/{name}")

    @property
    def scheme(self) -> str:
        """Such as `s3`."""
        return self.address.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the address; of a bucket the bucket's."""
        return self.address.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        """The name from its last dot on."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> Remote:
        """The folder that it lies in; of a bucket itself."""
        above = self.address.rpartition("/")[0]
        return self if above.endswith("/") else Remote(above)

    def with_name(self, name: str) -> Remote:
        """A sibling."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> Remote:
        """The same name with another suffix."""
        return self.with_name(f"{self.stem}{suffix}")

    def match(self, pattern: str) -> bool:
        """Whether its name is of a pattern such as `*.parquet`."""
        return fnmatch.fnmatchcase(self.name, pattern)

    def resolve(self) -> Remote:
        """Itself: an address is absolute."""
        return self

    def as_uri(self) -> str:
        """The address."""
        return self.address

    @property
    def _store(self) -> tuple[Any, str]:
        """fsspec's file system, which every place of the scheme shares, and the path in it."""
        import fsspec  # it takes as long to import as all that `--help` needs

        files = fsspec.filesystem(self.scheme, use_listings_cache=False)
        return files, files._strip_protocol(self.address)

    def _info(self) -> dict[str, Any] | None:
        try:
            with self._reached() as (files, path):
                return files.info(path)
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        return self._info() is not None

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return (self._info() or {}).get("type") == "directory"

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def iterdir(self) -> Iterator[Remote]:
        """What lies directly below, in order of names; nothing where there is nothing."""
        try:
            with self._reached() as (files, path):
                found = files.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted({name.rstrip("/") for name in found} - {path.rstrip("/")}):
            yield self / name.rpartition("/")[2]

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: there are no folders."""

    def open(self, mode: str = "rb") -> BinaryIO:
        """The object's bytes, seekable; a large one is read by ranges, and a reader never sees two versions of it.

        Raises:
            FileNotFoundError: there is no such object.
            UserError: it can't be read.
        """
        assert mode == "rb"
        with self._reached() as (files, path):
            if self.scheme == "memory":  # it hands out one file to all readers
                return io.BytesIO(files.cat_file(path))
            file = files.open(path, "rb", cache_type="none")
            if file.size <= WHOLE:
                return io.BytesIO(file.read())
        return cast(BinaryIO, _Ranges(self, file))

    def read_bytes(self) -> bytes:
        """All of the object; raises as `open`."""
        with self._reached() as (files, path):
            return files.cat_file(path)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The same as text."""
        return self.read_bytes().decode(encoding, errors)

    def contents(self) -> list[bytes]:
        """The bytes of every object directly below, in order of names, fetched together."""
        with self._reached() as (files, _):
            names = [str(place._store[1]) for place in self.iterdir()]
            found = files.cat(names) if names else {}
        return [found[name] for name in names]

    def write_bytes(self, data: bytes) -> None:
        """Put an object in the place of what is there."""
        with self._written() as (files, path):
            files.pipe_file(path, data)

    def create(self, data: bytes) -> None:
        """Put an object where there is none: of several who do so at once one succeeds, where the store can tell.

        Raises:
            FileExistsError: there is one.
        """
        with self._written() as (files, path):
            try:
                files.pipe_file(path, data, mode="create")
            except FileExistsError:
                raise
            except OSError as error:  # how some servers say that their condition failed
                if not self.is_file():
                    raise
                raise FileExistsError(self.address) from error

    def put(self, file: Path) -> None:
        """Put a file of this machine in the place of what is there."""
        with self._written() as (files, path):
            files.put_file(str(file), path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            with self._reached() as (files, path):
                files.rm_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, last: str) -> None:
        """Remove every object below; those of the name `last` at the end, by which it is known till then."""
        with self._reached() as (files, path):
            try:
                found = files.find(path)
            except FileNotFoundError:
                return
            for name in sorted(found, key=lambda name: name.rpartition("/")[2] == last):
                files.rm_file(name)

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """Whatever the store's client raises becomes a line that says what to do, but for what isn't there."""
        try:
            yield self._store
        except (UserError, FileNotFoundError, FileExistsError, NotADirectoryError):
            raise
        except ImportError as error:
            raise UserError(f"{self} needs a package: pip install 'cuescope[remote]' ({error}).") from None
        except Exception as error:  # every client has errors of its own
            reason = " ".join(shown(str(error)).split()) or type(error).__name__
            raise UserError(
                f"{self} can't be used: {reason.rstrip('.')}. Check the address, the network, and what the environment "
                f"says of credentials and endpoint ({HOW[self.scheme]}); then give the same command again: it goes on."
            ) from None

    @contextmanager
    def _written(self) -> Iterator[tuple[Any, str]]:
        try:
            with self._reached() as store:
                yield store
        except FileNotFoundError:
            bucket = self.address.split("/")[2]
            raise UserError(f"{self} can't be written: there is no bucket '{bucket}'. Make it first.") from None


HOW = {
    "memory": "none is needed",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL where it isn't Amazon's",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}


class _Ranges(io.RawIOBase):
    """A large object, read by ranges; the client asks for the version that it opened."""

    def __init__(self, place: Remote, file: Any) -> None:
        self._place, self._file = place, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        with self._place._reached():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


Place: TypeAlias = Path | Remote
"""Where a store, a table or a file of one lies."""


def place(address: str | Place) -> Place:
    """What an address means: a path or a file:// URL of this machine, or a place on an object store.

    Raises:
        UserError: a scheme that can't be written to, no bucket, or an address that holds credentials.
    """
    if not isinstance(address, str):
        return address
    if not is_url(address):
        return Path(address)
    if reason := secrets.in_url(address):
        raise UserError(
            f"{shown(address)}: {reason}, and it would be written into the audit. Give credentials by the environment."
        )
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    if scheme not in STORES:
        raise UserError(
            f"{shown(address)}: nothing can be kept at addresses of the scheme '{scheme[:20]}'. "
            f"Give a folder, or an address of one of: {', '.join(STORES)}."
        )
    if scheme == "file":
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost"):
            raise UserError(f"{address} names a folder of another machine: file:///FOLDER is one of this.")
        return Path(unquote(parts.path))
    parts_ = [part for part in rest.split("/") if part]
    if not parts_ or any(part in (".", "..") for part in parts_) or re.search(r"[?#*\[\]\x00-\x1f]", rest):
        raise UserError(
            f"{shown(address)} is no place to keep an audit: expected {scheme}://BUCKET/FOLDER, without any of ?#*[]."
        )
    return Remote(f"{scheme}://{'/'.join(parts_)}")


def stamp(file: Place) -> str:
    """Another text once the file has changed, as far as its size, time of change or tag say; empty without a file."""
    if isinstance(file, Path):
        with contextlib.suppress(OSError):
            status = file.stat()
            return f"{status.st_size} {status.st_mtime_ns}"
        return ""
    about = file._info() or {}
    names = ("size", "ETag", "etag", "mtime", "LastModified", "updated", "created")
    return " ".join(str(about[name]) for name in names if name in about)
