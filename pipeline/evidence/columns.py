"""Columns of numbers over all images, one a cue, which need not fit into memory."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.places import Place

IN_MEMORY = 1 << 23
"""Bytes of an array that is held in memory."""
BLOCK = 1 << 21
"""Bytes of the columns that are worked on at a time."""


def scratch(images: int, cues: int, folder: Place, value: float = 0.0) -> NDArray[np.float64]:
    """An array (images, cues) of this value whose columns lie together; a large one lies in a file of `folder` that has
    no name, or, where that is on an object store, of the folder for temporary files."""
    if images * cues * 8 <= IN_MEMORY:
        return np.full((cues, images), value).T
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder if isinstance(folder, Path) else None) as file:
        columns = np.memmap(file, np.float64, "w+", shape=(cues, images))  # zeros, as a file begins
    for column in columns if value else ():
        column[:] = value
        release(columns)
    return columns.T


def release(array: NDArray) -> None:
    """Let go of the memory that a file's pages take once they were looked at; they are read again when needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def blocks(images: int, cues: int) -> Iterator[slice]:
    """The columns of an array (images, cues) of eight bytes, as many at a time as fit BLOCK."""
    step = max(1, BLOCK // max(8 * images, 1))
    for first in range(0, cues, step):
        yield slice(first, min(first + step, cues))
