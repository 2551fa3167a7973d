"""kill -9 in the middle of each stage, then the same command: the tables equal those of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.chain import STAGES
from tests.conftest import ROOT
from tests.test_cli import configuration, cuescope

pytestmark = pytest.mark.slow


def tables(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.parquet"))}


@pytest.fixture(scope="module")
def undisturbed(patched_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = cuescope("discover", configuration(folder, patched_set), "--out", folder / "A", "--no-prefect")
    assert done.returncode == 0, done.stderr
    return tables(folder / "A")


def kill_during(stage: str, config: Path, out: Path) -> None:
    """Start the audit and kill it as soon as the stage before has ended, in the thick of `stage`."""
    names = list(STAGES)
    before = names[names.index(stage) - 1] if stage != names[0] else None
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "discover", str(config), "--out", str(out), "--no-prefect"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    if before is None:
        while not (out / "run.json").exists():
            time.sleep(0.01)
    else:
        while process.poll() is None:
            try:
                if before in json.loads((out / "run.json").read_text())["seconds"]:
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.005)
    time.sleep(0.03)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_killed_run_goes_on(stage: str, patched_set: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    config = configuration(tmp_path, patched_set)
    kill_during(stage, config, tmp_path / "A")
    done = cuescope("discover", config, "--out", tmp_path / "A", "--no-prefect")
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "A") == undisturbed
