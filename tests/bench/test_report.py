"""The bench of the report: what it holds the page to. Its figures are a measurement, and no test."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.bench.report.command import MOST_BYTES, MOST_PAINT, bench_report, in_words, verdict
from pipeline.errors import UserError


def run(paint: float) -> dict[str, float]:
    return {"paint": paint, "loaded": 1.0, "searched": 0.1, "nodes": 100}


def test_it_holds_within_both_targets_only() -> None:
    ok = [run(MOST_PAINT - 0.1)] * 2 + [run(9.0)]
    assert verdict(1000, MOST_BYTES - 1, 1.0, ok)["holds"], "the median counts"
    assert not verdict(1000, MOST_BYTES, 1.0, ok)["holds"]
    late = verdict(1000, 10, 1.0, [run(MOST_PAINT)])
    assert not late["holds"] and "MISSED" in in_words(late)


def test_without_a_browser_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs a browser"):
        bench_report(10, None)
