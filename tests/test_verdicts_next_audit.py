"""A verdict changes the next audit: core is not raised again, spurious is followed, presence is as people see it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import discover
from pipeline.api import Result
from pipeline.errors import UserError
from pipeline.evidence.answered import LEAST_OF_EACH
from pipeline.evidence.presence import phi
from pipeline.import_verdicts import Imported, import_verdicts
from pipeline.stages.measure import DUPLICATE
from pipeline.store import AuditFolder
from tests.test_chain import audit_of, tables

pytestmark = pytest.mark.slow

FOLLOWED, SEEN = "property:blue tint", "property:vivid colors"
"""A measured property that nothing speaks for (of class c), and one that many pictures have."""


def quick(images: Path, base: Path) -> Any:
    return audit_of(images, base / "cache", ablate={"fills": ["mean"], "images": 16})


def of(result: Result, label: str) -> list[dict[str, Any]]:
    return sorted((row for row in result.findings if row["class"] == label), key=lambda row: row["rank"])


def ranked(result: Result, cue_id: str) -> tuple[list[str], np.ndarray]:
    """The ids of the selection half by a cue's score, highest first; and presence (images, cues)."""
    half = {row["image_id"] for row in result.table("images").to_pylist() if row["split"] == "selection"}
    rows = [r for r in result.table("presence").to_pylist() if r["cue_id"] == cue_id and r["image_id"] in half]
    rows.sort(key=lambda row: -row["score"])
    return [row["image_id"] for row in rows], np.array([row["present"] for row in rows])


def answers(path: Path, rows: list[dict[str, Any]]) -> Path:
    columns = ("finding_id", "class", "cue", "image_id", "present", "verdict", "annotator", "given")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def story(patched_set: Path, tmp_path_factory: pytest.TempPathFactory):
    """An audit, what people say of it, and the next audit of the same pictures."""
    base = tmp_path_factory.mktemp("verdicts")
    first = discover(quick(patched_set, base), base / "first")
    before = of(first, "a")
    top = before[0]
    shown, _ = ranked(first, SEEN)
    rows = [
        {"finding_id": top["finding_id"], "verdict": "core", "annotator": "anna"},
        {"finding_id": top["finding_id"], "verdict": "core", "annotator": "ben"},
        {"finding_id": top["finding_id"], "verdict": "spurious", "annotator": "cem"},
        {"class": "c", "cue": FOLLOWED.partition(":")[2], "verdict": "spurious", "annotator": "anna"},
        *({"class": "a", "cue": "vivid colors", "image_id": image_id, "present": "yes" if n < LEAST_OF_EACH else "no",
           "annotator": "anna"} for n, image_id in enumerate(shown[: 2 * LEAST_OF_EACH])),
        {"finding_id": "nonsense", "verdict": "core"},
    ]  # fmt: skip
    imported = import_verdicts(AuditFolder.open(first.path), answers(base / "answers.csv", rows))
    again = discover(quick(patched_set, base), base / "second")
    return base, first, before, imported, again


def test_the_import_says_what_people_say_and_where_they_disagree(story) -> None:
    base, _, before, imported, _ = story
    assert isinstance(imported, Imported) and imported.answers == 14
    assert imported.unusable == {"a finding that this audit doesn't hold": 1}
    assert imported.file.parent == base / "verdicts" and imported.file.is_file()
    text = "\n".join(imported.lines())
    assert f"a, {before[0]['cue_id']}: core (2 core, 1 spurious)" in text
    assert "cem says spurious" in text and "Krippendorff" in text


def test_the_findings_of_the_audit_itself_heed_it_at_once(story) -> None:
    _, first, before, _, _ = story
    assert before[0]["verdict"] == "confirmed"
    after = of(first, "a")[-1]
    assert (after["cue_id"], after["verdict"], after["labelers"]) == (before[0]["cue_id"], "core", "core")
    assert "2 core, 1 spurious" in after["why"]
    page = first.report.read_text("utf-8")
    assert "Labelers call it a part of the a itself" in page


def test_a_confirmed_core_cue_is_not_raised_again_by_any_name(story) -> None:
    _, _, before, _, again = story
    core = of(again, "a")[-1]
    assert (core["cue_id"], core["verdict"]) == (before[0]["cue_id"], "core")
    cues = again.table("cues")["cue_id"].to_pylist()
    present = np.array(again.table("presence")["present"].to_pylist(), bool).reshape(-1, len(cues))
    half = np.array(again.table("images")["split"].to_pylist()) == "selection"
    alike = phi(present[half])[cues.index(core["cue_id"])]
    same = {cue_id for cue_id, value in zip(cues, alike, strict=True) if value >= DUPLICATE}
    tried = {row["cue_id"] for row in again.table("experiments").to_pylist() if row["label"] == "a"}
    assert core["cue_id"] in same and tried and not tried & same
    assert not [r["cue"] for r in of(again, "a") if r["verdict"] == "confirmed" and r["cue_id"] in same]


def test_a_confirmed_spurious_cue_is_followed_and_shown_first(story) -> None:
    _, _, _, _, again = story
    top = of(again, "c")[0]
    assert (top["cue_id"], top["labelers"]) == (FOLLOWED, "spurious") and "1 spurious" in top["why"]
    tables = [again.table(name).to_pylist() for name in ("experiments", "untested")]
    told = {row["direction"] for rows in tables for row in rows if (row["label"], row["cue_id"]) == ("c", FOLLOWED)}
    assert told == {"removal", "insertion"}, "an experiment, or why it could not be made"
    assert any((row["label"], row["cue_id"]) == ("c", FOLLOWED) for row in tables[0])


def test_it_was_not_followed_before(story) -> None:
    _, first, _, _, _ = story
    made = {(row["label"], row["cue_id"]) for row in first.table("experiments").to_pylist()}
    assert ("c", FOLLOWED) not in made


def test_presence_is_as_people_see_it_and_its_threshold_by_their_answers(story) -> None:
    _, first, _, _, again = story
    shown, was = ranked(first, SEEN)
    assert was[: 2 * LEAST_OF_EACH].all()
    order, now = ranked(again, SEEN)
    assert order == shown and now[:LEAST_OF_EACH].all() and not now[LEAST_OF_EACH:].any()
    cut = {row["cue_id"]: row["threshold"] for row in again.table("cues").to_pylist()}[SEEN]
    assert cut > {row["cue_id"]: row["threshold"] for row in first.table("cues").to_pylist()}[SEEN]


def test_a_rerun_keeps_what_was_imported_into_the_folder_even_without_the_kept_file(story, patched_set: Path) -> None:
    base, _, _, imported, again = story
    moved = imported.file.with_suffix(".away")
    imported.file.rename(moved)
    try:
        rerun = discover(quick(patched_set, base), base / "first")
        assert tables(rerun.path) == tables(again.path), "and then it is the audit that heeds them"
    finally:
        moved.rename(imported.file)


def test_nothing_of_use_is_told_and_changes_nothing(story, tmp_path: Path) -> None:
    _, first, _, imported, _ = story
    kept = imported.file.read_bytes()
    for name, text, words in (
        ("a.csv", "finding_id,verdict\nf,\n", "nothing was answered"),
        ("b.csv", "finding_id,verdict\nf,core\n", "doesn't hold"),
        ("c.txt", "", "expected Label Studio's"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=words):
            import_verdicts(AuditFolder.open(first.path), tmp_path / name)
    assert imported.file.read_bytes() == kept
