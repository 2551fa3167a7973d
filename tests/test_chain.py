"""The whole chain in the process, on pictures where a red patch goes with class `a` and a model that leans on it."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import Audit, discover
from pipeline.chain import locked
from pipeline.errors import UserError
from pipeline.evidence import making
from pipeline.evidence.edits import apply_edit
from pipeline.records import SCHEMAS
from pipeline.store import AuditFolder


def audit_of(images: Path, cache: Path, love: float = 6.0, **more) -> Audit:
    return Audit.from_dict(
        {
            "data": {"source": "folder", "path": str(images)},
            "model": {"kind": "python", "factory": "tests.fakes:patch_lover", "options": {"love": love}},
            "embed": {"kind": "python", "factory": "tests.fakes:colors"},
            "ablate": {"fills": ["mean", "inpaint"], "images": 24},
            "cache": str(cache),
            "shard": 50,
            **more,
        }
    )


@pytest.fixture(scope="module")
def first(patched_set: Path, tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("chain")
    return base, discover(audit_of(patched_set, base / "cache"), base / "first")


def tables(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.parquet"))}


def test_an_edit_is_made_once_for_the_model_and_for_its_dose(patched_set: Path, tmp_path: Path, monkeypatch) -> None:
    edited: list[str] = []

    def counted(spec: dict, image: np.ndarray, *more: Any) -> np.ndarray:
        edited.append(json.dumps([image.tobytes().hex(), spec], sort_keys=True))
        return apply_edit(spec, image, *more)

    monkeypatch.setattr(making, "apply_edit", counted)
    result = discover(audit_of(patched_set, tmp_path / "cache"), tmp_path / "A")
    assert result.run["forwards"]["ablate"] > 100 and result.run["forwards"]["dose"] > 50
    assert len(edited) == len(set(edited)) == result.run["forwards"]["ablate"]
    assert gc.get_freeze_count() == 0  # what the chain hid from the garbage collector is in its sight again


def test_the_patch_is_the_top_confirmed_finding_of_its_class(first) -> None:
    _, result = first
    mine = [row for row in result.findings if row["class"] == "a"]
    top = min(mine, key=lambda row: row["rank"])
    assert top["verdict"] == "confirmed"
    assert top["insertion_effect"] > 0.5 and top["insertion_effect_lower"] > 0.2  # a race stops when it is sure
    red = 0
    for image_id, boxes in zip(top["evidence_ids"], top["evidence_boxes"], strict=True):
        path = next(r["path"] for r in result.table("images").to_pylist() if r["image_id"] == image_id)
        with Image.open(Path(result.run["audit"]["data"]["path"]) / path) as picture:
            x = (boxes[0][0] + boxes[0][2]) / 2 * picture.width
            y = (boxes[0][1] + boxes[0][3]) / 2 * picture.height
            pixel = picture.getpixel((int(x), int(y)))
        red += pixel[0] > 200 and pixel[1] < 70
    assert red >= 0.7 * len(top["evidence_ids"])


def test_other_classes_have_no_confirmed_region(first) -> None:
    _, result = first
    assert not [r["cue"] for r in result.findings if r["class"] == "c" and r["verdict"] == "confirmed"]


def test_every_table_is_written_and_fits_its_schema(first) -> None:
    _, result = first
    folder = AuditFolder.open(result.path)
    assert set(folder.tables()) == set(SCHEMAS)
    assert result.report.is_file()
    assert (result.path / "findings.csv").is_file()
    assert result.run["finished"]


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(first, patched_set: Path) -> None:
    base, result = first
    assert sum(result.run["forwards"].values()) > 0
    again = discover(audit_of(patched_set, base / "cache"), base / "second")
    assert sum(again.run["forwards"].values()) == 0
    assert tables(again.path) == tables(result.path)


def test_a_fresh_cache_gives_the_same_bytes(first, patched_set: Path, tmp_path: Path) -> None:
    _, result = first
    again = discover(audit_of(patched_set, tmp_path / "cache"), tmp_path / "audit")
    assert tables(again.path) == tables(result.path)


def test_a_cache_deleted_between_two_audits_of_a_process_is_filled_again(patched_set: Path, tmp_path: Path) -> None:
    audit = audit_of(patched_set, tmp_path / "cache", ablate={"fills": ["mean"], "images": 8, "budget": 200})
    before = discover(audit, tmp_path / "A")
    shutil.rmtree(tmp_path / "cache")
    assert tables(discover(audit, tmp_path / "B").path) == tables(before.path)


def test_a_model_without_the_leaning_has_no_confirmed_finding(patched_set: Path, tmp_path: Path) -> None:
    """The patch still goes with the class in the data; this model doesn't care."""
    result = discover(audit_of(patched_set, tmp_path / "cache", love=0.0), tmp_path / "audit")
    assert not [row["cue"] for row in result.findings if row["verdict"] == "confirmed" and row["class"] == "a"]


def test_new_images_cost_only_themselves(first, patched_set: Path, tmp_path: Path) -> None:
    import shutil

    base, _ = first
    grown = tmp_path / "images"
    shutil.copytree(patched_set, grown)
    Image.open(patched_set / "c" / "000.png").rotate(180).save(grown / "c" / "new.png")
    again = discover(audit_of(grown, base / "cache"), tmp_path / "audit")
    assert again.run["forwards"]["predict"] == 1
    assert again.run["forwards"]["embed"] == 1


def test_bad_files_are_quarantined_with_reasons(patched_set: Path, tmp_path: Path) -> None:
    import shutil

    damaged = tmp_path / "images"
    shutil.copytree(patched_set, damaged)
    (damaged / "a" / "broken.png").write_bytes(b"\x89PNG nothing")
    (damaged / "a" / "empty.jpg").write_bytes(b"")
    shutil.copy(damaged / "a" / "000.png", damaged / "a" / "copy.png")
    shutil.copy(damaged / "b" / "001.png", damaged / "c" / "stolen.png")
    result = discover(audit_of(damaged, tmp_path / "cache", ablate={"enabled": False}), tmp_path / "audit")
    reasons = {row["path"]: row["reason"] for row in result.table("quarantine").to_pylist()}
    assert "empty" in reasons["a/empty.jpg"]
    assert "not an image" in reasons["a/broken.png"]
    assert "same picture as a/000.png" in reasons["a/copy.png"]
    assert {"b/001.png", "c/stolen.png"} <= set(reasons)
    assert result.run["data"]["quarantined"] == len(reasons) == 5


def test_a_class_without_images_is_one_plain_line(patched_set: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class 'aa' has no images"):
        discover(audit_of(patched_set, tmp_path / "cache", classes=["aa", "b"]), tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_a_folder_with_other_files_is_left_alone(patched_set: Path, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="no audit"):
        discover(audit_of(patched_set, tmp_path / "cache"), tmp_path / "audit")
    assert (tmp_path / "audit" / "precious.txt").read_text() == "mine"


def test_estimation_numbers_use_no_selection_image(first) -> None:
    _, result = first
    half = dict(zip(*(result.table("images")[c].to_pylist() for c in ("image_id", "split")), strict=True))
    edits = result.table("edits").to_pylist()
    assert {half[row["image_id"]] for row in edits} == {"estimation"}
    donors = {json.loads(row["spec"]).get("donor") for row in edits} - {None}
    assert {half[donor] for donor in donors} == {"selection"}


def test_a_second_run_into_one_folder_touches_nothing_of_the_first(first, patched_set: Path) -> None:
    base, result = first
    before = tables(result.path)
    with locked(result.folder), pytest.raises(UserError, match="Another run"):
        discover(audit_of(patched_set, base / "cache"), result.path)
    assert tables(result.path) == before and result.run["finished"]


def test_files_are_plain_parquet(first) -> None:
    _, result = first
    assert pq.read_table(result.path / "findings.parquet").num_rows == len(result.findings)
