"""kill -9 of the Prefect server during a run: one plain line, and the same command completes with equal results."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.conftest import Whole
from tests.chaos.harness import Harness
from tests.conftest import ROOT
from tests.test_resume import tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_server_dies_in_the_middle(
    run: Harness, configured: Callable[..., Path], whole: Whole, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment, "PREFECT_HOME": str(tmp_path / "server"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        start_new_session=True,  # the server has processes of its own
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        audit = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "discover", str(config), "--out", str(tmp_path / "A")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **environment,
                "PREFECT_API_URL": url,
                "PREFECT_HOME": str(tmp_path / "client"),
                "PREFECT_CLIENT_MAX_RETRIES": "2",  # as many minutes sooner
            },
        )
        while audit.poll() is None and not (tmp_path / "A" / "predictions.parquet").exists():
            time.sleep(0.05)
        assert audit.poll() is None, audit.communicate()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    _, said = audit.communicate(timeout=600)
    assert audit.returncode == 2, said
    assert "Traceback" not in said and said.splitlines()[-1].startswith("cuescope: Prefect's server"), said
    assert url in said and "same command again" in said and "--no-prefect" in said
    assert list((tmp_path / "cache" / "predict").rglob("*.keys.parquet"))
    assert run(config, tmp_path / "A")["code"] == 0
    assert tables(tmp_path / "A") == whole.tables
