"""docs/your-own-back-end.md as it stands: its files make a package, and an audit runs with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, write_patched_set

TEXT = (ROOT / "docs" / "your-own-back-end.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the document, built and installed in a folder; with the configuration and pictures beside it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "package").mkdir()
    (folder / "package" / "pyproject.toml").write_text(BLOCKS["toml"])
    (folder / "package" / "redness.py").write_text(BLOCKS["python"])
    small = {"kind": "python", "factory": "tests.fakes:colors"}
    (folder / "audit.yaml").write_text(yaml.safe_dump({**yaml.safe_load(BLOCKS["yaml"]), "embed": small}))
    write_patched_set(folder / "images")
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site", folder / "package"],
        check=True,
        timeout=300,
    )
    return folder


def cuescope(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed / "site"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        cwd=installed,
        timeout=500,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "160"},
    )


def test_the_example_is_short() -> None:
    lines = [line for line in BLOCKS["python"].splitlines() if line.strip()]
    assert len(lines) < 30


def test_an_audit_runs_with_it_and_finds_what_it_leans_on(installed: Path) -> None:
    done = cuescope(installed, "discover", "audit.yaml", "--out", "found", "--no-prefect")
    assert done.returncode == 0, done.stderr[-3000:]
    findings = json.loads(cuescope(installed, "show", "found", "--json").stdout)
    assert (findings[0]["class"], findings[0]["verdict"]) == ("a", "confirmed")


def test_its_mistakes_are_told_like_any_others(installed: Path) -> None:
    audit = (installed / "audit.yaml").read_text()
    for change, words in (
        (("chosen: a", "chosen: aa"), "no class 'aa'"),
        (("share: 0.03", "shares: 0.03"), "no option 'shares'. Did you mean 'share'?"),
        (("share: 0.03", "share: much"), "option 'share' of the back end 'redness'"),
    ):
        (installed / "wrong.yaml").write_text(audit.replace(*change))
        done = cuescope(installed, "discover", "wrong.yaml", "--out", "wrong", "--no-prefect")
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
