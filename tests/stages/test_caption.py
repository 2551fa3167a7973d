"""The caption stage: what captions cost is counted, and an empty one is reported."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from pipeline.models.protocols import Spent
from pipeline.stages.caption import caption


class Paid:
    """Says nothing of the second image, and has spent something before."""

    fingerprint = "paid"
    spent = Spent(calls=5, tokens=50)

    def captions(self, images: list) -> list[str]:
        self.spent = Spent(self.spent.calls + len(images), self.spent.tokens + 10 * len(images))
        return ["a dog", "", "a cat"]


class Free:
    fingerprint = "free"

    def captions(self, images: list) -> list[str]:
        return ["a dog"] * len(images)


def run(captioner: object) -> tuple[list[str], Counter, list[tuple[str, str]]]:
    counts: Counter[str] = Counter()
    skipped: list[tuple[str, str]] = []
    images = pa.table({"image_id": ["x", "y", "z"]})
    tables = caption(
        images,
        captioner=captioner,  # type: ignore[arg-type]
        load=lambda images: [None] * len(images),  # type: ignore[misc]
        count=lambda what, number: counts.update({what: number}),
        skip=lambda what, why: skipped.append((what, why)),
    )
    return tables["captions"]["caption"].to_pylist(), counts, skipped


def test_calls_and_tokens_of_this_run_are_counted_and_silence_is_told() -> None:
    texts, counts, skipped = run(Paid())
    assert texts == ["a dog", "", "a cat"] and counts == {"calls": 3, "tokens": 30}
    assert skipped == [("captions of 1 images (y)", "the captioner said nothing")]


def test_a_captioner_of_ones_own_costs_nothing() -> None:
    texts, counts, skipped = run(Free())
    assert len(texts) == 3 and not +counts and not skipped
