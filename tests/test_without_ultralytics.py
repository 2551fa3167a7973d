"""With ultralytics uninstalled everything works but the YOLO back ends, which say what they need and its licence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_patched_set

ROOT = Path(__file__).parents[1]

UNINSTALLED = """
import sys

class Without:
    # an import finder that finds everything but ultralytics, as where it isn't installed

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ultralytics", "ultralytics_thop"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
try:
    import ultralytics
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("ultralytics is still there")
"""

AUDIT = """
from pathlib import Path
from pipeline import Audit, discover
from pipeline.errors import UserError
from pipeline.models import registry

images, model, out = sys.argv[1:]
encoder = {"kind": "open_clip", "name": f"local-dir:{model}"}
raw = {
    "data": {"kind": "folder", "path": images},
    "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
    "propose": {"kind": "list", "attributes": {"a": ["red patch"]}},
    "embed": encoder,
    "detect": {"kind": "clip_regions", "sides": [0.5]},
    "cluster": {"enabled": False},
    "ablate": {"enabled": False},
}
result = discover(Audit.from_dict(raw), out)
detections = result.folder.read("detections")
assert len(detections) and (result.path / "report.html").is_file()
assert set(result.folder.run()["fingerprints"]) == {"model", "proposer", "detector", "encoder"}

for kind in registry.names("detect"):
    makes = registry.factory("detect", kind)  # importing a back end needs no package of its own
    if kind.startswith("yolo"):
        try:
            makes("cpu", name="x.pt", text_model="y")
        except UserError as error:
            for word in ("ultralytics", "AGPL-3.0", "pip install", "owlv2"):
                assert word in str(error), error
        else:
            raise SystemExit(f"{kind} does without ultralytics")
for seam in registry.BUILT_IN:
    for kind in registry.BUILT_IN[seam]:
        registry.factory(seam, kind)
assert not any(name.startswith("ultralytics") for name in sys.modules)
print("done")
"""


def test_an_audit_runs_without_ultralytics(tmp_path: Path) -> None:
    images = write_patched_set(tmp_path / "images", per_class=12)
    model = ROOT / "data" / "demo" / "model"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", UNINSTALLED + AUDIT, str(images), str(model), str(tmp_path / "audit")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.strip().endswith("done"), done.stderr[-3000:]


def test_ultralytics_is_imported_by_the_yolo_back_ends_alone() -> None:
    for path in ROOT.glob("pipeline/**/*.py"):
        if "bench" in path.parts or "planted" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        if any(line.strip().startswith(("import ultralytics", "from ultralytics")) for line in text.splitlines()):
            assert path.name in ("ultralytics_loading.py", "yolo_world.py", "yoloe.py"), path


def test_doctor_finds_nothing_wrong_in_leaving_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    from pipeline.doctor import diagnose

    plain = importlib.metadata.version

    def version(package: str) -> str:
        if package == "ultralytics":
            raise importlib.metadata.PackageNotFoundError(package)
        return plain(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert diagnose(None)
