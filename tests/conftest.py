"""Shared by all tests: dependencies quiet, one thread, small images on disk."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.quiet import quieten

quieten()
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).parents[1]
settings.register_profile("cuescope", deadline=None)  # a busy machine is no fault
settings.load_profile("cuescope")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: at the end of a run no process waits long for the others."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("release")}
    items.sort(key=lambda item: item.path not in slow)


def noisy_picture(rng: np.random.Generator, size: int = 48) -> np.ndarray:
    """A smooth random picture with some noise, (size, size, 3) uint8."""
    coarse = rng.integers(40, 200, (4, 4, 3)).astype(np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def add_patch(picture: np.ndarray, rng: np.random.Generator, color: tuple[int, int, int] = (250, 10, 10)) -> np.ndarray:
    """The picture with a square of one colour, a quarter as wide, in a random cell of a 4 x 4 grid."""
    side = picture.shape[0] // 4
    row, column = (int(v) * side for v in rng.integers(0, 4, 2))
    result = picture.copy()
    result[row : row + side, column : column + side] = color
    return result


def write_patched_set(root: Path, per_class: int = 60, seed: int = 0) -> Path:
    """Three classes of random pictures; 60 % of class `a` and 8 % of the others show a red patch."""
    rng = np.random.default_rng(seed)
    for label, share in (("a", 0.6), ("b", 0.08), ("c", 0.08)):
        (root / label).mkdir(parents=True)
        for number in range(per_class):
            picture = noisy_picture(rng)
            if label == "b":
                picture[:, :8] = 128  # what truly tells b: a grey bar on the left
            if rng.random() < share:
                picture = add_patch(picture, rng)
            Image.fromarray(picture).save(root / label / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def patched_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder whose class `a` goes with a red patch."""
    return write_patched_set(tmp_path_factory.mktemp("data") / "images")
