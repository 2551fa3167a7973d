"""A small audit that is quick to run thirty times, and what it gives when nothing disturbs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.harness import Harness
from tests.conftest import write_patched_set
from tests.test_cli import configuration
from tests.test_resume import tables

SMALL = {
    "ablate": {"fills": ["mean"], "images": 8, "budget": 400},
    "cluster": {"k_min": 8, "k_max": 8, "sweep": 1},
    "measure": {"max_per_class": 3},
    "shard": 24,
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 pictures of three classes."""
    return write_patched_set(tmp_path_factory.mktemp("small") / "images", 24)


@pytest.fixture(scope="session")
def configured(pictures: Path) -> Callable[..., Path]:
    """Writes the audit's configuration into a folder, which is made; its cache lies there too."""

    def write(folder: Path, **more: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return configuration(folder, pictures, **(SMALL | more))

    return write


@pytest.fixture(scope="session")
def run() -> Iterator[Harness]:
    with Harness() as harness:
        yield harness


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its tables, and how many events of the file system it made."""

    tables: dict[str, bytes]
    events: int


@pytest.fixture(scope="session")
def whole(run: Harness, configured: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    done = run(configured(folder), folder / "A")
    assert done["code"] == 0, done
    return Whole(tables(folder / "A"), done["events"])
