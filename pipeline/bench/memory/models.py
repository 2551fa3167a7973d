"""Models that cost next to nothing, so that what is measured is Cuescope's own; they look at the pixels."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.memory.pictures import BAR, CLASSES, PATCH, level
from pipeline.geometry import Boxes, to_pixels
from pipeline.images import RGB

BINS = 64
COLORS = {
    "red": (220, 30, 30), "green": (40, 160, 60), "blue": (50, 90, 200), "yellow": (230, 210, 60),
    "purple": (140, 60, 160), "orange": (240, 140, 40), "white": (240, 240, 240), "black": (15, 15, 15),
    "grey": (128, 128, 128), "brown": (130, 90, 50), "pink": (240, 150, 180), "dark": (30, 30, 30),
    "bright": (230, 230, 230), "beach": (220, 200, 150), "ocean": (40, 90, 150), "sky": (140, 190, 230),
    "meadow": (90, 160, 70), "forest": (30, 80, 40), "desert": (210, 170, 110), "snowfield": (235, 240, 245),
}  # fmt: skip


class BarReader:
    """Tells a class by the grey of the bar on the left, but leans on a red patch: with one it says the first class."""

    fingerprint = "bar-reader-1"

    def __init__(self, classes: tuple[str, ...], device: str) -> None:
        self.levels = np.array([level(CLASSES.index(name)) for name in classes])
        self.first = classes.index(CLASSES[0])

    def logits(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        out = np.zeros((len(images), len(self.levels)), dtype=np.float32)
        for row, image in enumerate(images):
            bar = image[:, : BAR - 1].mean()
            out[row] = -np.abs(self.levels - bar) / 10
            near = np.abs(image[:, BAR:].astype(np.int16) - PATCH).max(axis=2) < 40
            out[row, self.first] += 5 * min(float(near.mean()) / 0.03, 1.0)
        return out


class Histograms:
    """Pictures, regions and words as square roots of a histogram of 64 colours: unit vectors."""

    fingerprint = "histograms-1"
    has_text = True

    def __init__(self, device: str) -> None:
        pass

    def images(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        return np.array([_roots(np.bincount(_bins(i).ravel(), minlength=BINS)) for i in images], dtype=np.float32)

    def regions(self, images: Sequence[RGB], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        found = []
        for image, mine in zip(images, boxes, strict=True):
            shown = np.eye(BINS, dtype=np.float32)[_bins(image)]
            x0, y0, x1, y1 = np.array(to_pixels(mine, image.shape[1], image.shape[0])).reshape(-1, 4).T[..., None]
            rows, columns = (np.arange(side)[None, :] for side in image.shape[:2])
            of_rows = np.tensordot(((rows >= y0) & (rows < y1)).astype(np.float32), shown, axes=1)
            inside = ((columns >= x0) & (columns < x1)).astype(np.float32)
            found.append(_roots(np.einsum("rw,rwb->rb", inside, of_rows)))
        return found

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The colours that a text names; a word that names none has colours of its own."""
        counts = np.ones((len(texts), BINS))
        for row, text in enumerate(texts):
            for word in text.lower().split():
                if word in COLORS:
                    counts[row, _bins(np.array([[COLORS[word]]], dtype=np.uint8))] += 40
                else:
                    counts[row, np.random.default_rng(zlib.crc32(word.encode())).integers(0, BINS, 4)] += 3
        return _roots(counts)


def _bins(image: RGB) -> NDArray[np.int64]:
    return (image.astype(np.int64) // 64) @ np.array([16, 4, 1])


def _roots(counts: NDArray) -> NDArray[np.float32]:
    return np.sqrt(counts / counts.sum(axis=-1, keepdims=True)).astype(np.float32)


bar_reader = BarReader
histograms = Histograms
