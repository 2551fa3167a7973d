"""Krippendorff's alpha against the worked examples of Krippendorff (2011), and what must hold of any data."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.metrics.agreement import krippendorff_alpha


def units(*observers: str) -> list[list[str]]:
    """A row of values an observer; "." is a missing one."""
    return [[v for v in values if v != "."] for values in zip(*(row.split() for row in observers), strict=True)]


@pytest.mark.parametrize(
    ("observers", "alpha"),
    [
        # section A: binary, two observers
        (("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"), 0.095),
        # section B: nominal, two observers
        (("a a b b d c c c e d d a", "b a b b b c c c e d d d"), 0.692),
        # section C: nominal, four observers, missing values
        (
            ("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3",
             ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."),
            0.743,
        ),
    ],
)  # fmt: skip
def test_krippendorffs_own_examples(observers: tuple[str, ...], alpha: float) -> None:
    assert krippendorff_alpha(units(*observers)) == pytest.approx(alpha, abs=5e-4)


def test_nothing_to_disagree_on_is_not_perfect_agreement() -> None:
    assert math.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]))
    assert math.isnan(krippendorff_alpha([["a"], ["b"]])) and math.isnan(krippendorff_alpha([]))


UNITS = st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=12)


@given(UNITS, st.randoms())
def test_neither_order_nor_names_nor_single_answers_matter(values: list[list[str]], random) -> None:
    alpha = krippendorff_alpha(values)
    assume(not math.isnan(alpha))
    shuffled = [random.sample(unit, len(unit)) for unit in random.sample(values, len(values))]
    renamed = [["xyz"["abc".index(v)] for v in unit] for unit in shuffled]
    assert krippendorff_alpha([*renamed, ["x"], []]) == pytest.approx(alpha)
    assert alpha <= 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(2, 4)), min_size=2, max_size=10))
def test_perfect_agreement_is_one(values: list[tuple[str, int]]) -> None:
    assume(len({value for value, _ in values}) > 1)
    assert krippendorff_alpha([[value] * number for value, number in values]) == 1
