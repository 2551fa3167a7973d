"""One planted set, audited through models of every family that lean on its cues: each audit finds them.

A multimodal LLM that hallucinates an object where its cue is (SpurLens, arXiv 2503.08884), in this process and behind
an endpoint on this machine; a CLIP; a classifier of timm's, as it is and as an ONNX file; and a file of predictions.
All are in one module, so that what they share (the set, models, audits) is made once.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import discover
from pipeline.api import Result
from pipeline.bench.planted.settings import Example
from pipeline.report.sentences import OBSERVATIONAL
from tests import planted_models as planted
from tests.mllm_server import NAME, MllmServer
from tests.planted_models import CLASSES, CUES, MODELS, PER_CLASS

pytestmark = pytest.mark.release

TOLERANCE = 1e-5
"""Of a probability of Yes from an endpoint, and of what is made of them: a batch of one isn't computed as larger ones
are, and five listed tokens leave out the rarer spellings of Yes and No. Measured: 2e-6."""


class World:
    """The set, and audits of it that share a cache: boxes don't depend on the model under test."""

    def __init__(self, base: Path) -> None:
        self.base, self.pictures, self.examples = base, planted.write_set(base / "images"), planted.examples()

    def audit(self, name: str, model: dict[str, Any]) -> Result:
        return discover(planted.audit_of(self.pictures, self.base / "cache", model), self.base / "audits" / name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module")
def mllm(world: World) -> dict[str, Any]:
    return planted.make_mllm(world.base / "mllm", world.examples)


@pytest.fixture(scope="module")
def local(world: World, mllm: dict[str, Any]) -> Result:
    return world.audit("mllm", mllm)


@pytest.fixture(scope="module")
def server(mllm: dict[str, Any]) -> Iterator[MllmServer]:
    with MllmServer(mllm["name"]) as running:
        yield running


@pytest.fixture(scope="module")
def classifier(world: World) -> dict[str, Any]:
    return planted.make_timm(world.base / "timm", world.examples)


@pytest.fixture(scope="module")
def by_timm(world: World, classifier: dict[str, Any]) -> Result:
    return world.audit("timm", classifier)


def of_class(audit: Result, label: str) -> list[dict[str, Any]]:
    """A class's findings, worst first."""
    return sorted((row for row in audit.findings if row["class"] == label), key=lambda row: row["rank"])


def top_by(audit: Result, label: str, column: str) -> dict[str, Any]:
    measured = [row for row in of_class(audit, label) if not math.isnan(row[column])]
    return max(measured, key=lambda row: row[column])


def test_cue_and_class_go_together_where_models_learn_and_not_where_they_are_audited() -> None:
    for label, cue in CUES.items():
        assert all(shows(example, cue) == (example.label == label) for example in planted.examples())
        for name in CLASSES:
            mine = [shows(example, cue) for example in planted.audited_examples() if example.label == name]
            assert len(mine) == PER_CLASS and 0.3 < np.mean(mine) < 0.7


def shows(example: Example, thing: str) -> bool:
    return thing in {placed.name for placed in example.scene.objects}


@pytest.mark.parametrize(("label", "cue"), CUES.items())
def test_a_hallucination_is_found_by_its_gap_and_confirmed_by_insertion(local: Result, label: str, cue: str) -> None:
    top = top_by(local, label, "hr_gap")
    assert top["cue"] == cue and top["hr_gap_lower"] > 0 and top["hr_gap_top_k"] > top["null_hr_gap_top_k"]
    assert top_by(local, label, "hr_gap_top_k")["cue"] == cue
    assert top["rank"] == 1 and top["verdict"] == "confirmed"
    # by insertion alone too: an effect on answers above zero, and on probabilities above the least of interest
    assert top["insertion_effect_lower"] > 0 and top["insertion_p"] <= local.run["audit"]["rank"]["q"]
    rates = {
        row["label"]: row["hr"]
        for row in local.table("variants").to_pylist()
        if row["variant"] == "all that count" and row["source"] == "other classes"
    }
    assert rates[label] > max(rates[clean] for clean in CLASSES if clean not in CUES)


def test_of_the_model_as_it_ships_nothing_of_that_is_confirmed(world: World, local: Result) -> None:
    untouched = world.audit("as it ships", {"kind": "transformers_vision", "name": str(MODELS / "mllm")})
    for label, cue in CUES.items():
        (row,) = [row for row in of_class(untouched, label) if row["cue"] == cue]
        assert row["verdict"] != "confirmed"
        assert row["hr_gap"] < top_by(local, label, "hr_gap")["hr_gap_lower"]


def test_an_endpoint_with_the_same_model_gives_an_equal_audit(world: World, local: Result, server: MllmServer) -> None:
    model = {"kind": "openai_vision", "model": NAME, "base_url": server.url, "side": 96, "picture": "png", "workers": 2}
    served = world.audit("served", model)
    assert server.pictures == {"data:image/png"} and server.calls >= len(CLASSES) ** 2 * PER_CLASS * 3

    (mine, theirs) = (
        {(row["image_id"], row["label"], row["prompt"]): row["yes"] for row in audit.table("answers").to_pylist()}
        for audit in (local, served)
    )
    assert mine.keys() == theirs.keys() and len(mine) == len(CLASSES) ** 2 * PER_CLASS * 3
    yes = np.array([[mine[key], theirs[key]] for key in mine])
    np.testing.assert_allclose(yes[:, 1], yes[:, 0], atol=TOLERANCE)
    assert np.ptp(yes[:, 0]) > 0.9
    said = [audit.table("predictions").select(["image_id", "predicted"]) for audit in (local, served)]
    assert said[0] == said[1]

    exact = ("class", "rank", "cue", "verdict", "insertion_n", "removal_n", "insertion_stopped", "removal_stopped")
    near = ("hr_gap", "pa_gap", "insertion_effect", "removal_effect", "insertion_score_effect", "harm")
    ours, others = list(local.findings), list(served.findings)
    assert [[row[name] for name in exact] for row in others] == [[row[name] for name in exact] for row in ours]
    for name in near:
        both = ([row[name] for row in audit] for audit in (others, ours))
        np.testing.assert_allclose(*both, atol=TOLERANCE, err_msg=name)
    spent = served.run["costs"]
    assert spent["calls"] == server.calls and spent["retries"] == 0


def test_four_families_agree_on_the_top_finding_of_each_biased_class(
    world: World, local: Result, by_timm: Result, classifier: dict[str, Any]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = Path(classifier["name"].removeprefix("local-dir:"))
    audits = {
        "mllm": local,
        "timm": by_timm,
        "onnx": world.audit("onnx", planted.export_onnx(folder, world.base / "model.onnx")),
        "clip": world.audit("clip", planted.make_clip(world.base / "clip", world.examples)),
    }
    tops = {name: {label: of_class(audit, label)[0] for label in CUES} for name, audit in audits.items()}
    assert {name: {label: top["cue"] for label, top in found.items()} for name, found in tops.items()} == dict.fromkeys(
        audits, CUES
    )
    assert {top["verdict"] for found in tops.values() for top in found.values()} == {"confirmed"}
    clean = {(name, row["class"], row["cue"]) for name, audit in audits.items() for row in audit.findings
             if row["class"] not in CUES and row["verdict"] == "confirmed"}  # fmt: skip
    assert not clean
    # the file gives the network's own answers, and so the same audit
    logits = [np.array(audits[name].table("predictions")["logits"].to_pylist()) for name in ("timm", "onnx")]
    np.testing.assert_allclose(*logits, atol=1e-3)


def test_a_file_of_predictions_has_the_same_top_cues_by_gap_and_no_effects(world: World, by_timm: Result) -> None:
    audit = world.audit("predictions", planted.write_predictions(by_timm, world.base / "predictions.jsonl"))
    for label, cue in CUES.items():
        for column in ("pa_gap", "hr_gap"):
            top, same = top_by(audit, label, column), top_by(by_timm, label, column)
            assert top["cue"] == same["cue"] == cue and top[column] == pytest.approx(same[column])
    assert not [
        row for row in audit.findings if row["verdict"] == "confirmed" or row["removal_n"] or row["insertion_n"]
    ]
    assert not len(audit.table("edits")) and audit.run["observational"]
    assert {row["reason"] for row in audit.table("untested").to_pylist()} == {
        "the model under test is a file of its answers, which can't be shown an edited picture"
    }
    assert OBSERVATIONAL in html.unescape(audit.report.read_text(encoding="utf-8"))
