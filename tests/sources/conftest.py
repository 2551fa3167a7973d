"""One small set of pictures for every source: what is audited must not depend on how it was handed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import Audit, discover
from tests.conftest import write_patched_set


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten pictures in class folders."""
    return write_patched_set(tmp_path_factory.mktemp("sources") / "images", per_class=10)


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory):
    """Audits a data section with the fakes, without edits; returns the Result."""
    base = tmp_path_factory.mktemp("audits")

    def run(data: dict, **more):
        audit = {
            "data": data,
            "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
            "ablate": {"enabled": False},
            "cache": str(base / "cache"),
            "shard": 16,
            **more,
        }
        return discover(Audit.from_dict(audit), base / str(len(list(base.iterdir()))))

    return run


@pytest.fixture(scope="session")
def from_folder(pictures: Path, audited):
    """The audit of the class folders, which every other source is held against."""
    return audited({"source": "folder", "path": str(pictures)})


def rows(result, table: str, *without: str) -> list[dict]:
    """A table's rows in the order of the images' ids, without some columns."""
    found = result.table(table).to_pylist()
    kept = [{name: value for name, value in row.items() if name not in without} for row in found]
    return sorted(kept, key=lambda row: row["image_id"])
