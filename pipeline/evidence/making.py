"""Edited pictures that are still being made when a model starts to look at the first of them."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, overload

from pipeline.evidence.edits import apply_edit, things
from pipeline.evidence.masks import Mask
from pipeline.images import RGB

MAKERS = max(min((os.cpu_count() or 1) // 2, 4), 1)
"""Threads that make edits: half of the cores, for a model on the CPU needs them too, and no more than four. An edit is
many small steps, between which only one thread runs: eight made fewer on sixteen cores."""

REMEMBERED = 16
"""Masks of things that are kept for the edits to come."""


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


@contextmanager
def made(
    specs: Sequence[dict[str, Any]], images: Sequence[RGB], donors: Sequence[RGB | None]
) -> Iterator[Sequence[RGB]]:
    """The pictures that these specifications make of these pictures and donors, in order, made on MAKERS threads.

    Edits of one picture should follow one another: what was found in it is remembered for a while.
    """
    by_id = {id(image): image for image in (*images, *donors) if image is not None}  # alive until the last edit is made

    @functools.lru_cache(REMEMBERED)
    def found(image: int, boxes: tuple[tuple[float, ...], ...]) -> Mask:
        mask = things(by_id[image], [*boxes])
        mask.setflags(write=False)
        return mask

    def find(image: RGB, boxes: list) -> Mask:
        return found(id(image), tuple(map(tuple, boxes)))

    pool = ThreadPoolExecutor(MAKERS)
    try:
        yield Coming([pool.submit(apply_edit, *one, find) for one in zip(specs, images, donors, strict=True)])
    finally:  # a model that stops in the middle waits for no more of them
        pool.shutdown(cancel_futures=True)
