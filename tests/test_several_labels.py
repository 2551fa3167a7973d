"""Images of several labels: one that is of a class too is none of that class's others, anywhere; and is its own once,
by the row that has that label."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Audit
from pipeline.evidence.absent import OTHERS
from pipeline.evidence.perception import answered_top_k_gaps, compare_prompts, of_other_class
from pipeline.evidence.presence import Cues
from pipeline.metrics import ravl, spurlens
from pipeline.models.annotations import other_labels
from pipeline.models.protocols import Attribute, Proposals
from pipeline.records import table
from pipeline.stages.measure import of_other_classes, top_k_gaps
from pipeline.stages.propose import Captioned, captions_for, of_errors

N, CLASSES, N_CUES = 48, 4, 3
AUDIT = Audit.from_dict({"data": {"path": "."}, "model": {"kind": "python", "factory": "m:f"}, "measure": {"top_k": 5}})


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Labels (n,), other labels (n, classes) and distinct scores (n, cues): equals would let the seed play a part."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, N)
    also = rng.random((N, CLASSES)) < 0.15
    also[np.arange(N), labels] = False
    scores = rng.permuted(np.tile(np.arange(N, dtype=float), (N_CUES, 1)), axis=1).T
    return labels, also, scores, rng


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_gaps_are_those_without_the_images_that_are_of_the_class_too(seed: int) -> None:
    labels, also, scores, rng = world(seed)
    predictions = rng.integers(0, CLASSES, N)
    yes = (rng.random((2, N, CLASSES)) < 0.4).astype(np.float32)
    named = spurlens.top_k_gaps(scores, labels, predictions, CLASSES, rng, 5, also)
    asked = spurlens.answered_gaps(scores, labels, yes, rng, 5, also)
    for c in range(CLASSES):
        kept = ~also[:, c]
        one = spurlens.top_k_gaps(scores[kept], labels[kept], predictions[kept], CLASSES, rng, 5)
        other = spurlens.answered_gaps(scores[kept], labels[kept], yes[:, kept], rng, 5)
        np.testing.assert_allclose(named[1][c], one[1][c])
        np.testing.assert_allclose(asked[1][c], other[1][c])
    for with_others, plain in (
        (named, spurlens.top_k_gaps(scores, labels, predictions, CLASSES, rng, 5)),
        (asked, spurlens.answered_gaps(scores, labels, yes, rng, 5)),
    ):
        np.testing.assert_allclose(with_others[0], plain[0])  # its own images are those of its label


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_the_stage_hands_the_other_labels_on(seed: int) -> None:
    labels, also, scores, rng = world(seed)
    cues = Cues([{"cue_id": str(n)} for n in range(N_CUES)], [str(n) for n in range(N)], scores, scores > 20)
    half = rng.random(N) < 0.7
    predicted = rng.integers(0, CLASSES, N)
    yes = (rng.random((2, N, CLASSES)) < 0.4).astype(np.float32)
    named = top_k_gaps(cues, half, labels, predicted, CLASSES, AUDIT, also)
    asked = answered_top_k_gaps(cues, half, labels, yes, AUDIT, also)
    for c in range(CLASSES):
        kept = half & ~also[:, c]
        for found, plain in (
            (named, top_k_gaps(cues, kept, labels, predicted, CLASSES, AUDIT)),
            (asked, answered_top_k_gaps(cues, kept, labels, yes, AUDIT)),
        ):
            for name in ("hr_gap_top_k", "null_hr_gap_top_k"):
                np.testing.assert_allclose(found[name][c], plain[name][c])


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_to_name_another_of_its_labels_is_no_error_of_a_cluster(seed: int) -> None:
    labels, also, _, rng = world(seed)
    predicted = rng.integers(0, CLASSES, N)
    regions, clusters = np.repeat(np.arange(N), 3), rng.integers(0, 5, 3 * N)
    truth = np.where(also[np.arange(N), predicted], labels, predicted)  # what is true said as the row's own label
    found = ravl.memberships(clusters, regions, labels, predicted, 5, CLASSES, also)
    plain = ravl.memberships(clusters, regions, labels, truth, 5, CLASSES)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one, other)
    gaps = np.full((5, CLASSES), -1.0)  # every label does worse with every cluster: all its errors count
    scores = rng.random((3 * N, CLASSES))
    influence = ravl.influence(clusters, regions, scores, labels, predicted, gaps, also)
    wrong = (predicted != labels) & ~also[np.arange(N), predicted]
    kept = wrong[regions]
    at = np.cumsum(wrong) - 1
    if wrong.any():
        alone = ravl.influence(clusters[kept], at[regions[kept]], scores[kept], labels[wrong], predicted[wrong], gaps)
        np.testing.assert_allclose(influence, alone)


class Model:
    prompts, counts = ("one", "two"), (True, True)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_prompts_are_compared_on_images_without_the_class(seed: int) -> None:
    labels, also, scores, rng = world(seed)
    cues = Cues([{"cue_id": str(n)} for n in range(N_CUES)], [str(n) for n in range(N)], scores, scores > 20)
    yes = (rng.random((2, N, CLASSES)) < 0.4).astype(np.float32)
    together = (rng.random((N, CLASSES)) < 0.4).astype(np.float32)
    half, names = rng.random(N) < 0.8, [f"c{n}" for n in range(CLASSES)]
    nothing = np.zeros((CLASSES, 2), np.float32)
    rows = compare_prompts(
        Model(), (yes, np.zeros(yes.shape, bool)), together, half, labels, also, dict.fromkeys(range(CLASSES), 0),  # type: ignore[arg-type]
        (nothing, nothing), cues, names, AUDIT,
    )  # fmt: skip
    assert len(rows) == CLASSES * 3
    for row in rows:
        c = names.index(row["label"])
        absent = half & of_other_class(labels, c, also)
        said = {"one": yes[0], "two": yes[1], "all that count": together}[row["variant"]]
        assert (
            row["source"] == OTHERS
            and row["n_absent"] == absent.sum()
            and row["n_present"] == (half & (labels == c)).sum()
        )
        assert not (absent & also[:, c]).any()
        if absent.any():
            assert row["hr"] == pytest.approx(said[absent, c].mean())


def test_the_other_labels_are_read_from_the_annotations() -> None:
    rows = [
        {"image_id": "x", "caption": "", "phrases": [], "boxes": [], "other_labels": ["b", "c"]},
        {"image_id": "y", "caption": "said", "phrases": [], "boxes": [], "other_labels": []},
    ]
    annotations = table("annotations", rows)
    assert other_labels(annotations) == {"x": frozenset({"b", "c"})}
    also = of_other_classes(pa.table({"image_id": ["y", "x"]}), annotations, {"a": 0, "b": 1, "c": 2})
    assert also is not None and also.tolist() == [[False, False, False], [False, True, True]]


SEEN = [
    Captioned("a", {"b"}, {"b"}, "a kite over both"),
    Captioned("a", (), {"b"}, "a kite"),
    Captioned("a", (), {"a"}, "a lawn"),
    Captioned("b", {"a"}, {"b"}, "a kite over both"),
]


def test_captions_of_a_picture_of_both_classes_are_none_of_the_others() -> None:
    named = AUDIT.model_copy(update={"classes": ["a", "b"]})
    assert captions_for("a", SEEN, ("a", "b"), named)["b"] == []
    assert captions_for("b", SEEN, ("a", "b"), named) == {"a": ["a kite", "a lawn"], "b": ["a kite over both"]}


def test_to_see_the_other_class_of_a_picture_is_no_error_to_learn_from() -> None:
    given: list[dict] = []

    class Proposer:
        def propose(self, name: str, classes: list, captions: dict) -> Proposals:
            given.append(captions)
            return Proposals((Attribute("kite", "Co-occurring Objects"),))

    of_errors(Proposer(), AUDIT, "b", ("a", "b"), SEEN, ())  # type: ignore[arg-type]
    assert given == [{"b": ["a kite"], "other pictures": ["a lawn"]}]
