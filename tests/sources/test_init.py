from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.config import Audit
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.init import write_configuration
from pipeline.store import AuditFolder
from tests.sources.test_coco import instances, written
from tests.sources.test_manifest import table_of, write
from tests.sources.test_webdataset import write_shards


@pytest.mark.parametrize("kind", ["folder", "manifest", "coco", "webdataset"])
def test_init_recognises_what_it_is_given(pictures: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    shutil.copytree(pictures, root)
    at = root
    if kind == "manifest":
        at = write(root / "list.csv", table_of(pictures))
    elif kind == "coco":
        at = Path(written(root / "instances.json", instances(pictures)))
    elif kind == "webdataset":
        at = tmp_path / "shards"
        write_shards(pictures, at, "json")
    out = tmp_path / "audit.yaml"
    write_configuration(at, out, force=False)
    audit = Audit.from_yaml(out)
    assert audit.data.kind == kind
    items = list(Context(audit, AuditFolder(tmp_path / "audit")).source)
    assert len(items) == 30 and {item.labels for item in items} == {("a",), ("b",), ("c",)}


def test_init_of_a_data_set_without_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a label"):
        write_configuration(write(tmp_path / "x.csv", [{"image": "a.png", "label": ""}]), tmp_path / "a.yaml", False)
