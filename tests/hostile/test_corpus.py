"""The corpus of bad inputs through the whole program: no crash, every file accounted for, every message plain."""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.errors import HIDDEN, JOINERS
from pipeline.images import SUFFIXES
from tests.chromium import Visit, browser
from tests.hostile import corpus
from tests.hostile.corpus import CLASSES, ESCAPE, SCRIPT
from tests.test_cli import cuescope


def is_plain(text: str) -> bool:
    """Nothing in it acts on a terminal; lines may end."""
    return all(unicodedata.category(c) not in HIDDEN or c in f"\n{JOINERS}" for c in text)


def accounted(out: Path) -> dict[str, Any]:
    """run.json of an audit in which every file is audited, quarantined for a plain reason, or of other classes."""
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    data = run["data"]
    quarantine = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert data["quarantined"] == len(quarantine)
    assert data["given"] == data["pictures"] + data["quarantined"] + data["other_classes"]
    for row in quarantine:
        reason = row["reason"]
        assert 5 < len(reason) < 400 and " " in reason and is_plain(reason.replace("\n", "")), row
        assert not re.search(r"Traceback|object at 0x|Error:|Errno", reason), row
    return run


def audit(folder: Path, data: dict[str, Any], **more: Any) -> Path:
    file = folder / "audit.yaml"
    raw = {
        "data": data,
        "model": {"kind": "python", "factory": "tests.hostile.fakes:any_classes"},
        "embed": {"kind": "python", "factory": "tests.fakes:colors"},
        "ablate": {"fills": ["mean"], "images": 12},
        "cache": str(folder / "cache"),
        **more,
    }
    file.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    return file


def run(folder: Path, config: Path, *more: str) -> Path:
    """The audit by the command line, and what everything printed."""
    out = folder / "out"
    done = cuescope("discover", config, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    for command in (
        ("show", out),
        ("show", out, "--json"),
        ("doctor", config),
        ("export", out, "--to", "csv", "--out", folder / "f.csv"),
        ("export", out, "--to", "label-studio", "--out", folder / "tasks.json", "--set", "image_prefix=https://x/"),
    ):
        shown = cuescope(*command)
        assert shown.returncode == 0, shown.stderr
        assert is_plain(shown.stdout + shown.stderr), command
        assert "Traceback" not in shown.stderr
    assert is_plain(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
    return out


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of everything bad, and its audit."""
    folder = tmp_path_factory.mktemp("hostile")
    images = corpus.write_folder(folder)
    attributes = [SCRIPT, f"{{{{7*7}}}} {ESCAPE} red patch", "=1+1", "red patch"]
    more = {"propose": {"kind": "list", "attributes": attributes}, "shard": 64}
    return images, run(folder, audit(folder, {"source": "folder", "path": str(images)}, **more), "--no-prefect")


def entries(root: Path) -> Counter[str]:
    """What lies in a folder by the rules of the documentation, counted without Cuescope."""
    found: Counter[str] = Counter()
    for parent, folders, files in os.walk(root):
        top = Path(parent) == root
        found["items"] += 0 if top else sum(Path(parent, name).is_symlink() for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            image = Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
            found["items" if image and not top else "others"] += 1
    return found


def test_the_corpus_is_large_enough() -> None:
    assert len(corpus.pictures()) + len(corpus.NAMES) + len(corpus.BYTES_NAMES) + 13 >= 200


@pytest.mark.slow
def test_every_file_of_the_folder_is_accounted_for(audited: tuple[Path, Path]) -> None:
    images, out = audited
    there = entries(images)
    summary = accounted(out)
    assert summary["data"]["given"] == there["items"] + 1, "and the class's folder without images"
    passed = [re.match(r"(\d+) files? of the data", entry["what"]) for entry in summary["skipped"]]
    assert sum(int(match[1]) for match in passed if match) == there["others"]
    reasons = {row["path"]: row["reason"] for row in pq.read_table(out / "quarantine.parquet").to_pylist()}
    said = {Path(path).name: reason for path, reason in reasons.items()}
    for name, words in {
        "away.png": "outside",
        "secrets.png": "outside",
        "device.png": "outside",
        "loop.png": "symbolic links",
        "pipe.png": "a pipe or a device",
        "sparse.png": "256 MiB",
        "up": "link to a folder",
        "here.png": "link to a folder",
        "empty.png": "empty",
        "bomb-real.png": "pixels",
        "latin-\\udce9.png": "UTF-8",
    }.items():
        assert words in said[name], (name, said.get(name))
    read = set(pq.read_table(out / "images.parquet")["path"].to_pylist())
    label = CLASSES["c"]
    for name in corpus.odd(corpus.np.random.default_rng(0)):
        assert f"{label}/{name}" in read, (name, said.get(name))
    for name in corpus.NAMES:
        assert f"{label}/{name}" in read, (name, said.get(name))


@pytest.mark.slow
def test_the_findings_are_those_of_good_data(audited: tuple[Path, Path]) -> None:
    findings = pq.read_table(audited[1] / "findings.parquet").to_pylist()
    best = [row for row in findings if row["verdict"] == "confirmed"]
    assert {row["class"] for row in best} == {CLASSES["a"], CLASSES["b"]}, "the red patch; the grey edge"


@pytest.mark.slow
def test_the_report_runs_nothing(audited: tuple[Path, Path]) -> None:
    html = (audited[1] / "report.html").read_text(encoding="utf-8")
    assert is_plain(html.replace("\t", "")) and "onerror=alert(1)&gt;" in html
    assert re.search(r"http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'", html)
    with browser() as chromium:
        visit = Visit(chromium, (audited[1] / "report.html").as_uri())
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        visit.page.wait_for_timeout(300)
        assert visit.said == [] and visit.outside() == []
        assert visit.page.locator("script").count() == 2
        assert SCRIPT in visit.page.inner_text("body")


@pytest.mark.slow
def test_no_cell_of_an_export_is_a_formula(audited: tuple[Path, Path]) -> None:
    for file in (audited[1] / "findings.csv", audited[1].parent / "f.csv"):
        with open(file, encoding="utf-8", newline="") as stream:
            for row in csv.reader(stream):
                assert not any(re.match(r"\s*[=@＝]|[-+]\D", cell) for cell in row), row


@pytest.mark.slow
def test_a_fault_found_by_the_scheduler_is_told_plainly(tmp_path: Path) -> None:
    images = corpus.write_patched_set(tmp_path / "images", per_class=2)
    label = f"zzz{ESCAPE}"
    (images / label).mkdir()
    (images / label / "x.png").write_bytes(b"no picture")
    config = audit(tmp_path, {"source": "folder", "path": str(images)})
    done = cuescope("discover", config, "--out", tmp_path / "out", PREFECT_HOME=str(tmp_path / "prefect"))
    assert done.returncode == 2 and "Traceback" not in done.stderr and is_plain(done.stderr)
    assert "All its files (1) were quarantined" in done.stderr.splitlines()[-1]
