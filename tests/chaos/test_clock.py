"""A clock that jumps by years, forwards and backwards, changes nothing but what is said of dates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.models.ledger import Ledger
from tests.chaos.conftest import Whole
from tests.conftest import ROOT
from tests.test_resume import tables

pytestmark = pytest.mark.slow

JUMPY = """
import datetime, itertools, time

real, jumps = time.time, itertools.cycle([0, 9e8, -9e8, 3600, -3600, 1e5])
time.time = lambda: real() + next(jumps)
time.time_ns = lambda: int(time.time() * 1e9)

from pipeline import chain
from pipeline.cli import main

chain._now = lambda: datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="seconds")
main()
"""


@pytest.mark.parametrize("prefect", ["--no-prefect", pytest.param("--prefect", marks=pytest.mark.release)])
def test_each_look_at_the_clock_is_years_off(
    prefect: str, configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", JUMPY, "discover", str(config), "--out", str(tmp_path / "A"), prefect],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "A") == whole.tables
    run = json.loads((tmp_path / "A" / "run.json").read_text())
    assert run["finished"] and all(0 <= seconds < 500 for seconds in run["seconds"].values())


def test_calls_are_counted_for_the_run_that_made_them_whatever_the_clock_says(
    configured: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs that begin in the same second, by a clock that stands still: the second one's budget is its own."""
    from pipeline import chain
    from pipeline.config import Audit
    from pipeline.context import Context

    monkeypatch.setattr(chain, "_now", lambda: "2020-02-02T02:02:02+00:00")
    audit = Audit.from_yaml(configured(tmp_path))
    ledgers: list[Ledger] = []
    for _ in range(2):
        folder = chain.prepare(audit, tmp_path / "A")
        ledgers.append(Context(audit, folder).ledger)
        ledgers[-1].write({"kind": "propose"})
    assert [ledger.spent().calls for ledger in ledgers] == [1, 1]
