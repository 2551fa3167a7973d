"""Images in a folder: DIR/class/.../image; the first folder names the class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.images import SUFFIXES


@dataclass(frozen=True)
class Item:
    """One image of a data source: its path relative to the source's root, its label."""

    path: str
    label: str


@dataclass(frozen=True)
class Folder:
    """An image folder, listed in a fixed order."""

    root: Path

    def __iter__(self) -> Iterator[Item]:
        for label in sorted(os.listdir(self.root)):
            if label.startswith(".") or not (self.root / label).is_dir():
                continue
            for parent, folders, files in os.walk(self.root / label):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in sorted(files):
                    if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                        yield Item(Path(parent, name).relative_to(self.root).as_posix(), label)

    def read(self, path: str) -> bytes:
        """The bytes of the image at `path` (relative to the root)."""
        return (self.root / path).read_bytes()


def folder(*, path: str) -> Folder:
    """An image folder.

    Raises:
        UserError: no such folder, or nothing in it that looks like an image of a class.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"data: there is no folder {root}. Give the folder that holds one folder a class.")
    source = Folder(root)
    if next(iter(source), None) is None:
        raise UserError(f"data: {root} holds no images in class folders. Expected {root}/CLASS/image.jpg.")
    return source
