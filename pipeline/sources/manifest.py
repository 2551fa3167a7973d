"""A table of images: CSV, JSONL or Parquet; one row an image, by path, URL or bytes, with its label and more."""

from __future__ import annotations

import base64
import binascii
import bisect
import codecs
import csv
import functools
import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.sources.items import BoxFormat, BoxUnit, Columns, Item, check_splits, find_roles, parse_json
from pipeline.sources.urls import Files, has_secret, is_url

DATA_URL = "data:"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".ndjson", ".parquet")
ROW = "#row="
"""`manifest.parquet#row=12`: the picture that lies in the manifest itself."""


@dataclass(frozen=True)
class Manifest:
    """See `manifest`."""

    path: str
    manifest_files: Files
    files: Files
    columns: Columns

    @property
    def root(self) -> str:
        """What the images' paths are relative to."""
        return self.files.root

    @property
    def _image(self) -> str:
        return self.columns.roles["image"]

    def __iter__(self) -> Iterator[Item]:
        name = PurePosixPath(self.path).name
        for number, row in enumerate(self._rows()):
            here = f"{name}{ROW}{number}"
            if isinstance(row, str):
                yield Item(here, (), fault=row)
                continue
            image = row.get(self._image)
            if isinstance(image, str) and image.strip() and not image.startswith(DATA_URL) and not has_secret(image):
                yield self.columns.item(image.strip(), row)
            elif image:
                yield self.columns.item(here, row)
            else:
                yield Item(here, (), fault="it names no image")

    def _rows(self) -> Iterator[dict[str, Any] | str]:
        try:
            yield from rows_of(self.path, self.manifest_files, set(self.columns.roles.values()))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise UserError(f"data: {self.path} can't be read: {' '.join(str(error).split())[:200]}.") from None

    def stamp(self, path: str) -> str:
        """See `items.stamp_of`; of a picture in the manifest that of the manifest."""
        inside = path.startswith(f"{PurePosixPath(self.path).name}{ROW}")
        return self.manifest_files.stamp(self.path) if inside else self.files.stamp(path)

    def read(self, path: str) -> bytes:
        """The bytes of the image at `path`, or in the manifest's own row."""
        name, mark, row = path.rpartition(ROW)
        if not mark or name != PurePosixPath(self.path).name or not row.isdigit():
            return self.files.read(path)
        version = self.manifest_files.version(self.path)
        image = _cell(self.path, self.manifest_files, self._image, version, int(row))
        if isinstance(image, Mapping):  # the Hub's convention in Parquet
            image = image.get("bytes") or image.get("path") or b""
        if isinstance(image, str) and image.startswith(DATA_URL):
            return _decoded(image)
        if isinstance(image, str):
            return self.files.read(image.strip())
        if not isinstance(image, bytes):
            raise OSError(f"its image is neither a path nor bytes, but {type(image).__name__}")
        return image


def manifest(
    *,
    path: str,
    root: str | None = None,
    columns: dict[str, str] | None = None,
    class_names: list[str] | None = None,
    separator: str | None = None,
    box_format: BoxFormat = "xyxy",
    box_unit: BoxUnit = "pixel",
    splits: dict[str, str] | None = None,
    storage: dict[str, Any] | None = None,
    allow_http: bool = False,
    allow_private: bool = False,
    allow_outside: bool = False,
) -> Manifest:
    """A table of images (CSV, JSONL, Parquet), a row an image by path, URL or bytes, with its label and more.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file, or its URL.
        root: where the images are, a folder or URL; default: the manifest's own folder.
        columns: what holds what, see `items.ROLES`: {image: file, label: class, split: fold, caption: text, ...}.
        class_names, separator, box_format, box_unit, splits: see `items.Columns`.
        storage, allow_http, allow_private, allow_outside: see `urls.Files`.

    Raises:
        UserError: no such file or column (with the nearest names), or not a table.
    """
    at = path.rpartition("/")[0] if is_url(path) else str(PurePosixPath(path).parent)
    rules = (storage or {}, allow_http, allow_private)
    own = Files(at, *rules, allow_outside=True)  # the manifest itself is the user's own choice
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise UserError(f"data: {path} is no manifest: expected one of {', '.join(SUFFIXES)}.")
    try:
        there = column_names(path, own)
    except OSError as error:
        why = " ".join(str(error.strerror or error).split()).rstrip(".")[:200]
        raise UserError(f"data: the manifest {path} can't be read: {why}.") from None
    except (pa.ArrowException, ValueError, csv.Error) as error:
        raise UserError(f"data: {path} is not a {suffix} file: {' '.join(str(error).split())[:200]}.") from None
    reading = Columns(
        find_roles(columns or {}, there, path),
        tuple(class_names or ()),
        separator,
        box_format,
        box_unit,
        check_splits(splits or {}),
    )
    return Manifest(path, own, Files(root or at, *rules, allow_outside), reading)


HEAD = 1 << 24
"""So many bytes of a JSONL file are looked at for the keys of its rows."""
csv.field_size_limit(1 << 30)  # a cell may hold a picture


def column_names(path: str, files: Files) -> list[str]:
    """The manifest's columns: a header, a schema, or the keys of the first rows."""
    with files.open(path) as stream:
        if _suffix(path) == ".parquet":
            return pq.read_schema(stream).names
        text = _text(stream.read(HEAD))
    if _suffix(path) in DELIMITERS:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[_suffix(path)]), [])
    names: dict[str, None] = {}
    for line in text.split("\n"):
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            names.update(dict.fromkeys(row))
    return list(names)


def rows_of(path: str, files: Files, wanted: set[str]) -> Iterator[dict[str, Any] | str]:
    """The rows of a manifest in order, the wanted columns alone; a row that can't be read is the reason why."""
    if _suffix(path) == ".parquet":
        with files.open(path) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=256, columns=sorted(wanted)):
                yield from batch.to_pylist()
        return
    text = _text(files.read_list(path))
    if _suffix(path) in DELIMITERS:
        yield from _csv_rows(
            csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[_suffix(path)], strict=True)
        )
        return
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            yield f"its line is not JSON: {error}"
            continue
        yield row if isinstance(row, dict) else "its line is no JSON object"


def _text(data: bytes) -> str:
    """The text of a table in UTF-8, with or without a mark in front; bytes that aren't make their row unusable.

    Raises:
        ValueError: it is in UTF-16 or no text at all.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4096]:
        raise ValueError("it is in UTF-16, or no text at all: save it as UTF-8")
    return data.decode("utf-8-sig", errors="surrogateescape")


def _csv_rows(lines: Any) -> Iterator[dict[str, Any] | str]:
    header: list[str] = next(lines, [])
    while True:
        first = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            upto = "" if lines.line_num <= first else f" to {lines.line_num}: is a quotation mark left open?"
            yield f"it is not CSV: {error} (line {first}{upto})"
            continue
        if cells and len(cells) != len(header):
            yield f"it has {len(cells)} fields, and the header has {len(header)}"
        elif cells:
            yield dict(zip(header, cells, strict=True))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


@functools.lru_cache(maxsize=4)
def _cells(path: str, files: Files, column: str, version: str, group: int) -> Any:
    """One column of a row group (text files have one): where pictures lie. `version` stands for the content."""
    if _suffix(path) == ".parquet":
        with files.open(path) as stream:
            return pq.ParquetFile(stream).read_row_group(group, columns=[column])[column]
    return [row if isinstance(row, str) else row.get(column) for row in rows_of(path, files, {column})]


@functools.lru_cache(maxsize=4)
def _ends(path: str, files: Files, version: str) -> list[int]:
    """The number of rows up to the end of each row group."""
    with files.open(path) as stream:
        about = pq.ParquetFile(stream).metadata
    return list(itertools.accumulate(about.row_group(group).num_rows for group in range(about.num_row_groups)))


def _cell(path: str, files: Files, column: str, version: str, row: int) -> Any:
    if _suffix(path) != ".parquet":
        return _cells(path, files, column, version, 0)[row]
    ends = _ends(path, files, version)
    group = bisect.bisect_right(ends, row)
    return _cells(path, files, column, version, group)[row - ([0, *ends][group])].as_py()


def _decoded(url: str) -> bytes:
    """The bytes of a `data:image/png;base64,...` URL."""
    head, _, body = url.partition(",")
    if not head.endswith(";base64"):
        raise OSError("a data: URL that is not base64")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise OSError(f"its base64 is damaged: {error}") from None
