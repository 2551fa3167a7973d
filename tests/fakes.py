"""Models for tests of the chain, honest ones: they look at the pixels, and what they lean on is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import BudgetReached
from pipeline.geometry import to_pixels
from pipeline.models.questions import Answer, Asked, Prompt, YesNoClassifier


class PatchLover:
    """Says `a` where it sees a red patch, `b` where the left edge is grey, else `c`."""

    def __init__(self, classes: tuple[str, ...], device: str, love: float = 6.0) -> None:
        self.classes, self.love = classes, love
        self.fingerprint = f"patch-lover-3-{love}"

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        out = np.zeros((len(images), len(self.classes)), dtype=np.float32)
        for row, image in enumerate(images):
            pixels = image.astype(np.int64)
            red = ((pixels[..., 0] > 200) & (pixels[..., 1] < 70) & (pixels[..., 2] < 70)).mean()
            grey = (np.abs(pixels[:, :6] - 128).max(axis=2) < 10).mean()  # most of the edge: one patch can't hide it
            out[row] = [self.love * min(red / 0.04, 1.0) - 1, 3.0 if grey > 0.5 else -3.0, 0.0]
        return out


class Colors:
    """Region vectors: square roots of a histogram of 64 colours."""

    fingerprint = "colors-2"
    has_text = False

    def __init__(self, device: str) -> None:
        pass

    def _vector(self, pixels: np.ndarray) -> np.ndarray:
        bins = np.clip(pixels.reshape(-1, 3).astype(np.int64) // 64, 0, 3) @ [16, 4, 1]
        return np.sqrt(np.bincount(bins, minlength=64) / len(bins))

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([self._vector(image) for image in images], dtype=np.float32)

    def regions(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            np.array(
                [
                    self._vector(image[y0:y1, x0:x1])
                    for x0, y0, x1, y1 in to_pixels(mine, image.shape[1], image.shape[0])
                ],
                dtype=np.float32,
            ).reshape(len(mine), -1)
            for image, mine in zip(images, boxes, strict=True)
        ]


patch_lover = PatchLover
colors = Colors


LOG: list[tuple[str, str]] = []
"""What `green_or_red` was asked: (class, prompt), in order."""
ASKED = {"is there": Prompt(ask="Is there {}?"), "never": Prompt(ask="Is {} here?"),
         "leading": Prompt(ask="Surely there is {}?", counts=False)}  # fmt: skip


def green_or_red(classes: tuple[str, ...], device: str, limit: int = 10**9) -> YesNoClassifier:
    """A multimodal LLM that sees `a` where there is a green thing, or (wrongly) a red patch, and never anything else.

    Asked "never", it says No. It answers `limit` questions; then its budget is spent.
    """

    def ask(asked: Sequence[Asked]) -> list[Answer]:
        answers = []
        for one in asked:
            if len(LOG) >= limit:
                raise BudgetReached(f"the budget of {limit} calls is spent")
            LOG.append((one.class_name, one.name))
            seen = 0.0
            if one.image is not None and one.class_name == "a":
                r, g, b = np.moveaxis(one.image.astype(np.int64), -1, 0)
                seen = max(((g > 200) & (r < 70) & (b < 70)).mean(), ((r > 200) & (g < 70) & (b < 70)).mean())
            answers.append(Answer(0.9 if seen > 0.01 and one.name != "never" else 0.1))
        return answers

    return YesNoClassifier(classes, ASKED, ask, lambda: "green-or-red-1")
