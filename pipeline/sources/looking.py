"""What is known of each image file: it is read, decoded and measured, unless that was done and the file is as it was.

A file is taken for unchanged if its size and its time of change are as they were (items.stamp_of), as rsync and make
do; `reread` in the configuration reads everything.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.errors import plain
from pipeline.images import DECODERS, RGB, UnreadableImage, content_id, decode_and_size
from pipeline.places import Place
from pipeline.properties import measure as measure_properties
from pipeline.records import PROPERTIES, table
from pipeline.sources.items import Item, Source, stamp_of
from pipeline.store import Shelf

VERSION = 2
AT_ONCE = 512


@dataclass(frozen=True)
class Seen:
    """Of a picture: the identity of its bytes, a hash that near-duplicates share, its pixels, its properties."""

    content: str
    look: str
    width: int
    height: int
    measured: dict[str, float]


def looked_at(
    items: Iterable[Item], source: Source, wanted: Callable[[Item], bool], cache: Place, reread: bool = False
) -> Iterator[tuple[Item, Seen | str | None]]:
    """Each item in order, with what is known of its picture, or why it can't be used; None of items not `wanted`."""
    shelf = Shelf(cache, "ingest", "images", "path", (VERSION, str(source.root)))
    items = iter(items)
    while batch := list(itertools.islice(items, AT_ONCE)):
        mine = {item.path for item in batch if wanted(item)}
        keys = {path: f"{stamp} {path}" for path in mine if not reread and (stamp := stamp_of(source, path))}
        rows = shelf.read(sorted(keys.values())).to_pylist()
        known = {row["path"]: _seen(row) for row in rows}
        seen: dict[str, Seen | str] = {path: known[key] for path, key in keys.items() if key in known}
        missing = mine - seen.keys()
        with ThreadPoolExecutor(DECODERS) as pool:
            seen.update(zip(missing, pool.map(lambda path: look(source, path), missing), strict=True))
        shelf.add(
            *_as_rows({keys[path]: found for path in missing if path in keys and isinstance(found := seen[path], Seen)})
        )
        for item in batch:
            yield item, seen[item.path] if wanted(item) else None


def look(source: Source, path: str) -> Seen | str:
    """Read an image file; of one that can't be used a reason for the quarantine table."""
    try:
        data = source.read(path)
        image, width, height = decode_and_size(data)
    except UnreadableImage as error:
        return str(error)
    except (OSError, ValueError) as error:  # the latter of names that no file system and no network takes
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        return f"cannot be opened: {plain(said)}"
    return Seen(content_id(data), difference_hash(image), width, height, measure_properties(image))


def _seen(row: dict[str, Any]) -> Seen:
    measured = {name: row[name] for name in PROPERTIES}
    return Seen(row["image_id"], row["group"], row["width"], row["height"], measured)


def _as_rows(found: dict[str, Seen]) -> tuple[list[str], Any]:
    """Keys and rows for the shelf: a row of `images` before it has a label, its file and stamp in the place of its
    path."""
    rows = [
        {
            "image_id": seen.content,
            "path": key,
            "label": "",
            "split": "",
            "group": seen.look,
            "width": seen.width,
            "height": seen.height,
            **seen.measured,
        }
        for key, seen in sorted(found.items())
    ]
    return sorted(found), table("images", rows)


def difference_hash(image: RGB) -> str:
    """A 128-bit difference hash (rows and columns of an 8 x 8 reduction): equal for re-encoded or resized copies."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    across = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    down = cv2.resize(grey, (8, 9), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.concatenate([(np.diff(across, axis=1) > 2).ravel(), (np.diff(down, axis=0) > 2).ravel()])
    if not bits.any():  # a flat picture says nothing about likeness: its own pixels are its group
        return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
    return np.packbits(bits).tobytes().hex()
