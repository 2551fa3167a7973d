"""Edited pictures that are still being made when a model starts to look at the first of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, overload

import cachetools
import numpy as np

from pipeline.evidence.edits import Finder, apply_edit, things
from pipeline.evidence.masks import Mask
from pipeline.images import RGB

MAKERS = max(min((os.cpu_count() or 1) // 2, 4), 1)
"""Threads that make edits: half of the cores, for a model on the CPU needs them too, and no more than four. An edit is
many small steps, between which only one thread runs: eight made fewer on sixteen cores."""

MASK_BYTES = 64 * 2**20
"""What masks that are kept for the edits to come may take."""


class Masks:
    """Masks of the things in pictures: each is found once, while those asked for last take no more than MASK_BYTES."""

    def __init__(self) -> None:
        self._found: cachetools.LRUCache = cachetools.LRUCache(MASK_BYTES, getsizeof=lambda bits: bits.nbytes)
        self._lock = threading.Lock()

    def finder(self, names: Mapping[int, Hashable]) -> Finder:
        """What several threads may ask, of pictures by their id(): `names` tells what else is the same picture."""

        def of_box(name: Hashable, image: RGB, box: tuple[float, ...]) -> Mask:
            with self._lock:
                bits = self._found.get((name, box))
            if bits is None:
                bits = np.packbits(things(image, [box]))
                if bits.nbytes <= MASK_BYTES:
                    with self._lock:
                        self._found[name, box] = bits
            size = image.shape[0] * image.shape[1]
            return np.unpackbits(bits, count=size).view(bool).reshape(image.shape[:2])

        def find(image: RGB, boxes: list) -> Mask:
            mask = np.zeros(image.shape[:2], dtype=bool)
            for box in boxes:  # each is found and grown by itself, as edits.things does
                mask |= of_box(names[id(image)], image, tuple(box))
            return mask

        return find


class Coming(Sequence[RGB]):
    """Pictures by number, or some by a slice; whoever asks for one waits for it."""

    def __init__(self, pictures: list[Future[RGB]]) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, index: int) -> RGB: ...
    @overload
    def __getitem__(self, index: slice) -> list[RGB]: ...
    def __getitem__(self, index: int | slice) -> RGB | list[RGB]:
        if isinstance(index, slice):
            return [picture.result() for picture in self._pictures[index]]
        return self._pictures[index].result()

    def part(self, some: slice) -> Coming:
        """Some of them, without waiting for any."""
        return Coming(self._pictures[some])


@contextmanager
def made(
    specs: Sequence[dict[str, Any]], images: Sequence[RGB], donors: Sequence[RGB | None], find: Finder | None = None
) -> Iterator[Coming]:
    """The pictures that these specifications make of these pictures and donors, in order, made on MAKERS threads.

    What was found in a picture is remembered, by `find` or until the last of these is made.
    """
    if find is None:
        find = Masks().finder({id(image): id(image) for image in (*images, *donors)})
    pool = ThreadPoolExecutor(MAKERS)
    try:
        yield Coming([pool.submit(apply_edit, *one, find) for one in zip(specs, images, donors, strict=True)])
    finally:  # a model that stops in the middle waits for no more of them
        pool.shutdown(cancel_futures=True)
