"""kill -9 in the middle of a stage, then the same command: the tables equal those of an undisturbed run.

And of a finished one it says that nothing has changed, as long as that is so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.chain import STAGES, recognised, run_audit
from pipeline.config import Audit
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
        left = [f"{table}.parquet" for table in STAGES[before].writes] or ["report.html"]
        while process.poll() is None and not (out / left[-1]).exists():
            time.sleep(0.005)
    time.sleep(0.03)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize(
    "stage", ["caption", "ablate", *(pytest.param(name, marks=pytest.mark.release) for name in ("cluster", "report"))]
)  # tests/chaos kills at many more places
def test_a_killed_run_goes_on(stage: str, patched_set: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    config = configuration(tmp_path, patched_set)
    kill_during(stage, config, tmp_path / "A")
    done = cuescope("discover", config, "--out", tmp_path / "A", "--no-prefect")
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "A") == undisturbed


def test_what_is_as_it_was_is_recognised(patched_set: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "A"
    shutil.copytree(patched_set, images)
    config = configuration(tmp_path, images)

    def holds(*overrides: str) -> bool:
        return recognised(Audit.from_yaml(config, list(overrides)), out) is not None

    assert not holds()
    run_audit(Audit.from_yaml(config), out)
    assert holds() and not holds("reread=true") and not holds("seed=1") and not holds("model.options={love: 0.5}")
    before = tables(out)
    done = cuescope("discover", config, "--out", out, "--no-prefect", "--json")
    assert done.returncode == 0 and "Nothing has changed since" in done.stderr and json.loads(done.stdout)
    assert tables(out) == before
    one = sorted(images.rglob("*.png"))[0]
    written, was = one.read_bytes(), one.stat()
    with Image.open(one) as picture:
        Image.fromarray(255 - np.asarray(picture.convert("RGB"))).save(one)
    assert not holds()
    one.write_bytes(written)
    assert not holds()  # the same bytes, but only reading them would tell
    os.utime(one, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert holds()
    (images / "a" / "new.png").write_bytes(written)
    assert not holds()
    (images / "a" / "new.png").unlink()
    run = (out / "run.json").read_text()
    for other in (run[:40], "{}", '{"finished": "2025-01-01", "data": {}}'):  # cut short, or of an older version
        (out / "run.json").write_text(other)
        assert not holds()
    (out / "run.json").write_text(run)
    assert holds()
    (out / "report.html").rename(out / "other.html")
    assert not holds()
