"""Two runs at once: on one cache each gives what it would alone; on one folder one of them runs, the other says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.chain import locked, prepare
from pipeline.config import Audit
from pipeline.errors import UserError
from tests.chaos.conftest import Whole
from tests.chaos.harness import Harness
from tests.conftest import ROOT
from tests.test_resume import tables

pytestmark = pytest.mark.slow


def started(config: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "discover", str(config), "--out", str(out), "--no-prefect"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=500)
    return process.returncode, said


def test_two_runs_on_one_cache(configured: Callable[..., Path], whole: Whole, tmp_path: Path) -> None:
    config = configured(tmp_path)
    both = [started(config, tmp_path / name) for name in ("A", "B")]
    assert [ended(process)[0] for process in both] == [0, 0]
    assert tables(tmp_path / "A") == tables(tmp_path / "B") == whole.tables


def test_two_runs_on_one_folder(run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path) -> None:
    config = configured(tmp_path)
    both = [started(config, tmp_path / "A") for _ in range(2)]
    ends = sorted(ended(process) for process in both)
    assert ends[0][0] == 0, ends
    if ends[1][0]:  # unless one was over before the other began
        assert ends[1][0] == 2 and "Another run is writing" in ends[1][1] and "Traceback" not in ends[1][1]
    assert tables(tmp_path / "A") == whole.tables


def test_a_late_second_run_leaves_the_first_alone(
    configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    first = started(config, tmp_path / "A")
    for _ in range(6000):
        if (tmp_path / "A" / "images.parquet").exists() or first.poll() is not None:
            break
        time.sleep(0.05)
    code, said = ended(started(config, tmp_path / "A"))
    done, words = ended(first)
    assert done == 0, words
    assert code == 0 or (code == 2 and "Another run is writing" in said)
    assert tables(tmp_path / "A") == whole.tables


def test_a_run_that_begins_between_two_steps_of_another_stops_it(
    configured: Callable[..., Path], tmp_path: Path
) -> None:
    """Between the preparation and the lock of one run, another prepares the folder for another audit."""
    config = configured(tmp_path)
    first = prepare(Audit.from_yaml(config), tmp_path / "A")
    second = prepare(Audit.from_yaml(config, ["seed=1"]), tmp_path / "A")
    with pytest.raises(UserError, match="Another run is writing"), locked(first):
        raise AssertionError
    with locked(second):
        assert json.loads((tmp_path / "A" / "run.json").read_text())["seed"] == 1
