"""Shards on the workers of a Dask cluster: the same tables, also where a worker is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import SMALL
from tests.conftest import ROOT, write_patched_set
from tests.test_cli import configuration, cuescope
from tests.test_flow import server
from tests.test_resume import tables

__all__ = ["server"]

pytest.importorskip("prefect_dask", reason="needs the extra dask")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patched_set(tmp_path_factory.mktemp("small") / "images", 24)


def config_of(folder: Path, pictures: Path) -> Path:
    return configuration(folder, pictures, **(SMALL | {"shard": 6}))


@pytest.fixture(scope="module")
def local(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local")
    done = cuescope("discover", config_of(folder, pictures), "--out", folder / "A", "--no-prefect")
    assert done.returncode == 0, done.stderr
    return tables(folder / "A")


@pytest.mark.release
def test_workers_of_its_own_give_the_same_tables(local: dict[str, bytes], pictures: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, pictures)
    done = cuescope("discover", config, "--out", tmp_path / "A", "--runner", "dask:2", PREFECT_HOME=str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "A") == local
    assert "Traceback" not in done.stderr


def test_a_worker_that_is_killed_costs_nothing_but_time(
    server: str, local: dict[str, bytes], pictures: Path, tmp_path: Path
) -> None:
    from distributed import Client, LocalCluster

    config = config_of(tmp_path, pictures)
    home = {"PREFECT_HOME": str(tmp_path / "p"), "PREFECT_API_URL": server}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **home}  # a cluster changes it
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        before = client.run(os.getpid)
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "discover", str(config), "--out", str(tmp_path / "A"),
             "--runner", f"dask:{cluster.scheduler_address}"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        cache = tmp_path / "cache"
        while process.poll() is None and not list(cache.glob("predict/*/*.keys.parquet")):
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        os.kill(next(iter(before.values())), signal.SIGKILL)
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said
        assert set(client.run(os.getpid).values()) != set(before.values())  # one was indeed lost
    found = tables(tmp_path / "A")
    assert [name for name in local if found.get(name) != local[name]] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--runner", "ray"), "'ray' is unknown"),
        (("--runner", "dask:0"), "at least one"),
        (("--runner", "dask", "--no-prefect"), "leave --no-prefect away"),
        (("--runner", "dask:tcp://127.0.0.1:9"), "127.0.0.1:9"),
    ],
)
def test_a_runner_that_cannot_be_is_told_in_a_line(
    arguments: tuple[str, ...], words: str, patched_set: Path, tmp_path: Path
) -> None:
    done = cuescope("discover", configuration(tmp_path, patched_set), "--out", tmp_path / "A", *arguments)
    assert done.returncode == 2 and words in done.stderr, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
