"""Image files are read once, and again when they have changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.sources.folder import folder
from pipeline.sources.items import Item
from pipeline.sources.looking import Seen, looked_at


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six pictures of two classes and one that is damaged."""
    rng = np.random.default_rng(0)
    for number in range(6):
        place = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(place)
    (tmp_path / "images" / "a" / "x.png").write_bytes(b"no picture")
    return tmp_path / "images"


class Counting:
    """A source that notes what is read."""

    def __init__(self, root: Path, stamps: bool = True) -> None:
        self.inner, self.read_so_far = folder(path=str(root)), []
        self.root = self.inner.root
        if stamps:
            self.stamp = self.inner.stamp

    def __iter__(self):
        return iter(self.inner)

    def read(self, path: str) -> bytes:
        self.read_so_far.append(path)
        return self.inner.read(path)


def look(source: Counting, cache: Path, **more) -> dict[str, Seen | str | None]:
    source.read_so_far.clear()
    return {item.path: seen for item, seen in looked_at(source, source, lambda item: not item.fault, cache, **more)}


def test_what_is_as_it_was_is_not_read_again(root: Path, tmp_path: Path) -> None:
    source = Counting(root)
    first = look(source, tmp_path)
    assert sorted(source.read_so_far) == sorted(first) and len(first) == 7
    assert isinstance(first["a/x.png"], str) and isinstance(first["a/0.png"], Seen)
    assert (first["a/0.png"].width, first["a/0.png"].height) == (12, 9)
    assert look(source, tmp_path) == first and source.read_so_far == ["a/x.png"]  # what failed is tried again
    assert look(source, tmp_path, reread=True) == first and len(source.read_so_far) == 7


def test_a_file_that_changed_is_read_again_whatever_its_size(root: Path, tmp_path: Path) -> None:
    source = Counting(root)
    first = look(source, tmp_path)
    place = root / "a" / "0.png"
    other = bytearray(place.read_bytes())
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(place)
    place.write_bytes(place.read_bytes().ljust(len(other), b"\0"))
    status = place.stat()
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    again = look(source, tmp_path)
    assert sorted(source.read_so_far) == ["a/0.png", "a/x.png"]
    assert again["a/0.png"].content != first["a/0.png"].content
    assert {k: v for k, v in again.items() if k != "a/0.png"} == {k: v for k, v in first.items() if k != "a/0.png"}


def test_a_source_that_cannot_tell_is_always_read(root: Path, tmp_path: Path) -> None:
    source = Counting(root, stamps=False)
    look(source, tmp_path)
    look(source, tmp_path)
    assert len(source.read_so_far) == 7


def test_what_is_not_asked_for_is_not_read(root: Path, tmp_path: Path) -> None:
    source = Counting(root)
    found = {item.path: seen for item, seen in looked_at(source, source, lambda item: "b" in item.labels, tmp_path)}
    assert {path for path, seen in found.items() if seen is not None} == {"b/1.png", "b/3.png", "b/5.png"}
    assert sorted(source.read_so_far) == ["b/1.png", "b/3.png", "b/5.png"]


def test_two_items_of_one_file_are_both_seen(root: Path, tmp_path: Path) -> None:
    source = Counting(root)
    items = [Item("a/0.png", ("a",)), Item("a/0.png", ("b",))]
    found = [seen for _, seen in looked_at(items, source, lambda item: True, tmp_path)]
    assert found[0] == found[1] and source.read_so_far == ["a/0.png"]
