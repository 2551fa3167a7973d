"""The demo as it ships: what the issue promises of it, through the command line, with no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_cli import cuescope
from tests.test_resume import tables

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "data/demo/audit.yaml").is_file(), reason="the demo's data is not in this checkout"),
]


ISOLATED = shutil.which("unshare") and not subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode
"""Whether this system lets a test make a network namespace, which has loopback and nothing else."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as it is run by everybody, through Prefect's own server; without a network where that can be."""
    base = tmp_path_factory.mktemp("demo")
    command = f"exec {sys.executable} -m pipeline discover data/demo/audit.yaml --out {base}/A"
    inside = "ip link set lo up 2>/dev/null || ifconfig lo up; "
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", inside + command] if ISOLATED else ["sh", "-c", command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PREFECT_HOME": str(base / "prefect")},
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    return base / "A"


def test_it_finds_what_was_planted_and_nothing_in_clean_classes(demo: Path) -> None:
    done = cuescope("planted", "score", demo)
    assert done.returncode == 0, done.stdout


def test_the_second_run_does_no_model_work_and_gives_identical_tables(demo: Path) -> None:
    again = demo.parent / "B"
    done = cuescope("discover", "data/demo/audit.yaml", "--out", again, "--no-prefect")
    assert done.returncode == 0, done.stderr
    forwards = json.loads((again / "run.json").read_text())["forwards"]
    assert sum(forwards.values()) == 0, forwards
    assert sum(json.loads((demo / "run.json").read_text())["forwards"].values()) > 0
    assert tables(again) == tables(demo)


def test_no_stage_reads_the_truth(demo: Path, tmp_path: Path) -> None:
    """Without truth.yaml and scenes.jsonl the findings are the same."""
    blind = tmp_path / "data" / "demo"
    shutil.copytree(ROOT / "data/demo", blind, ignore=shutil.ignore_patterns("truth.yaml", "scenes.jsonl"))
    (tmp_path / "data" / "models").symlink_to(ROOT / "data/models")
    config = (blind / "audit.yaml").read_text() + f"\ncache: {demo.parent / '.cuescope'}\n"
    (blind / "audit.yaml").write_text(config)
    done = cuescope("discover", blind / "audit.yaml", "--out", tmp_path / "A", "--no-prefect")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "A" / "findings.parquet").read_bytes() == (demo / "findings.parquet").read_bytes()


@pytest.mark.skipif(not ISOLATED, reason="this system doesn't let a test make a network namespace")
def test_it_runs_with_no_network_at_all(demo: Path) -> None:
    assert json.loads((demo / "run.json").read_text())["finished"]
    assert (demo / "report.html").is_file()


def test_the_report_opens_in_a_browser_with_nothing_to_complain_of(demo: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    messages: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((demo / "report.html").as_uri())
        page.wait_for_load_state("networkidle")
        assert "buoy" in page.inner_text("body")
        browser.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
