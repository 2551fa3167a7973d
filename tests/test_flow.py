"""The Prefect flow: the same tables as in the process, quiet on a temporary server, visible on a real one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_cli import configuration, cuescope
from tests.test_resume import tables

pytestmark = pytest.mark.slow


def test_the_flow_gives_the_same_tables_and_says_nothing_of_itself(patched_set: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, patched_set)
    home = {"PREFECT_HOME": str(tmp_path / "prefect")}
    plain = cuescope("discover", config, "--out", tmp_path / "A", "--no-prefect")
    flow = cuescope("discover", config, "--out", tmp_path / "B", **home)
    assert plain.returncode == flow.returncode == 0, flow.stderr
    assert tables(tmp_path / "A") == tables(tmp_path / "B")
    for word in ("Traceback", "ERROR", "prefect", "telemetry"):
        assert word not in flow.stderr + flow.stdout


@contextlib.contextmanager
def running_server(home: Path) -> Iterator[str]:
    """`prefect server start` on a free port of loopback: its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(home / "server"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        end = time.monotonic() + 900  # a busy machine is no fault
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=10)
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, "the server did not start"
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with running_server(tmp_path) as url:
        yield url


def ask(url: str, path: str) -> list[dict]:
    request = urllib.request.Request(
        f"{url}/{path}", data=b"{}", headers={"content-type": "application/json"}, method="POST"
    )
    return json.loads(urllib.request.urlopen(request, timeout=20).read())


def test_a_real_server_shows_the_run_its_progress_and_its_findings(
    server: str, patched_set: Path, tmp_path: Path
) -> None:
    config = configuration(tmp_path, patched_set)
    done = cuescope("discover", config, "--out", tmp_path / "A", PREFECT_API_URL=server)
    assert done.returncode == 0, done.stderr
    runs = ask(server, "flow_runs/filter")
    assert [run["state_type"] for run in runs] == ["COMPLETED"]
    shards = [run["name"] for run in ask(server, "task_runs/filter")]
    assert {"ingest", "rank", "report", "predict-0", "detect-0"} <= set(shards)
    artifacts = {row["key"]: row for row in ask(server, "artifacts/latest/filter")}
    assert {"cuescope-progress", "cuescope-findings", "cuescope-report"} <= set(artifacts)
    assert float(artifacts["cuescope-progress"]["data"]) == 100.0
    assert "confirmed" in str(artifacts["cuescope-findings"]["data"])


def test_a_mistake_is_found_before_prefect_starts(patched_set: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, patched_set, data={"source": "folder", "path": "nowhere"})
    done = cuescope("discover", config, "--out", tmp_path / "A", PREFECT_API_URL="http://127.0.0.1:1/api")
    assert done.returncode == 2 and "nowhere" in done.stderr
