"""The caption stage: an empty caption is reported, and what the data don't caption has none."""

from __future__ import annotations

import pyarrow as pa

from pipeline.errors import BudgetReached
from pipeline.records import table
from pipeline.stages.caption import caption


class Says:
    fingerprint = "says"

    def __init__(self, *texts: str | None) -> None:
        self.texts = texts

    def captions(self, images: list) -> list[str | None]:
        assert len(images) == len(self.texts)
        return list(self.texts)


class Poor(Says):
    def captions(self, images: list) -> list[str | None]:
        raise BudgetReached("the budget of 2 calls is spent", super().captions(images))


def run(captioner: object, postponed: list[str] | None = None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    skipped: list[tuple[str, str]] = []
    later: list[str] = [] if postponed is None else postponed
    images = pa.table({"image_id": ["x", "y", "z"]})
    tables = caption(
        images,
        table("annotations", []),
        captioner=captioner,  # type: ignore[arg-type]
        load=lambda images: [None] * len(images),  # type: ignore[misc]
        skip=lambda what, why: skipped.append((what, why)),
        postpone=later.extend,
    )
    return [tuple(row.values()) for row in tables["captions"].to_pylist()], skipped  # type: ignore[misc]


def test_silence_is_told() -> None:
    rows, skipped = run(Says("a dog", "", "a cat"))
    assert rows == [("x", "a dog"), ("y", ""), ("z", "a cat")]
    assert skipped == [("captions of 1 images (y)", "the captioner said nothing")]


def test_an_image_that_the_data_give_no_caption_has_no_row() -> None:
    assert run(Says("a dog", None, "a cat")) == ([("x", "a dog"), ("z", "a cat")], [])


def test_a_budget_that_is_spent_keeps_the_captions_so_far_and_leaves_the_others_for_later() -> None:
    postponed: list[str] = []
    rows, ((what, why),) = run(Poor("a dog", None, "a cat"), postponed)
    assert rows == [("x", "a dog"), ("z", "a cat")] and postponed == ["y"]
    assert what == "captions of 1 images (y)" and "budget of 2 calls" in why and "caption.budget" in why
