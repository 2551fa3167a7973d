"""Rankings held against the rendered truth."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bench.planted.judge import Truth, judge_findings, judge_ranking, validity
from pipeline.bench.planted.methods import WHOLE, Candidate
from pipeline.bench.planted.settings import Cue, Setting, audited, draw, shows

SETTING = draw("development", "planted", "object", 0, 0.9, "resnet")
LABEL, CUE = SETTING.planted[0]
TARGET = SETTING.classes.index(LABEL)
EXAMPLES = audited(SETTING)[::6]


class LeansOnCue:
    """A model that says the planted class wherever it is told that the cue is, judging by the pictures' bytes."""

    fingerprint = "leans"

    def __init__(self, always: bool = False) -> None:
        self.always = always

    def logits(self, images: list) -> np.ndarray:
        answers = np.zeros((len(images), len(SETTING.classes)), np.float32)
        answers[:, TARGET] = 1.0 if self.always else [float(i.mean() > 110) for i in images]
        return answers


def with_cue() -> list[int]:
    return [n for n, e in enumerate(EXAMPLES) if CUE in e.cues]


def truth_of(setting: Setting = SETTING, always: bool = True) -> Truth:
    return Truth(setting, EXAMPLES, LeansOnCue(always))


def test_a_region_is_on_the_cue_where_it_holds_half_of_it_or_lies_half_in_it() -> None:
    truth = truth_of()
    row = next(n for n in with_cue() if truth.picture(n).visible.min() > 0.5)
    scene = EXAMPLES[row].scene
    box = next(b for o, b in zip(scene.objects, truth.picture(row).boxes, strict=True) if o.name == CUE.name)
    x0, y0, x1, y1 = box
    assert truth.on_cue((row, tuple(box)), CUE)
    assert truth.on_cue((row, WHOLE), CUE)
    assert truth.on_cue((row, (x0, y0, (x0 + x1) / 2, (y0 + y1) / 2)), CUE)
    away = (0.0, 0.0, 0.1, 0.1) if x0 > 0.2 or y0 > 0.2 else (0.9, 0.9, 1.0, 1.0)
    assert not truth.on_cue((row, away), CUE)
    bare = next(n for n, e in enumerate(EXAMPLES) if not shows(e.scene, CUE))
    assert not truth.on_cue((bare, WHOLE), CUE)


def test_precision_counts_the_first_ten_regions() -> None:
    good = [(n, WHOLE) for n in with_cue()]
    bare = [(n, WHOLE) for n, e in enumerate(EXAMPLES) if CUE not in e.cues]
    truth = truth_of()
    assert truth.precision(Candidate(None, "x", good[:10] + bare)) == 1.0
    assert truth.precision(Candidate(None, "x", good[:4] + bare)) == pytest.approx(0.4)
    assert truth.precision(None) == 0.0


def test_a_candidate_for_another_class_is_not_the_planted_pair() -> None:
    regions = [(n, WHOLE) for n in with_cue()][:10]
    other = next(c for c in SETTING.classes if c != LABEL)
    assert judge_ranking(truth_of(), [Candidate(LABEL, "slice", regions)])["at_1"]
    assert judge_ranking(truth_of(), [Candidate(None, "slice", regions)])["at_1"]
    scores = judge_ranking(truth_of(), [Candidate(other, "slice", regions), Candidate(LABEL, CUE.text, [])])
    assert not scores["at_1"]
    assert scores["at_3"]


def test_validity_is_ravls_two_gaps() -> None:
    labels = np.array([SETTING.classes.index(e.label) for e in EXAMPLES])
    has = np.array([CUE in e.cues for e in EXAMPLES])
    leaning = np.where(has, TARGET, np.where(labels == TARGET, (TARGET + 1) % len(SETTING.classes), labels))
    (gap,) = validity(SETTING, EXAMPLES, leaning)
    assert gap.own == 1.0
    assert gap.other == 1.0
    assert gap.valid
    (none,) = validity(SETTING, EXAMPLES, labels)
    assert not none.valid


def finding(**values: object) -> dict:
    row = {"class": LABEL, "cue": "something", "kind": "named", "verdict": "confirmed", "q": 0.01, "harm": 0.3}
    for direction in ("removal", "insertion"):
        row |= {f"{direction}_n": 20, f"{direction}_effect": 0.1, f"{direction}_dose": 1.0}
        row |= {f"{direction}_effect_lower": -0.1, f"{direction}_effect_upper": 0.2}
        row |= {f"{direction}_edit_effect": 0.1}
    return row | values


def test_a_confirmed_cue_of_no_effect_is_false_and_one_with_a_true_effect_is_not() -> None:
    bare = [(n, WHOLE) for n, e in enumerate(EXAMPLES) if CUE not in e.cues][:10]
    rows = [finding(), finding(cue=CUE.text), finding(cue="tree", verdict="inconclusive")]
    candidates = [Candidate(LABEL, str(row["cue"]), bare) for row in rows]
    result = judge_findings(truth_of(), rows, candidates, 0.05)  # type: ignore[arg-type]
    assert result["confirmed"] == 2
    assert [f["cue"] for f in result["false"]] == ["something"]
    # a model that always says the class depends on nothing: the true effects are 0, inside [-0.1, 0.2]
    assert [(i["truth"], i["lower"] <= i["truth"] <= i["upper"]) for i in result["intervals"]] == [(0.0, True)] * 2


def test_world_cues_are_found_by_what_an_audit_calls_them() -> None:
    truth = truth_of()
    assert truth.world_cue("red tint") == Cue("cast", "red")
    assert truth.world_cue("noisy image") == Cue("texture", "noisy")
    assert truth.world_cue("meadow") == Cue("background", "meadow")
    assert truth.world_cue("cluster 7") is None
