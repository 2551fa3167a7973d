"""Images in a folder: DIR/class/.../image; the first folder names the class. The folder may be a URL."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.images import SUFFIXES
from pipeline.sources.items import Item, as_text
from pipeline.sources.urls import Files, is_url


@dataclass(frozen=True)
class Folder:
    """An image folder, listed in a fixed order."""

    root: Path
    files: Files

    def __iter__(self) -> Iterator[Item]:
        for label in sorted(os.listdir(self.root)):
            if label.startswith(".") or not (self.root / label).is_dir():
                continue
            empty = True
            refused: list[OSError] = []
            for parent, folders, files in os.walk(self.root / label, onerror=refused.append):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in folders:
                    if Path(parent, name).is_symlink():
                        fault = "a link to a folder, which is not followed: put the folder itself there"
                        yield Item(Path(parent, name).relative_to(self.root).as_posix(), (), fault=fault)
                for name in sorted(files):
                    if is_image(name):
                        empty = False
                        yield Item(Path(parent, name).relative_to(self.root).as_posix(), (label,))
            for error in refused:
                place = os.path.relpath(error.filename, self.root)
                yield Item(place, (), fault=f"the folder can't be opened: {error.strerror or error}")
            if empty and not refused:
                yield Item(label, (), fault="a class's folder without images")

    @property
    def passed_over(self) -> Counter[str]:
        """Files that are no item, by why they aren't: see `items.passed_over`."""
        found: Counter[str] = Counter()
        for parent, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            top = Path(parent) == self.root
            for name in files:
                found[why_passed_over(name, top)] += 1
            if top:  # a class's folder may be a link
                linked = [os.walk(self.root / name) for name in folders if (self.root / name).is_symlink()]
                found.update(why_passed_over(name, False) for walk in linked for _, _, more in walk for name in more)
        del found[""]
        return found

    def read(self, path: str) -> bytes:
        """The bytes of the image at `path` (relative to the root)."""
        return self.files.read(path)

    def stamp(self, path: str) -> str:
        """See `items.stamp_of`."""
        return self.files.stamp(path)


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def why_passed_over(name: str, top: bool) -> str:
    """Why a file is no item, or empty where it is one; `top`: it lies beside the folders of the classes."""
    if name.startswith("."):
        return "their names begin with a dot"
    if is_image(name):
        return "they lie in no class's folder" if top else ""
    return f"their names end in {as_text(Path(name).suffix[:12]).lower() or 'no suffix'}, as no image's do"


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
            if not _why(path):
                yield Item(path.as_posix(), (path.parts[0],))

    @property
    def passed_over(self) -> Counter[str]:
        """Files that are no item, by why they aren't: see `items.passed_over`."""
        found = Counter(_why(PurePosixPath(name)) for name in self.files.find())
        del found[""]
        return found

    def read(self, path: str) -> bytes:
        """The bytes of the image at `path` (relative to the root)."""
        return self.files.read(path)


def _why(path: PurePosixPath) -> str:
    hidden = any(part.startswith(".") for part in path.parts)
    return why_passed_over("." if hidden else path.name, len(path.parts) == 1)


def _as_walked(path: PurePosixPath) -> list[tuple[bool, str]]:
    """Of each folder the files first, as os.walk lists them."""
    *folders, name = path.parts
    return [*((True, folder) for folder in folders), (False, name)]


def folder(
    *,
    path: str,
    storage: dict[str, Any] | None = None,
    allow_http: bool = False,
    allow_private: bool = False,
    allow_outside: bool = False,
) -> Folder | RemoteFolder:
    """Images in a folder or at a URL, one folder of images a class.

    Args:
        path: a folder, or a URL of one (s3, gs, memory, https).
        storage, allow_http, allow_private, allow_outside: see `urls.Files`; a link in the folder may lead outside only
            where it is allowed.

    Raises:
        UserError: no such folder, or nothing in it that looks like an image of a class.
    """
    source: Folder | RemoteFolder
    if is_url(path):
        source = RemoteFolder(Files(path, storage or {}, allow_http, allow_private))
    else:
        if not Path(path).is_dir():
            raise UserError(f"data: there is no folder {path}. Give the folder that holds one folder a class.")
        source = Folder(Path(path), Files(path, allow_outside=allow_outside))
    try:
        first = next((item for item in source if not item.fault), None)
    except OSError as error:
        raise UserError(f"data: {path} can't be listed: {error}.") from None
    if first is None:
        raise UserError(f"data: {path} holds no images in class folders. Expected {path}/CLASS/image.jpg.")
    return source
