"""Disks that are full, limited or closed: one plain line, exit code 2, nothing lost; with room the run goes on."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Whole
from tests.chaos.harness import Harness
from tests.conftest import ROOT
from tests.test_resume import tables

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory at `folder`; skips where one can't be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting a small disk needs root and the right to mount: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def plain(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line of plain words, exit code 2."""
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and said.startswith("cuescope: ")
    for word in words:
        assert word in said, said


def cuescope(*arguments: str | Path, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **more,
    )


@pytest.mark.parametrize("full", ["cache", "A"])
def test_a_full_disk(full: str, run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path) -> None:
    config, disk = configured(tmp_path), tmp_path / full
    with mounted(disk, "size=128k"):
        done = cuescope("discover", config, "--out", tmp_path / "A" / "1", "--no-prefect")
        plain(done, "the disk is full", str(disk), "Make room")
        assert not [*disk.rglob(".*.part")]
        kept = {file: file.read_bytes() for file in (tmp_path / "cache").rglob("*.keys.parquet")}
        assert kept
        remount(disk, "size=64m")
        assert run(config, tmp_path / "A" / "1")["code"] == 0
        assert tables(tmp_path / "A" / "1") == whole.tables
        assert {file: file.read_bytes() for file in kept} == kept


@pytest.mark.release
def test_a_full_disk_under_prefect(configured: Callable[..., Path], tmp_path: Path) -> None:
    """The line is the last one, and a task isn't tried again."""
    config, disk = configured(tmp_path), tmp_path / "cache"
    with mounted(disk, "size=64k"):
        home = {"PREFECT_HOME": str(tmp_path / "prefect")}
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "discover", str(config), "--out", str(tmp_path / "A")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=500,
            env={**os.environ, "PYTHONPATH": str(ROOT), **home},
        )
        plain(done, "the disk is full", str(disk))


def test_a_limit_on_the_size_of_a_file(
    run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    limit = 40_000
    done = cuescope(
        "discover",
        config,
        "--out",
        tmp_path / "A",
        "--no-prefect",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    plain(done, "a file would be too large")
    assert run(config, tmp_path / "A")["code"] == 0
    assert tables(tmp_path / "A") == whole.tables


@pytest.mark.parametrize("closed", ["cache", "A"])
def test_a_read_only_folder(
    closed: str, run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    config, disk = configured(tmp_path), tmp_path / closed
    with mounted(disk, "size=64m"):
        remount(disk, "ro")
        done = cuescope("discover", config, "--out", tmp_path / "A" / "1", "--no-prefect")
        plain(done, "read-only", str(disk), "--out")
        remount(disk, "rw")
        assert run(config, tmp_path / "A" / "1")["code"] == 0
        assert tables(tmp_path / "A" / "1") == whole.tables


def test_a_read_only_cache_that_knows_all_is_enough(
    run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    with mounted(tmp_path / "cache", "size=64m"):
        assert run(config, tmp_path / "A")["code"] == 0
        remount(tmp_path / "cache", "ro")
        assert run(config, tmp_path / "B")["code"] == 0
        assert tables(tmp_path / "B") == whole.tables


def test_a_folder_of_someone_else(configured: Callable[..., Path], tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "A").mkdir()
    (tmp_path / "A").chmod(0o555)
    if os.geteuid():
        done = cuescope("discover", config, "--out", tmp_path / "A" / "1", "--no-prefect")
    else:  # root may write anywhere: be someone else, who may read what lies here
        for folder in (tmp_path, *tmp_path.parents):
            if not folder.stat().st_mode & 0o005 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o055)
        try:
            done = cuescope("discover", config, "--out", tmp_path / "A" / "1", "--no-prefect", user=65534, group=65534)
        except PermissionError as error:
            pytest.skip(f"another user can't start this Python: {error}")
        if done.returncode == 1 and "ModuleNotFoundError" in done.stderr:
            pytest.skip("another user can't read this Python's packages")
    plain(done, "permission denied", str(tmp_path / "A"))
