"""Benchmarks of speed: what a line says, what is kept of earlier runs, and that one of them runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.bench.speed import command
from pipeline.bench.speed.clusters import cosine_distances, k_medoids, silhouette_of
from pipeline.bench.speed.lines import Line
from pipeline.errors import UserError
from pipeline.metrics import ravl
from tests.conftest import ROOT


def test_a_target_is_met_from_the_side_that_it_is_set_on() -> None:
    assert Line("a", "ratio", 8.0, 8.0).holds and not Line("a", "ratio", 7.9, 8.0).holds
    assert Line("a", "time", 0.5, 0.5, False, "s").holds and not Line("a", "time", 0.51, 0.5, False, "s").holds
    assert Line("a", "only said", 0.0).holds
    assert not Line("a", "nothing measured", float("nan"), 8.0).holds
    assert Line("a", "time", 1234.5, 600.0, False, "s").words == "a: time 1,234 s (at most 600): MISSED"
    assert Line("a", "P@10", 0.5, unit="").words == "a: P@10 0.5"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Two benchmarks that give these values."""
    values = {"one": 2.0, "two": 3.0}

    def bench(name: str) -> command.Bench:
        def run(quick: bool, models: Path, work: Path) -> Iterator[Line]:
            assert work.is_dir()
            yield Line(name, "ratio", values[name], 2.5 if name == "two" else None, setting="small")

        return run

    monkeypatch.setattr(command, "benches", lambda: {name: lambda name=name: bench(name) for name in values})
    return values


def test_figures_of_benchmarks_that_are_not_run_stay(measured: dict[str, float], tmp_path: Path) -> None:
    out, document = tmp_path / "speed.json", tmp_path / "page.md"
    document.write_text(f"before\n{command.BEGIN}\nold\n{command.END}\nafter\n")
    assert command.bench_speed((), True, tmp_path, None, out, document)
    measured.update(one=4.0, two=1.0)
    assert not command.bench_speed(("two",), True, tmp_path, tmp_path / "work", out, document)
    assert [(line["bench"], line["value"], line["holds"]) for line in json.loads(out.read_text())] == [
        ("one", 2.0, True),
        ("two", 1.0, False),
    ]
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 2 x |  |  |" in text and "| 1 x | >= 2.5 | **missed** |" in text and "small size" in text


def test_a_page_without_a_place_for_the_table_is_said_before_anything_is_run(
    measured: dict[str, float], tmp_path: Path
) -> None:
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(UserError, match=r"page\.md has no place for the table"):
        command.bench_speed((), True, tmp_path, None, tmp_path / "speed.json", tmp_path / "page.md")
    assert not (tmp_path / "speed.json").exists()


def test_medoids_are_members_of_the_groups_they_stand_for() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 16, dtype=np.float32)
    owner = np.repeat(np.arange(4), 30)
    vectors = centres[owner] + 0.05 * rng.standard_normal((120, 16), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = cosine_distances(vectors)
    medoids = k_medoids(distance, 4)
    nearest = (vectors @ vectors[medoids].T).argmax(axis=1)
    within = (vectors * vectors[medoids][nearest]).sum(axis=1)
    assert len(set(medoids.tolist())) == 4 and within.mean() > 0.5
    for own in (nearest, owner, rng.integers(4, size=120), np.arange(120) % 119):
        told = ravl.silhouette(vectors, own)
        assert silhouette_of(distance, own, 119) == pytest.approx(told, abs=0.02)


def test_the_command_runs_one_and_knows_the_others(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline", "bench", "all", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    done = run("--only", "measure", "--quick", "--out", str(tmp_path / "speed.json"))
    assert done.returncode in (0, 1) and done.stdout.startswith("measure: 100 classes x 100 cues"), done.stderr
    assert {line["bench"] for line in json.loads((tmp_path / "speed.json").read_text())} == {"measure"}
    wrong = run("--only", "mesure")
    assert wrong.returncode == 2 and "measure" in wrong.stderr and "Traceback" not in wrong.stderr
