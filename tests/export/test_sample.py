"""Which images are asked about, and how many: by the formulas, both kinds, the same each time, no more than needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bench.report.synthetic import finding
from pipeline.evidence.answered import LEAST_OF_EACH
from pipeline.export.data import ExportData
from pipeline.export.sample import WIDENED, asked, change_of_gap, plan, wrong


def audit(n: int = 400, spread: float = 0.12, seed: int = 0, half_width: float = 0.05, **more: Any) -> ExportData:
    """Half of the images are boats; the buoy's score has two humps that overlap; boats without it are often missed."""
    rng = np.random.default_rng(seed)
    shows = rng.random(n) < 0.4
    scores = np.where(shows, 0.7, 0.3) + rng.normal(0, spread, n)
    boats = rng.random(n) < 0.5
    hits = rng.random(n) < np.where(boats, np.where(shows, 0.95, 0.5), np.where(shows, 0.3, 0.05))
    ids = [f"i{i:03d}" for i in range(n)]
    gap = {"pa_gap": 0.4, "pa_gap_lower": 0.4 - half_width, "pa_gap_upper": 0.4 + half_width,
           "hr_gap": 0.2, "hr_gap_lower": 0.2 - half_width, "hr_gap_upper": 0.2 + half_width}  # fmt: skip
    split = np.where(rng.random(n) < 0.5, "selection", "estimation")
    return ExportData(
        run={"digest": "abc", "seed": 0, "split": True},
        findings=[finding(verdict="inconclusive", cue_id="thing:buoy", evidence_ids=[], **gap)],
        images=[{"image_id": i, "path": f"{i}.png", "label": "boat" if b else "train", "split": str(s),
                 "width": 10, "height": 10} for i, b, s in zip(ids, boats, split, strict=True)],
        presence=[{"image_id": i, "cue_id": "thing:buoy", "score": float(s), "present": bool(s >= 0.5)}
                  for i, s in zip(ids, scores, strict=True)],
        said={i: frozenset({"boat"} if hit else {"train"}) for i, hit in zip(ids, hits, strict=True)},
        cuts={"thing:buoy": 0.5},
        **more,
    )  # fmt: skip


def half(data: ExportData, name: str) -> set[str]:
    return {row["image_id"] for row in data.images if row["split"] == name}


def test_the_threshold_is_settled_on_the_selection_half_by_the_nearest_of_both_kinds() -> None:
    data = audit()
    made = plan(data, data.findings[0])
    first = made.images[: made.for_threshold]
    assert len(first) == 2 * LEAST_OF_EACH and set(first) <= half(data, "selection")
    for present in (True, False):
        mine = {i for i in half(data, "selection") if data.showing["thing:buoy"][i] == present}
        nearest = sorted(mine, key=lambda i: abs(data.score(i, "thing:buoy") - 0.5))[:LEAST_OF_EACH]
        assert set(first) & mine == set(nearest)


def test_the_gaps_are_settled_on_the_estimation_half_and_no_image_is_asked_too_much() -> None:
    data = audit()
    made = plan(data, data.findings[0])
    rest = made.images[made.for_threshold :]
    assert rest and set(rest) <= half(data, "estimation") and len(set(made.images)) == len(made.images)
    assert made.widened > WIDENED >= made.after
    answers = {i: data.showing["thing:buoy"][i] for i in made.images[:-1]}
    left = plan(audit(answered={"thing:buoy": answers}), data.findings[0])
    assert left.widened > WIDENED, "one fewer would not have been enough"
    assert 1 <= len(left.images) <= 2 and not set(left.images) & set(answers), "what is answered isn't asked again"


def test_both_kinds_are_asked_about_in_turn() -> None:
    data = audit()
    made = plan(data, data.findings[0])
    shown = [data.showing["thing:buoy"][i] for i in made.images[made.for_threshold :]]
    assert abs(sum(shown[:20]) - 10) <= 1


def test_images_where_the_evidence_disagrees_come_before_equally_uncertain_ones() -> None:
    data = audit()
    boats = {row["image_id"] for row in data.images if row["label"] == "boat"}
    order = [i for i in plan(data, data.findings[0]).images if i in boats & half(data, "estimation")]
    contrary = [("boat" in data.said[i]) != data.showing["thing:buoy"][i] for i in order]
    assert np.mean(contrary[:6]) > np.mean(contrary)


def test_a_wide_interval_needs_few_labels_and_certain_scores_none() -> None:
    narrow, wide = (audit(half_width=width) for width in (0.05, 0.3))
    assert len(plan(narrow, narrow.findings[0]).images) > len(plan(wide, wide.findings[0]).images)
    sure = audit(spread=0.01)
    made = plan(sure, sure.findings[0])
    assert made.widened < 1e-3 and len(made.images) == made.for_threshold


def test_the_same_audit_asks_the_same() -> None:
    assert plan(audit(), audit().findings[0]) == plan(audit(), audit().findings[0])


def test_without_predictions_or_scores_there_is_no_plan() -> None:
    data = audit()
    bare = ExportData(data.run, data.findings, data.images, data.presence)
    assert plan(bare, bare.findings[0]).images == ()
    [(_, shown, made)] = asked(bare, bare.findings, 8, 4, 40)
    assert made.images == () and {one.present for one in shown} == {False}


def test_images_that_are_of_the_class_too_are_none_of_the_others() -> None:
    data = audit()
    trains = {row["image_id"]: frozenset({"boat"}) for row in data.images if row["label"] == "train"}
    made = plan(audit(also=trains), data.findings[0])
    assert not set(made.images[made.for_threshold :]) & set(trains)


def test_the_doubt_is_that_of_two_equal_normals() -> None:
    """Of scores from two normal humps of equal size and spread, the posterior is known."""
    rng = np.random.default_rng(1)
    truth = rng.random(200_000) < 0.5
    scores = rng.normal(np.where(truth, 1.0, -1.0), 0.5)
    shown = scores >= 0
    doubt = wrong(scores, shown, 0.0)
    near = np.abs(np.abs(scores) - 0.2) < 0.02
    exact = 1 / (1 + math.exp(2 * 0.2 / 0.5**2))
    assert doubt[near].mean() == pytest.approx(exact, abs=0.02)
    assert (shown != truth)[near].mean() == pytest.approx(exact, abs=0.02)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_change_of_the_gap_is_what_moving_an_image_changes(rows: list[tuple[bool, bool]]) -> None:
    outcome = np.array([float(y) for y, _ in rows])
    shown = np.array([s for _, s in rows])

    def gap(shown: np.ndarray) -> float:
        with_cue, without = outcome[shown], outcome[~shown]
        return (with_cue.sum() + 0.5) / (len(with_cue) + 1) - (without.sum() + 0.5) / (len(without) + 1)

    for i, change in enumerate(change_of_gap(outcome, shown)):
        flipped = shown.copy()
        flipped[i] = not flipped[i]
        assert change == pytest.approx(gap(flipped) - gap(shown))
