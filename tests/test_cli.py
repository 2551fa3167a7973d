"""The command line as a user meets it: each test starts the real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT


def cuescope(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script's module; Prefect keeps its state where the test says."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", **environment},
    )


def configuration(folder: Path, images: Path, **more) -> Path:
    """An audit of the patched pictures with the fake models."""
    file = folder / "audit.yaml"
    audit = {
        "data": {"source": "folder", "path": str(images)},
        "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
        "embed": {"kind": "python", "factory": "tests.fakes:colors"},
        "measure": {"max_per_class": 3},
        "ablate": {"fills": ["mean"], "images": 16},
        "cache": str(folder / "cache"),
        "shard": 30,
        **more,
    }
    file.write_text(yaml.safe_dump(audit))
    return file


def test_help_teaches() -> None:
    done = cuescope("--help")
    assert done.returncode == 0
    for command in (
        "demo",
        "discover",
        "audit",
        "schedule",
        "history",
        "diff",
        "init",
        "doctor",
        "show",
        "export",
        "import-verdicts",
        "review",
        "planted",
    ):
        assert command in done.stdout
    for command in ("discover", "audit", "schedule", "diff", "init", "export", "import-verdicts", "review", "show"):
        assert cuescope(command, "--help").returncode == 0


def test_discover_show_and_export(patched_set: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, patched_set)
    done = cuescope("discover", config, "--out", tmp_path / "A", "--no-prefect")
    assert done.returncode == 0, done.stderr
    assert "confirmed" in done.stdout and "report.html" in done.stdout
    assert "ablate: done" in done.stderr  # progress, a line a stage where there is no screen
    listed = cuescope("show", tmp_path / "A", "--json")
    findings = json.loads(listed.stdout)
    assert findings[0]["class"] == "a"
    kinds = {"csv": "f.csv", "label-studio": "tasks.json", "coco": "i.json", "imagefolder": "set", "groups": "g.csv"}
    for kind, name in kinds.items():
        out = cuescope("export", tmp_path / "A", "--to", kind, "--out", tmp_path / name)
        assert out.returncode == 0, out.stderr
        assert all(Path(line).is_file() for line in out.stdout.split())
    verdicts_come_back(tmp_path, findings[0])


def verdicts_come_back(folder: Path, finding: dict) -> None:
    """A spreadsheet of tasks, filled in for one finding, changes it at once."""
    tasks = folder / "tasks.jsonl"
    out = cuescope("export", folder / "A", "--to", "jsonl", "--out", tasks, "--set", "rows=tasks")
    assert out.returncode == 0, out.stderr
    rows = [json.loads(line) for line in tasks.read_text("utf-8").split("\n") if line]
    mine = [row for row in rows if row["finding_id"] == finding["finding_id"]][:3]
    filled = "\n".join(json.dumps(row | {"verdict": "core", "annotator": "anna"}) for row in mine)
    (folder / "filled.jsonl").write_text(filled, "utf-8")
    done = cuescope("import-verdicts", folder / "A", folder / "filled.jsonl")
    assert done.returncode == 0, done.stderr
    assert "3 answers kept" in done.stdout and "core (1 core)" in done.stdout
    listed = json.loads(cuescope("show", folder / "A", "--json").stdout)
    (now,) = [row for row in listed if row["finding_id"] == finding["finding_id"]]
    assert (now["verdict"], now["labelers"]) == ("core", "core")
    wrong = cuescope("import-verdicts", folder / "A", folder / "nowhere.csv")
    assert wrong.returncode == 2 and "no file" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_run_is_changed_from_the_command_line(patched_set: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, patched_set)
    done = cuescope("discover", config, "--out", tmp_path / "A", "--no-prefect", "--set", "ablate.enabled=false")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "A" / "run.json").read_text())["forwards"]["ablate"] == 0


def test_init_writes_a_configuration_that_reads(patched_set: Path, tmp_path: Path) -> None:
    done = cuescope("init", patched_set, "--out", tmp_path / "new.yaml")
    assert done.returncode == 0, done.stderr
    raw = yaml.safe_load((tmp_path / "new.yaml").read_text())
    assert (tmp_path / raw["data"]["path"]).resolve() == patched_set.resolve()
    from pipeline.config import Audit

    Audit.from_yaml(tmp_path / "new.yaml")
    again = cuescope("init", patched_set, "--out", tmp_path / "new.yaml")
    assert again.returncode == 2 and "--force" in again.stderr


def test_doctor_finds_nothing_wrong_here(patched_set: Path, tmp_path: Path) -> None:
    done = cuescope("doctor", configuration(tmp_path, patched_set))
    assert done.returncode == 0, done.stdout
    assert "Nothing is wrong" in done.stdout


def test_doctor_names_what_is_missing(patched_set: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, patched_set, model={"kind": "open_clip", "name": "local-dir:nowhere"})
    done = cuescope("doctor", config)
    assert done.returncode == 2
    assert "nowhere" in done.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"source": "folder", "path": "nowhere"}}, ["no folder", "nowhere"]),
        ({"data": {"source": "folder", "path": "empty"}}, ["no images", "empty"]),
        ({"classes": ["a", "zebra"]}, ["zebra", "no images"]),
        ({"classes": ["a"]}, ["only one class"]),
        ({"modle": {"kind": "python"}}, ["modle", "Did you mean 'model'"]),
        ({"model": {"kind": "open_clp", "name": "x"}}, ["open_clp", "Did you mean", "'open_clip'"]),
        ({"model": {"kind": "open_clip", "name": "local-dir:nowhere"}}, ["nowhere"]),
        ({"model": {"kind": "open_clip", "name": "ViT-B-23"}}, ["ViT-B-23", "ViT-B-32"]),
        ({"model": {"kind": "python", "factory": "tests.fakes:patch_lovr"}}, ["patch_lovr", "patch_lover"]),
        ({"detect": {"kind": "yolo_world", "name": "no.pt", "text_model": "ViT-B-32"}}, ["no.pt"]),
        ({"caption": {"kind": "transformers", "name": "no/such/folder"}}, ["no/such/folder"]),
    ],
    ids=lambda value: value[-1][:24] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_plain_line(patched_set: Path, tmp_path: Path, change: dict, words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    config = configuration(tmp_path, patched_set, **change)
    done = cuescope("discover", config, "--out", tmp_path / "A", "--no-prefect")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("cuescope: ")]
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]
    assert not (tmp_path / "A").exists()


def test_a_missing_audit_is_one_plain_line(tmp_path: Path) -> None:
    done = cuescope("show", tmp_path / "none")
    assert done.returncode == 2 and "no audit folder" in done.stderr and "Traceback" not in done.stderr


def test_help_is_quick_because_nothing_heavy_loads() -> None:
    heavy = "('torch', 'cv2', 'prefect', 'pyarrow', 'scipy', 'fsspec', 'markdown_it')"
    code = f"""import sys, pipeline.cli
sys.argv = ["cuescope", "--help"]
try:
    pipeline.cli.main()
finally:
    print([m for m in {heavy} if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "discover" in done.stdout and done.stdout.strip().splitlines()[-1] == "[]"


def test_a_reader_that_has_seen_enough_is_no_fault(patched_set: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, patched_set)
    started = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "discover", str(config), "--dry-run", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert started.stdout is not None and started.stderr is not None
    started.stdout.close()  # as `| head` does
    said = started.stderr.read()
    assert started.wait() == 141 and "Traceback" not in said and "BrokenPipe" not in said, said
