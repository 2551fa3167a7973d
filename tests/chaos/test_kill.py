"""kill -9 at random points (ten; thirty before a release), then the same command: the tables equal those of an
undisturbed run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.chain import STAGES
from tests.chaos.conftest import Whole
from tests.chaos.harness import Harness
from tests.test_resume import tables

pytestmark = pytest.mark.slow

POINTS = np.sort(np.random.default_rng(5).uniform(0, 1, 30)).round(4).tolist()
"""When to kill, as shares of the events of the file system (a file opened, renamed, removed) of an undisturbed run."""
HIT: dict[float, dict] = {}


def crumbs(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*.part")]


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=[pytest.mark.release] * (number % 3 > 0)) for number, p in enumerate(POINTS)]
)
def test_a_kill_changes_nothing(
    point: float, run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    """Half of the kills hit the event itself, half come up to 0.2 s later, in the midst of computing or of writing."""
    config = configured(tmp_path)
    number = POINTS.index(point)
    delay = 0.0 if number % 2 else float(np.random.default_rng(number).uniform(0, 0.2))
    killed = run(config, tmp_path / "A", kill_at=1 + int(point * whole.events), delay=delay)
    assert killed["code"] == -9 or (delay and killed["code"] == 0), killed  # the last delay may outlive the run
    HIT[point] = killed
    again = run(config, tmp_path / "A")
    assert again["code"] == 0, (killed, again)
    assert tables(tmp_path / "A") == whole.tables, killed
    assert not crumbs(tmp_path), killed


def test_the_points_lay_in_many_stages() -> None:
    if len(HIT) < len(POINTS) // 3:
        pytest.skip("it speaks of all points together")
    assert sum(killed["code"] == -9 for killed in HIT.values()) >= len(HIT) - 2
    assert len({killed["stage"] for killed in HIT.values()} & set(STAGES)) >= 4


def test_kill_after_kill_gets_there(
    run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    """Each attempt is killed a little further on; what one computed is kept for the next."""
    config = configured(tmp_path)
    kept = []
    for share in (0.2, 0.25, 0.3):
        assert run(config, tmp_path / "A", kill_at=int(share * whole.events))["code"] == -9
        kept.append(len(list((tmp_path / "cache").rglob("*.keys.parquet"))))
    assert kept == sorted(kept) and kept[-1] > 0
    assert run(config, tmp_path / "A")["code"] == 0
    assert tables(tmp_path / "A") == whole.tables
