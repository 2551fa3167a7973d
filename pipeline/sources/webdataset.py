"""WebDataset shards: tar files in which the members of one stem are one sample (github.com/webdataset/webdataset).

The shards are read by Python's tarfile: nothing is unpacked, and a picture is read again by its place in the shard,
which the sequential readers of the package webdataset don't do.
"""

from __future__ import annotations

import glob
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.images import MAX_BYTES, SUFFIXES
from pipeline.sources.items import BoxFormat, BoxUnit, Columns, Item, check_splits, find_roles, parse_json
from pipeline.sources.urls import Files, expand, is_url

IMAGE, FAULTS = "__image__", "__faults__"
MAX_TEXT = 1 << 22
"""A member of text is no longer than this."""


@dataclass
class WebDataset:
    """See `webdataset`."""

    files: Files
    shards: list[str]
    columns: Columns
    _places: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """Images lie in shards, not in a folder."""
        return ""

    def __iter__(self) -> Iterator[Item]:
        for shard in self.shards:
            name = PurePosixPath(shard).name
            seen: set[str] = set()
            try:
                for stem, row in samples(self.files, shard):
                    image = row.get(IMAGE)
                    faults = row.get(FAULTS, {})
                    if image is None and not faults:
                        yield Item(f"{name}/{stem}", (), fault="its sample holds no image")
                    elif image is None:
                        pass
                    elif image in seen:
                        yield Item(f"{name}/{image}", (), fault="an earlier member of the shard has its name")
                    else:
                        seen.add(image)
                        yield self.columns.item(f"{name}/{image}", row)
                    for other, fault in faults.items():
                        yield Item(f"{name}/{other}", (), fault=fault)
            except Exception as error:  # tarfile raises many types on damaged headers
                yield Item(name, (), fault=f"the shard can't be read to its end: {_why(error)}")

    def stamp(self, path: str) -> str:
        """See `items.stamp_of`: that of the shard."""
        name = path.partition(".tar/")[0]
        return next((self.files.stamp(shard) for shard in self.shards if PurePosixPath(shard).stem == name), "")

    def read(self, path: str) -> bytes:
        """The bytes of a shard's member: `shard.tar/member`."""
        name, _, member = path.partition(".tar/")
        shard = next((shard for shard in self.shards if PurePosixPath(shard).name == f"{name}.tar"), None)
        if shard is None:
            raise FileNotFoundError(f"there is no shard {name}.tar")
        if shard not in self._places:
            places: dict[str, tuple[int, int]] = {}
            for info in members(self.files, shard):
                places.setdefault(info.name, (info.offset_data, info.size))
            self._places[shard] = places
        if member not in self._places[shard]:
            raise FileNotFoundError(f"{name}.tar holds no {member}")
        start, size = self._places[shard][member]
        if size > MAX_BYTES:
            raise OSError(f"{member} holds more than {MAX_BYTES >> 20} MiB")
        return self.files.read(shard, start, start + size) if size > 0 else b""


def webdataset(
    *,
    path: str,
    columns: dict[str, str] | None = None,
    class_names: list[str] | None = None,
    separator: str | None = None,
    box_format: BoxFormat = "xyxy",
    box_unit: BoxUnit = "pixel",
    splits: dict[str, str] | None = None,
    storage: dict[str, Any] | None = None,
    allow_http: bool = False,
    allow_private: bool = False,
) -> WebDataset:
    """WebDataset shards: tar files in which the members of one stem are one sample.

    Args:
        path: shards by wildcard (`shards/*.tar`) or braces (`s3://bucket/train-{000..099}.tar`); not compressed.
        columns: what holds what, see `items.ROLES`: keys of the sample's .json, or a member's suffix
            (by default `cls` is the label and `txt` the caption).
        class_names, separator, box_format, box_unit, splits: see `items.Columns`.
        storage, allow_http, allow_private: see `urls.Files`.

    Raises:
        UserError: no shards, compressed ones, two of one name, or nothing in them that labels an image.
    """
    at = path.rpartition("/")[0] if is_url(path) else str(PurePosixPath(path).parent)
    files = Files(at, storage or {}, allow_http, allow_private, allow_outside=True)  # the user's own choice
    try:
        shards = find_shards(path, files)
    except OSError as error:
        raise UserError(f"data: {path} can't be listed: {error}.") from None
    if not shards:
        raise UserError(f"data: there are no shards {path}.")
    for shard in shards:
        if not shard.endswith(".tar"):
            raise UserError(f"data: {shard} is no .tar file; unpack compressed shards to .tar ones.")
    if len({PurePosixPath(shard).name for shard in shards}) < len(shards):
        raise UserError(f"data: two shards of {path} have one name.")
    try:
        _, first = next(samples(files, shards[0]), ("", {}))
    except Exception as error:  # tarfile raises many types on damaged headers
        raise UserError(f"data: the shard {shards[0]} can't be read: {_why(error)}.") from None
    reading = Columns(
        find_roles(columns or {}, set(first) - {IMAGE, FAULTS}, f"the first sample of {shards[0]}", ("label",)),
        tuple(class_names or ()),
        separator,
        box_format,
        box_unit,
        check_splits(splits or {}),
    )
    return WebDataset(files, shards, reading)


def find_shards(path: str, files: Files) -> list[str]:
    """The shards that a path with braces and wildcards means, in order."""
    found: list[str] = []
    for pattern in expand(path):
        if not glob.has_magic(pattern):
            found.append(pattern)
        elif is_url(pattern):
            system, inner = files.filesystem(pattern)
            found += sorted(system.unstrip_protocol(name) for name in system.glob(inner))
        else:
            found += sorted(glob.glob(pattern))
    return found


def members(files: Files, shard: str) -> Iterator[tarfile.TarInfo]:
    """The plain files of a shard, in order; links, devices and sparse files (a picture is none) are not among them."""
    with files.open(shard) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
            if info.isfile() and not info.issparse() and not PurePosixPath(info.name).name.startswith("."):
                yield info


def samples(files: Files, shard: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each sample's stem and row: its .json's keys, its other members of text by suffix, its image's name."""
    stem = ""
    row: dict[str, Any] = {}
    with files.open(shard) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]
            name = PurePosixPath(info.name)
            if info.isdir() or name.name.startswith("."):
                continue
            is_plain = info.isfile() and not info.issparse()
            short, _, suffix = name.name.partition(".")
            suffix = suffix.lower()
            here = (name.parent / short).as_posix()
            if here != stem:
                if row:
                    yield stem, row
                stem, row = here, {}
            if f".{suffix}" in SUFFIXES:
                if not is_plain:
                    row.setdefault(FAULTS, {})[info.name] = "a link, a device or a sparse file, which is not read"
                elif row.setdefault(IMAGE, info.name) != info.name:
                    row.setdefault(FAULTS, {})[info.name] = f"a further image of the sample {stem}"
            elif is_plain and suffix in ("json", "cls", "txt", "caption", "label") and info.size <= MAX_TEXT:
                held = archive.extractfile(info)
                text = held.read().decode("utf-8", errors="replace").strip() if held else ""
                row.update(_parsed(text) if suffix == "json" else {suffix: text})
    if row:
        yield stem, row


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except ValueError:
        return {}  # the sample then lacks its label, and is quarantined for that
    return content if isinstance(content, dict) else {}
