"""Images in a folder: DIR/class/.../image; the first folder names the class. The folder may be a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.images import SUFFIXES
from pipeline.sources.items import Item
from pipeline.sources.urls import Files, is_url


@dataclass(frozen=True)
class Folder:
    """An image folder, listed in a fixed order."""

    root: Path

    def __iter__(self) -> Iterator[Item]:
        for label in sorted(os.listdir(self.root)):
            if label.startswith(".") or not (self.root / label).is_dir():
                continue
            empty = True
            for parent, folders, files in os.walk(self.root / label):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in sorted(files):
                    if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                        empty = False
                        yield Item(Path(parent, name).relative_to(self.root).as_posix(), (label,))
            if empty:
                yield Item(label, (), fault="a class's folder without images")

    def read(self, path: str) -> bytes:
        """The bytes of the image at `path` (relative to the root)."""
        return (self.root / path).read_bytes()


@dataclass(frozen=True)
class RemoteFolder:
    """The same at a URL, in the same order."""

    files: Files

    @property
    def root(self) -> str:
        """The URL."""
        return self.files.root

    def __iter__(self) -> Iterator[Item]:
        found = [PurePosixPath(name) for name in self.files.find()]
        for path in sorted(found, key=_as_walked):
            hidden = any(part.startswith(".") for part in path.parts)
            if len(path.parts) > 1 and path.suffix.lower() in SUFFIXES and not hidden:
                yield Item(path.as_posix(), (path.parts[0],))

    def read(self, path: str) -> bytes:
        """The bytes of the image at `path` (relative to the root)."""
        return self.files.read(path)


def _as_walked(path: PurePosixPath) -> list[tuple[bool, str]]:
    """Of each folder the files first, as os.walk lists them."""
    *folders, name = path.parts
    return [*((True, folder) for folder in folders), (False, name)]


def folder(
    *, path: str, storage: dict[str, Any] | None = None, allow_http: bool = False, allow_private: bool = False
) -> Folder | RemoteFolder:
    """Images in a folder or at a URL, one folder of images a class.

    Args:
        path: a folder, or a URL of one (s3, gs, memory, https). storage, allow_http, allow_private: see `urls.Files`.

    Raises:
        UserError: no such folder, or nothing in it that looks like an image of a class.
    """
    source: Folder | RemoteFolder
    if is_url(path):
        source = RemoteFolder(Files(path, storage or {}, allow_http, allow_private))
    else:
        if not Path(path).is_dir():
            raise UserError(f"data: there is no folder {path}. Give the folder that holds one folder a class.")
        source = Folder(Path(path))
    try:
        first = next((item for item in source if not item.fault), None)
    except OSError as error:
        raise UserError(f"data: {path} can't be listed: {error}.") from None
    if first is None:
        raise UserError(f"data: {path} holds no images in class folders. Expected {path}/CLASS/image.jpg.")
    return source
