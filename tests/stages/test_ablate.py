"""The race as the ablation runs it: one fill an image, in turns, within the budget, the same when run again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Audit
from pipeline.evidence.experiments import Edit, Experiment, Pair, pair_of
from pipeline.evidence.race import FIRST, LEAST
from pipeline.stages.ablate import run_race, unmoved

FILLS = ("mean", "blur", "inpaint")


def audit(budget: int = 20_000) -> Audit:
    return Audit.from_dict(
        {
            "data": {"path": "x"},
            "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
            "ablate": {"budget": budget, "images": 30},
        }
    )


def experiment(cue: str, direction: str, n: int = 40) -> Experiment:
    fills = FILLS if direction == "removal" else ("paste",)
    pairs = [
        pair_of(f"{direction}-{i}", fill, {"cue": cue, "fill": fill}, {"other": cue, "fill": fill})
        for i in range(n)
        for fill in fills
    ]
    return Experiment("boat", cue, direction, pairs)


EXPERIMENTS = [experiment(cue, way) for cue in ("buoy", "tree", "lamp") for way in ("removal", "insertion")]
MEASURES = pa.Table.from_pylist(
    [
        {"label": "boat", "cue_id": cue, "split": "estimation",
         "n_class_with": 8, "n_class_without": 2, "n_other_with": 1, "n_other_without": 9}
        for cue in ("buoy", "tree", "lamp")
    ]
)  # fmt: skip


def rows_of(made: Experiment, pairs: list[Pair]) -> list[dict[str, Any]]:
    """A model that needs the buoy and cares for nothing else."""
    rows = []
    sign = 1 if made.direction == "removal" else -1
    for pair in pairs:
        for edit in pair.edits:
            tremble = np.random.default_rng(int(edit.edit_id[:8], 16)).normal(0, 0.3)
            moved = 8.0 if made.cue_id == "buoy" and edit.arm == "edit" else 0.0
            margin = sign * (4.0 - moved) + tremble
            rows.append(
                {"arm": edit.arm, "score_after": 1 / (1 + np.exp(-margin)),
                 "margin_after": margin, "hit_after": margin > 0}
            )  # fmt: skip
    return rows


def race(budget: int = 20_000) -> tuple[list[list[Pair]], list[str], list[list[tuple[str, Edit]]]]:
    shown: list[list[tuple[str, Edit]]] = []
    used, stopped = run_race(EXPERIMENTS, audit(budget), MEASURES, lambda a, b: False, shown.append, rows_of)
    return used, stopped, shown


def test_the_cue_is_confirmed_and_the_others_are_dropped_early() -> None:
    used, stopped, _ = race()
    assert stopped == ["confirmed"] * 2 + ["no effect"] * 4
    assert all(LEAST <= len(pairs) <= LEAST + 4 for pairs in used[:2]) and all(
        len(pairs) == FIRST for pairs in used[2:]
    )


def test_every_image_gets_one_fill_and_every_turn_all_fills() -> None:
    used, _, _ = race()
    for made, pairs in zip(EXPERIMENTS, used, strict=True):
        assert len({pair.edits[0].image_id for pair in pairs}) == len(pairs)
        block = 3 if made.direction == "removal" else 1
        turns = [{pair.fill for pair in pairs[at : at + block]} for at in range(0, len(pairs), block)]
        assert turns == [set(FILLS) if block == 3 else {"paste"}] * (len(pairs) // block)


def test_a_race_run_again_shows_the_same_edits_in_the_same_rounds() -> None:
    assert race() == race()


@pytest.mark.parametrize("budget", [0, 10, 24, 40])
def test_the_budget_holds_and_goes_to_the_most_promising(budget: int) -> None:
    used, stopped, shown = race(budget)
    assert {label for asked in shown for label, _ in asked} <= {"boat"}
    spent = {edit.edit_id for asked in shown for _, edit in asked}
    assert len(spent) <= budget
    assert sum(2 * len(pairs) for pairs in used) == len(spent)
    had = [bool(pairs) for pairs in used]
    assert had == sorted(had, reverse=True)
    assert [why == "budget" for why, some in zip(stopped, had, strict=True) if not some] == [True] * had.count(False)
    assert had.count(True) == min(budget // (2 * FIRST), 6)


def test_what_the_first_images_say_is_the_same_in_either_mode() -> None:
    said = [unmoved(made, audit(), lambda label, edit: True, rows_of) for made in EXPERIMENTS]
    assert said == [False] * 2 + [True] * 4
    # an exhaustive experiment has every fill and fewer pictures: its first images are the race's own
    shorter = [experiment(made.cue_id, made.direction, 30) for made in EXPERIMENTS]
    assert [unmoved(made, audit(), lambda label, edit: True, rows_of) for made in shorter] == said
    assert not unmoved(EXPERIMENTS[-1], audit(), lambda label, edit: False, rows_of)  # a budget ended before it
