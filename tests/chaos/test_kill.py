"""kill -9 at thirty random points, then the same command: the tables equal those of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.chain import STAGES
from tests.chaos.harness import Harness
from tests.test_cli import configuration
from tests.test_resume import tables

pytestmark = pytest.mark.slow

POINTS = 30
SEED = 5


@pytest.fixture(scope="module")
def run() -> Iterator[Harness]:
    with Harness() as harness:
        yield harness


def crumbs(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*.part")]


def test_thirty_kills_change_nothing(run: Harness, patched_set: Path, tmp_path: Path) -> None:
    """Points are events of the file system (a file opened, renamed, removed): half of the kills hit exactly there, half
    up to 0.2 s later, in the midst of computing or of writing a file."""
    whole = run(configuration(tmp_path, patched_set), tmp_path / "A")
    assert whole["code"] == 0, whole
    undisturbed = tables(tmp_path / "A")
    rng = np.random.default_rng(SEED)
    points = np.sort(rng.choice(np.arange(1, whole["events"] + 1), POINTS, replace=False)).tolist()
    hit = []
    for number, point in enumerate(points):
        folder = tmp_path / f"{point}"
        folder.mkdir()
        config = configuration(folder, patched_set)
        delay = 0.0 if number % 2 else float(rng.uniform(0, 0.2))
        killed = run(config, folder / "A", kill_at=point, delay=delay)
        assert killed["code"] in (-9, 0), killed  # 0: the delay outlived the run
        again = run(config, folder / "A")
        assert again["code"] == 0, (point, again)
        assert tables(folder / "A") == undisturbed, f"killed at event {point} of {whole['events']}: {killed}"
        assert not crumbs(folder), point
        hit.append(killed)
    assert sum(one["code"] == -9 for one in hit) >= POINTS - 2
    assert len({one["stage"] for one in hit} & set(STAGES)) >= 6, [one["stage"] for one in hit]


def test_kill_after_kill_gets_there(run: Harness, patched_set: Path, tmp_path: Path) -> None:
    """Each attempt is killed a little further on; what one computed, the next doesn't."""
    config = configuration(tmp_path, patched_set)
    kept = []
    for point in (60, 90, 120, 150):
        assert run(config, tmp_path / "A", kill_at=point)["code"] == -9
        kept.append(len(list((tmp_path / "cache").rglob("*.keys.parquet"))))
    assert kept == sorted(kept) and kept[-1] > 0
    assert run(config, tmp_path / "A")["code"] == 0
    (tmp_path / "fresh").mkdir()
    assert run(configuration(tmp_path / "fresh", patched_set), tmp_path / "fresh" / "A")["code"] == 0
    assert tables(tmp_path / "A") == tables(tmp_path / "fresh" / "A")
