"""What a finding says in words, for every sign, for zero, and for what was not measured."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bench.report.synthetic import NAN, finding
from pipeline.report import sentences


def effects(removal: tuple[float, float, float], insertion: tuple[float, float, float], **columns: object) -> dict:
    numbers = {}
    for name, values in (("removal", removal), ("insertion", insertion)):
        for end, value in zip(("", "_lower", "_upper"), values, strict=True):
            numbers[f"{name}_effect{end}"] = value
    return finding(**numbers, **columns)


NOTHING = (NAN, NAN, NAN)


@pytest.mark.parametrize(
    ("removal", "insertion", "expected"),
    [
        (
            (0.31, 0.22, 0.40),
            (0.18, 0.12, 0.25),
            "Without the buoy the model misses 31 more of 100 boats (22 to 40). "
            "With the buoy pasted in it calls 18 more of 100 other images a boat (12 to 25).",
        ),
        (
            (-0.12, -0.20, -0.04),
            NOTHING,
            "Without the buoy the model misses 12 fewer of 100 boats (4 to 20).",
        ),
        (
            NOTHING,
            (0.18, 0.12, 0.25),
            "With the buoy pasted in the model calls 18 more of 100 other images a boat (12 to 25).",
        ),
        (
            (0.0, -0.03, 0.04),
            NOTHING,
            "Without the buoy the model misses no more of 100 boats than before (−3 to 4).",
        ),
        (
            (0.02, -0.05, 0.08),
            NOTHING,
            "Without the buoy the model misses 2 more of 100 boats (−5 to 8), which may be chance.",
        ),
        ((0.31, NAN, NAN), NOTHING, "Without the buoy the model misses 31 more of 100 boats."),
        (NOTHING, NOTHING, "“buoy” was not put to the test on boats."),
    ],
)
def test_sentence(removal: tuple, insertion: tuple, expected: str) -> None:
    assert sentences.sentence(effects(removal, insertion)) == expected


@pytest.mark.parametrize(
    ("columns", "operator", "start"),
    [
        ({}, "region", "Without the buoy the"),
        ({"cue": "the sea", "cue_type": "Background"}, "", "Without the sea in the background the"),
        ({"cue": "sea background", "cue_type": "Background"}, "background", "Without the sea background the"),
        (
            {"cue": "red tint", "cue_type": "Colorization"},
            "property:red tint",
            "Without the look “red tint” the",
        ),
        (
            {"cue": "tilted view", "cue_type": "Orientation"},
            "geometry:removal by rotate -20",
            "Without the look “tilted view” the",
        ),
        ({"cue": "watermark", "cue_type": "Texture and Noise"}, "region", "Without the watermark the"),
        ({"cue": "cluster 3", "kind": "unnamed"}, "region", "Without the regions “cluster 3” the"),
        ({"cue": "regions like 'sea'", "kind": "unnamed"}, "region", "Without the regions like 'sea' the"),
    ],
)
def test_each_kind_of_edit_has_its_words(columns: dict, operator: str, start: str) -> None:
    row = effects((0.3, 0.2, 0.4), NOTHING, **columns)
    assert sentences.sentence(row, operator).startswith(start)


@pytest.mark.parametrize(
    ("label", "many", "single"),
    [
        ("boat", "boats", "a boat"),
        ("polar_bear", "polar bears", "a polar bear"),
        ("owl", "owls", "an owl"),
        ("bus", "buses", "a bus"),
        ("glasses", "glasses", "glasses"),
        ("a", "images of “a”", "“a”"),
        ("n02123045", "images of “n02123045”", "“n02123045”"),
        ("<b>{n}%s</b>", "images of “<b>{n}%s</b>”", "“<b>{n}%s</b>”"),
        ("", "images of “(no name)”", "“(no name)”"),
    ],
)
def test_labels_as_words(label: str, many: str, single: str) -> None:
    assert (sentences.plural(label), sentences.one(label)) == (many, single)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.314, "31"),
        (-0.314, "−31"),
        (0.004, "0.4"),
        (0.0004, "0"),
        (-0.0001, "0"),
        (0.0, "0"),
        (1.0, "100"),
        (NAN, "–"),
    ],
)
def test_shares_of_100(share: float, text: str) -> None:
    assert sentences.of_100(share) == text


@settings(deadline=None)  # the first call loads the rules of English
@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_words_and_the_bounds_agree_in_sign(effect: float, below: float, above: float) -> None:
    low, high = max(-1.0, effect - below), min(1.0, effect + above)
    text = sentences.removal(effects((effect, low, high), NOTHING))
    if "fewer" in text:
        assert effect < 0
    elif " no more " not in text:
        assert effect > 0
    assert ("chance" in text) == (low <= 0 <= high and " no more " not in text)
    bounds = re.search(r"\(([−\d.]+) to ([−\d.]+)\)", text)
    assert bounds
    first, last = (float(bound.replace("−", "-")) for bound in bounds.groups())
    assert first <= last


@settings(deadline=None)  # the first call loads the rules of English
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_name_makes_one_line(label: str, cue: str) -> None:
    text = sentences.sentence(effects((0.3, 0.2, 0.4), (0.1, 0.0, 0.2), **{"class": label}, cue=cue))
    assert text.isprintable() and text.endswith(".")


@pytest.mark.parametrize(
    ("value", "text"), [(0.00001, "<0.001"), (0.0034, "0.0034"), (0.5, "0.50"), (None, "–"), (NAN, "–")]
)
def test_small_numbers(value: float | None, text: str) -> None:
    assert sentences.small(value) == text


def test_missing_numbers_are_nan() -> None:
    assert math.isnan(sentences.number(None)) and math.isnan(sentences.number("x")) and sentences.number(2) == 2.0


def test_what_the_edits_were_spent_on() -> None:
    rows = [("confirmed", 40), ("no effect", 8), ("no effect", 12)]
    spent = {
        "mode": "racing",
        "forwards": 60,
        "exhaustive_forwards": 480,
        "experiments": [{"stopped": why, "forwards": forwards} for why, forwards in rows],
    }
    said = sentences.ablation(spent)
    assert "60 edited images" in said and "480 (12 %)" in said
    assert "40 in 1 experiment (confirmed); 20 in 2 experiments (no effect)" in said
    assert "every fill" in sentences.ablation({**spent, "mode": "exhaustive"})
    assert sentences.ablation({}) == ""
