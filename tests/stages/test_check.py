"""The stage in the chain: what ingest put aside, what it grouped, and what the pixels say, as the report shows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import discover
from tests.conftest import write_patched_set
from tests.test_chain import audit_of


def test_planted_faults_of_a_folder_are_found(tmp_path: Path) -> None:
    images = write_patched_set(tmp_path / "images", 40)
    for file in sorted((images / "c").iterdir())[5:]:  # ten darkened pictures were cleanlab's own example: more here
        with Image.open(file) as picture:
            dark = (np.asarray(picture) * 0.4).astype(np.uint8)
        Image.fromarray(dark).save(file)
    shutil.copy(images / "a" / "000.png", images / "a" / "copy.png")
    shutil.copy(images / "b" / "001.png", images / "c" / "stolen.png")
    with Image.open(images / "a" / "003.png") as picture:
        picture.save(images / "b" / "again.png", optimize=True, compress_level=1)
        picture.resize((96, 96), Image.Resampling.BICUBIC).save(images / "b" / "larger.png")
    result = discover(audit_of(images, tmp_path / "cache", ablate={"enabled": False}), tmp_path / "audit")
    rows = result.table("checks").to_pylist()
    found = {(row["check"], row["what"], row["label"]): row for row in rows if row["found"]}
    assert {
        ("properties", "brightness", "c"),
        ("copies", "exact, under other labels", ""),
        ("copies", "near, under other labels", ""),
    } <= set(found)
    assert "darker" in found["properties", "brightness", "c"]["verdict"]
    assert "b/001.png" in found["copies", "exact, under other labels", ""]["verdict"]
    paths = dict(zip(*(result.table("images")[name].to_pylist() for name in ("image_id", "path")), strict=True))
    shown = {paths[name] for name in found["copies", "near, under other labels", ""]["examples"]}
    assert "a/003.png" in shown and any(path.startswith("b/") for path in shown)
    assert next(row for row in rows if row["what"] == "exact")["statistic"] == 1
    assert {name for name, what, _ in found if name == "order"} == set()
    page = result.report.read_text()
    assert "Properties that give a class away: brightness" in page and "are darker than the others" in page
    assert "check" not in result.run["forwards"]  # no model was asked
