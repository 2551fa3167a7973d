"""The judge of the dependencies' advisories: .ci/audit-dependencies."""

from __future__ import annotations

import datetime
import importlib.machinery
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT

TODAY = datetime.date(2026, 6, 1)


@pytest.fixture
def audit() -> ModuleType:
    path = str(ROOT / ".ci" / "audit-dependencies")
    spec = importlib.util.spec_from_loader("audit", importlib.machinery.SourceFileLoader("audit", path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str = "x", fixed: tuple[str, ...] = ("2.0",), **more: Any) -> dict[str, Any]:
    vulnerability = {"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": list(fixed), "description": ""}
    return {"name": name, "version": "1.0", "vulns": [vulnerability], **more}


def answers(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str = "") -> int:
    done = SimpleNamespace(stdout=stdout, stderr=stderr, returncode=1)
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: done)
    return audit.main("constraints.txt")


def found(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(packages)})


def test_a_vulnerability_with_a_fix_fails(audit, monkeypatch, capsys) -> None:
    assert answers(audit, monkeypatch, found(package())) == 1
    shown = capsys.readouterr().out
    assert "VULNERABLE: x 1.0" in shown and "CVE-2026-1" in shown and "fixed in 2.0" in shown


def test_one_without_a_fix_is_told_of(audit, monkeypatch, capsys) -> None:
    assert answers(audit, monkeypatch, found(package(fixed=()))) == 0
    assert "no version without it yet" in capsys.readouterr().out


def test_what_could_not_be_asked_is_no_success_in_words(audit, monkeypatch, capsys) -> None:
    skipped = {"name": "x", "skip_reason": "not found"}
    assert answers(audit, monkeypatch, found(skipped)) == 0
    assert "NOT audited" in capsys.readouterr().out
    assert answers(audit, monkeypatch, "", "requests.exceptions.ConnectionError: Max retries exceeded") == 0
    assert "NOT audited" in capsys.readouterr().out
    assert answers(audit, monkeypatch, found(skipped, package())) == 1
    assert "nothing was learned of 1: x" in capsys.readouterr().out


def test_a_tool_that_is_missing_fails(audit, monkeypatch, capsys) -> None:
    assert answers(audit, monkeypatch, "", "python: No module named pip_audit") == 1


def test_a_slow_service_is_no_failure(audit, monkeypatch, capsys) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip-audit", 900)

    monkeypatch.setattr(audit.subprocess, "run", late)
    assert audit.main("constraints.txt") == 0 and "NOT audited" in capsys.readouterr().out


def test_an_exception_has_a_reason_and_an_end(audit) -> None:
    text = "# said\nPYSEC-1 until 2026-06-01: we never call it\nCVE-2 until 2026-05-31: run out\n"
    assert audit.allowed(text, TODAY) == {"PYSEC-1": "we never call it"}
    mend, know, _ = audit.judge({"dependencies": [package()]}, {"CVE-2026-1": "we never call it"})
    assert not mend and "stays: we never call it" in know[0]
    for bad in ("PYSEC-1", "PYSEC-1 until 2026-06-01:", "PYSEC-1: because"):
        with pytest.raises(SystemExit):
            audit.allowed(bad, TODAY)


def test_the_exceptions_of_this_repository_read(audit) -> None:
    audit.allowed((ROOT / ".ci" / "advisories.txt").read_text(encoding="utf-8"), TODAY)


def test_every_pin_is_exact() -> None:
    lines = Path(ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", line) for line in lines)
