"""What makes two back ends the same: the content of their files and the options that change their answers."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CHUNK = 1 << 20


def of_options(kind: str, options: Mapping[str, Any]) -> str:
    """32 hexadecimal digits for a back end's name and its JSON-able options, whatever their order."""
    text = json.dumps([kind, dict(options)], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def of_path(path: str | Path, suffixes: Iterable[str] | None = None) -> str:
    """32 hexadecimal digits for the content of a file, or for the names and contents of a folder's files.

    Where the file or folder lies and when it was written don't matter. `suffixes` limits a folder to the
    files that a model is read from, so that a note beside them changes nothing. A file is read once in a
    process while its time and size stay as they are.

    Raises:
        FileNotFoundError: there is nothing at `path`.
    """
    path = Path(path)
    if path.is_file():
        return _content(path)
    if not path.is_dir():
        raise FileNotFoundError(path)
    wanted = None if suffixes is None else frozenset(suffixes)
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*")):
        if file.is_file() and (wanted is None or file.suffix in wanted):
            digest.update(f"{file.relative_to(path).as_posix()}\0{_content(file)}\0".encode())
    return digest.hexdigest()


def _content(file: Path) -> str:
    status = file.stat()
    return _read(str(file.resolve()), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1024)
def _read(file: str, mtime_ns: int, size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
