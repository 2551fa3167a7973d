"""Scheduled audits on a real Prefect server: what a schedule runs, what it shows there, and what it outlives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.history import Past, history
from pipeline.store import AuditFolder
from tests.conftest import ROOT, write_patched_set
from tests.test_audits import add_pictures, since
from tests.test_cli import configuration, cuescope
from tests.test_flow import ask, server

pytestmark = pytest.mark.slow
__all__ = ["server"]


@contextlib.contextmanager
def scheduled(config: Path, root: Path, url: str, every: int) -> Iterator[subprocess.Popen[str]]:
    """`cuescope schedule` in a process of its own, stopped as an operator would."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "schedule", str(config), "--root", str(root), "--every", str(every)],
        cwd=root.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PREFECT_API_URL": url,
            "PREFECT_HOME": str(root.parent / "prefect"),
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 600) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        if process.poll() is not None:
            assert process.stdout is not None
            raise AssertionError(f"the schedule ended: {process.stdout.read()[-3000:]}")
        time.sleep(1)
    raise AssertionError("nothing came of it in time")


def finished(root: Path, images: int) -> list[Past]:
    return [past for past in history(root) if past.state == "finished" and past.images == images]


@pytest.mark.timeout(3600)
def test_a_schedule_names_what_changed_while_images_were_added(server: str, tmp_path: Path) -> None:
    images, root = tmp_path / "images", tmp_path / "R"
    write_patched_set(images, per_class=120, seed=3)
    config = configuration(tmp_path, images, measure={"max_per_class": 3}, shard=100, renew=0.5, cache=None)
    with scheduled(config, root, server, every=30) as process:
        first = wait_for(lambda: finished(root, 360), process)[0]
        # all classes grow; of the new pictures of `a` every one shows the cue, before 60 of 100 did
        for label, count, share in (("a", 60, 1.0), ("b", 30, 0.08), ("c", 30, 0.08)):
            add_pictures(images, label, count, share, seed=ord(label))
        second = wait_for(lambda: finished(root, 480), process)[0]
    # the second names the planted change
    found = since(tmp_path)
    worse = [row for row in found.changes.to_pylist() if row["change"] == "worse"]
    assert worse and {row["class"] for row in worse} == {"a"} and found.causes == []
    assert found.images["added_by_class"] == {"a": 60, "b": 30, "c": 30}
    # and took no more of the models than twice the share of new images
    forwards = [sum(AuditFolder(past.path).run()["forwards"].values()) for past in (first, second)]
    assert forwards[1] <= 2 * 120 / 480 * forwards[0], forwards
    # the server shows it
    artifacts = {row["key"]: row for row in ask(server, "artifacts/latest/filter")}
    assert {"cuescope-changes", "cuescope-changed-findings", "cuescope-audit-report"} <= set(artifacts)
    runs = [run for run in ask(server, "flow_runs/filter") if run["name"].startswith("audit-")]
    done = [run for run in runs if run["state_type"] == "COMPLETED"]
    assert len(done) >= 2 and any("worse" in run["state"]["message"] for run in done)
    assert {run["state_type"] for run in runs} <= {
        "COMPLETED",
        "CANCELLED",
        "SCHEDULED",
        "PENDING",
        "RUNNING",
        "CRASHED",
        "CANCELLING",
    }
    assert len(json.dumps([run["parameters"] for run in done])) < 500 * len(done)
    # the schedule outlived its process, and takes up again in the next
    (deployment,) = ask(server, "deployments/filter")
    assert [entry["active"] for entry in deployment["schedules"]] == [True] and not deployment["paused"]
    assert [row["name"] for row in ask(server, "automations/filter")] == ["Cuescope: runs whose heartbeat stopped"]
    before = len(history(root))
    with scheduled(config, root, server, every=30) as process:
        wait_for(lambda: len(history(root)) > before, process)
    (again,) = ask(server, "deployments/filter")
    assert again["id"] == deployment["id"]
    assert len(ask(server, "automations/filter")) == 1
    # by hand on the same server: what is deleted is said
    config.write_text(config.read_text() + "operate: {keep: 1}\n")
    by_hand = cuescope("audit", config, "--root", root, PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path / "prefect"))
    assert by_hand.returncode in (0, 3), by_hand.stderr
    assert f"Deleted by operate.keep: {first.path}" in by_hand.stderr and not first.path.exists()


def test_prefect_yaml_deploys_the_audit_to_a_work_pool(server: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for command in (["work-pool", "create", "audits", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    (deployment,) = ask(server, "deployments/filter")
    assert deployment["entrypoint"] == "flows/audit.py:audit" and deployment["work_pool_name"] == "audits"
    assert deployment["schedules"][0]["schedule"]["cron"] == "0 3 * * 1"
    assert set(deployment["parameters"]) == {"config", "root", "overrides", "runner"}


def test_a_schedule_without_a_server_or_a_time_is_refused(patched_set: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, patched_set)
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": ""}
    for arguments, words in (
        (["--cron", "0 3 * * 1"], "prefect server start"),
        ([], "--cron"),
        (["--cron", "nonsense"], "five fields"),
        (["--cron", "0 3 * * 1", "--timezone", "Mars/Olympus"], "Mars/Olympus"),
    ):
        done = cuescope("schedule", config, *arguments, **home)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
