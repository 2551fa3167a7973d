"""Scores that lie in a file are the scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Audit
from pipeline.evidence import columns
from pipeline.evidence.presence import Cues, Presence, best_scores, phi
from pipeline.metrics import association
from pipeline.records import table
from pipeline.stages.measure import nonzero, to_look_up, top_k_gaps
from pipeline.stages.rank import EVIDENCE_IMAGES, Seen
from pipeline.store import AuditFolder

N, CUES = 700, 9
AUDIT = Audit.from_dict({"data": {"path": "x"}, "model": {"kind": "python", "factory": "tests.fakes:patch_lover"}})


def cues(folder: Path) -> Cues:
    rng = np.random.default_rng(0)
    scores = columns.scratch(N, CUES, folder)
    scores[:] = rng.normal(0, 1, (N, CUES)).round(1)  # with equals
    scores[rng.random((N, CUES)) < 0.1] = -np.inf
    present = np.isfinite(scores) & (scores > 0.3)
    return Cues([{"cue_id": f"c{n}"} for n in range(CUES)], [f"i{n:04d}" for n in range(N)], scores, present)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an array of this size were large."""
    monkeypatch.setattr(columns, "IN_MEMORY", 2 * 8 * N)
    monkeypatch.setattr(association, "BLOCK", 2 * 8 * N)


def numbers(cues: Cues) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    labels, predicted, half = rng.integers(0, 3, N), rng.integers(0, 3, N), rng.random(N) < 0.5
    gaps = association.observed_gaps(cues.present[half], labels[half], predicted[half], 3, rng.random(half.sum()))
    return {
        **top_k_gaps(cues, half, labels, predicted, 3, AUDIT),
        "nonzero": nonzero(cues.scores, half),
        "pa": gaps.presence_accuracy.estimate,
        "hr": gaps.hallucination.lower,
        "presence": pa.concat_tables([*cues.presence_table()])["score"].to_numpy(),
    }


def test_every_number_is_the_same_from_a_file(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    filed = cues(tmp_path)
    assert isinstance(filed.scores, np.memmap) and not list(tmp_path.iterdir())  # the file has no name left
    from_file = numbers(filed)
    monkeypatch.undo()
    held = cues(tmp_path)
    assert not isinstance(held.scores, np.memmap)
    for name, values in numbers(held).items():
        np.testing.assert_allclose(from_file[name], values, atol=1e-12, err_msg=name)


def test_the_table_of_presence_comes_back_from_its_parts(tmp_path: Path) -> None:
    mine = cues(tmp_path)
    folder = AuditFolder(tmp_path / "audit")
    folder.write("presence", mine.presence_table())
    rows = folder.read("presence").to_pylist()
    assert [(row["image_id"], row["cue_id"]) for row in rows[CUES : CUES + 2]] == [("i0001", "c0"), ("i0001", "c1")]
    back = Presence.of(folder.rows("presence"), [f"c{n}" for n in range(CUES)], scored={"c3", "c7"})
    np.testing.assert_array_equal(back.present, mine.present)
    assert set(back.scores) == {"c3", "c7"}
    np.testing.assert_array_equal(back.scores["c7"], mine.scores[:, 7])


def test_presence_of_some_cues_in_some_images_is_a_part_of_the_whole(tmp_path: Path) -> None:
    mine = cues(tmp_path)
    folder = AuditFolder(tmp_path / "audit")
    folder.write("presence", mine.presence_table())
    some = np.sort(np.random.default_rng(0).permutation(N)[: N // 3])
    part = Presence.of(folder.rows("presence"), [f"c{n}" for n in range(CUES)], {"c7", "c2"}, {"c7"}, some)
    assert part.at == {"c2": 0, "c7": 1} and set(part.scores) == {"c7"}
    np.testing.assert_array_equal(part.present, mine.present[np.ix_(some, [2, 7])])
    np.testing.assert_array_equal(part.scores["c7"], mine.scores[some, 7])


@pytest.mark.parametrize("no_split", [True, False])
def test_evidence_images_are_those_of_the_class_that_show_the_cue_most(tmp_path: Path, no_split: bool) -> None:
    mine = cues(tmp_path)
    folder = AuditFolder(tmp_path / "audit")
    folder.write("presence", mine.presence_table())
    order = np.random.default_rng(3).permutation(N)  # ids in no order
    ids = [f"i{n:04d}" for n in order]
    labels = [("a", "b")[n % 2] for n in range(N)]
    split = ["selection" if n % 3 else "estimation" for n in range(N)]
    images = pa.table({"image_id": ids, "label": labels, "split": split})
    seen = Seen(images, folder.rows("presence"), [f"c{n}" for n in range(CUES)], no_split)
    for label in "ab":
        for number in range(CUES):
            showing = [
                n
                for n in range(N)
                if labels[n] == label and mine.present[n, number] and (no_split or split[n] == "estimation")
            ]
            showing.sort(key=lambda n: (-mine.scores[n, number], ids[n]))
            assert seen.evidence(label, f"c{number}") == [ids[n] for n in showing[:EVIDENCE_IMAGES]]
    assert seen.showing("c2") == {ids[n] for n in np.flatnonzero(mine.present[:, 2])}


def test_phi_of_many_images_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    present = np.random.default_rng(2).random((500, 5)) < 0.3
    at_once = phi(present)
    monkeypatch.setattr("pipeline.evidence.presence.PHI_ROWS", 64)
    np.testing.assert_array_equal(phi(present), at_once)


def test_the_best_score_of_each_phrase_is_found_over_parts(tmp_path: Path) -> None:
    rows = [("i", "cup", 0.4), ("i", "cup", 0.7), ("i", "boat", 0.9), ("j", "cup", 0.2)]
    parts = [
        table("detections", [{"image_id": i, "phrase": p, "score": s, "box": [0, 0, 1, 1]} for i, p, s in some])
        for some in (rows[:3], rows[3:])
    ]
    best = best_scores(parts, {"i": 0, "j": 1, "k": 2}, ["cup", "key"], tmp_path)
    np.testing.assert_allclose(best, [[0.7, 0], [0.2, 0], [0, 0]], atol=1e-6)


def test_boxes_are_looked_up_in_a_stated_sample_of_a_large_class(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    ids, labels, half = [f"i{n}" for n in range(90)], np.arange(90) % 3 // 2, np.arange(90) < 80

    def looked_up() -> np.ndarray:
        return to_look_up(ids, half, labels, AUDIT, 2, lambda what, why: said.append(f"{what}: {why}"), "selection")

    assert looked_up().tolist() == list(range(80)) and not said
    monkeypatch.setattr("pipeline.stages.measure.OVERLAP_IMAGES", 30)
    some = looked_up()
    assert np.bincount(labels[some]).tolist() == [30, 26] and (some == looked_up()).all()
    assert said[0].startswith("the boxes of 24 images of the selection half") and "30 images of each class" in said[0]
