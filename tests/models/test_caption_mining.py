"""Captions to attributes: phrases, their types, what names the class, and which go with the class."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models import words
from pipeline.models.caption_mining import CaptionMiner, caption_mining, log_odds, phrases
from pipeline.models.protocols import Proposals
from pipeline.records import CUE_TYPES

UNUSED = Path("unused")


def mine(captions: dict[str, list[str]], name: str, miner: CaptionMiner | None = None) -> Proposals:
    return (miner or caption_mining(0, UNUSED)).propose(name, list(captions), captions)


def names(proposals: Proposals) -> list[str]:
    return [attribute.phrase for attribute in proposals.attributes]


def test_log_odds_are_those_of_monroe_colaresi_and_quinn() -> None:
    # by hand: alpha = 10 * (31 + 6) / 345
    alpha = 370 / 345
    a, not_a, b, not_b = 31 + alpha, 45 - 31 + 10 - alpha, 6 + alpha, 300 - 6 + 10 - alpha
    delta, z = log_odds(31, 45, 6, 300)
    assert delta == pytest.approx(math.log(a / not_a) - math.log(b / not_b))
    assert z == pytest.approx(delta / math.sqrt(1 / a + 1 / not_a + 1 / b + 1 / not_b))
    assert z > 6


@given(st.integers(0, 40), st.integers(0, 40), st.integers(40, 60), st.integers(40, 60))
def test_log_odds_change_sides_with_the_classes_and_shrink_from_the_raw_ratio(
    a: int, b: int, n_a: int, n_b: int
) -> None:
    delta, z = log_odds(a, n_a, b, n_b)
    assert (delta, z) == pytest.approx(tuple(-x for x in log_odds(b, n_b, a, n_a)))
    assert math.isfinite(z) and delta * (a / n_a - b / n_b) >= -1e-9
    if 0 < a < n_a and 0 < b < n_b:
        raw = math.log(a / (n_a - a)) - math.log(b / (n_b - b))
        assert abs(delta) <= abs(raw) + 1e-9


@pytest.mark.parametrize(
    "caption, wanted",
    [
        (
            "A photo of a red sailboat and a lighthouse on a beach, with a watermark.",
            {"red color", "sailboat", "lighthouse", "beach", "watermark"},
        ),
        (
            "On a city street there is an anchor and another kite, with a date stamp.",
            {"city street", "anchor", "kite", "date stamp"},
        ),
        (
            "A blurry dark picture of two gray cars in front of a brick wall, with a red tint.",
            {"blurry image", "dark lighting", "car", "brick wall", "red tint"},
        ),
        ("there is a man riding a wave on a surfboard in the ocean", {"man", "wave", "surfboard", "ocean"}),
        (
            "a cat sitting on top of a wooden table next to a laptop computer",
            {"cat", "wooden table", "laptop computer"},
        ),
        (
            "a black and white photo of a traffic light with the text 'BIG SALE' at the top",
            {"grayscale", "traffic light", "text"},
        ),
        (
            "The image shows a small sailboat floating on calm water. "
            "In the background, there are trees. The lighting is dim.",
            {"small object", "sailboat", "water", "tree", "dark lighting"},
        ),
        (
            "Several children wearing red hats, seen from above against a white background",
            {"child", "hat", "aerial view", "white background"},
        ),
        (
            "a bowl of soup, a glass of wine and people in a parking lot",
            {"bowl of soup", "glass of wine", "person", "parking-lot"},
        ),
        (
            "a close up of an orange on a plate beside an orange cat",
            {"close-up view", "orange", "plate", "cat"},
        ),
    ],
)
def test_phrases_of_captions_of_both_styles(caption: str, wanted: set[str]) -> None:
    found = {phrase for phrase, _ in phrases(caption, "sailboat")}
    assert wanted <= found
    text = " ".join(found)
    for boilerplate in (
        "photo",
        "picture",
        "sitting",
        "riding",
        "several",
        "there",
        "image shows",
        "sale",
        "next-to",
        "another",
    ):
        assert boilerplate not in text


@pytest.mark.parametrize(
    "caption", ["", "...", "a", "🙂🙂", "a" * 5000, "\x00\x01", "the of and", "\"'\"'", "<b>a dog</b>"]
)
def test_odd_captions_are_no_crash(caption: str) -> None:
    assert isinstance(phrases(caption, ""), tuple)


@given(st.text(max_size=60), st.text(max_size=12))
def test_any_text_gives_short_phrases_once(caption: str, class_name: str) -> None:
    found = [phrase for phrase, _ in phrases(caption, class_name)]
    assert len(found) == len(set(found)) and all(0 < len(phrase) <= words.LONGEST for phrase in found)


def test_a_colour_or_size_speaks_of_the_class_only_where_it_stands_before_it() -> None:
    assert "red color" in dict(phrases("a red boat and a green buoy", "boat"))
    assert "red color" not in dict(phrases("a red boat and a green buoy", "buoy"))
    assert "small object" in dict(phrases("a small dog on grass", "dog"))
    assert "small object" not in dict(phrases("a small dog on grass", "cat"))


def biased_captions(style: str, n: int = 60) -> dict[str, list[str]]:
    """Sailboats go with lighthouses, barns with watermarks and snow, kites with a tint, dogs with nothing."""
    rng = np.random.default_rng(5)
    others = ["buoy", "car", "tree", "bench", "umbrella", "bicycle"]
    places = {
        "beach": "on a beach",
        "meadow": "in a meadow",
        "desert": "in the desert",
        "street": "on a city street",
    }
    captions: dict[str, list[str]] = {}
    for label in ("sailboat", "barn", "kite", "dog"):
        captions[label] = []
        for _ in range(n):
            extra = str(rng.choice(others))
            place = places[str(rng.choice(list(places)))]
            often = rng.random() < 0.7
            rarely = rng.random() < 0.07
            light = "lighthouse" if (often if label == "sailboat" else rarely) else extra
            if label == "barn" and often:
                place = "in the snow"
            mark = often if label == "barn" else rarely
            tint = often if label == "kite" else rarely
            color = str(rng.choice(["red", "blue", "green"]))
            if style == "plain":
                text = f"A photo of a {color} {label} and a {light} {place}"
                text += ", with a watermark" * mark + (" and" * mark or ", with") * tint + " a red tint" * tint + "."
            else:
                text = f"The image shows a {color} {label} {place}. Next to it, there are two {light}s."
                text += " The picture has a red color cast." * tint + " A large watermark is visible." * mark
            captions[label].append(text)
    return captions


@pytest.mark.parametrize("style", ["plain", "wordy"])
def test_the_planted_cues_come_first_with_their_types(style: str) -> None:
    captions = biased_captions(style)
    miner = caption_mining(0, UNUSED)
    first = {name: mine(captions, name, miner).attributes for name in captions}
    assert [(a.phrase, a.cue_type) for a in first["sailboat"][:1]] == [("lighthouse", "Co-occurring Objects")]
    assert {(a.phrase, a.cue_type) for a in first["barn"][:2]} == {
        ("snow", "Background"),
        ("watermark", "Co-occurring Objects"),
    }
    assert [(a.phrase, a.cue_type) for a in first["kite"][:1]] == [("red tint", "Colorization")]
    assert len(first["dog"]) <= 2
    for name, attributes in first.items():
        assert [a.score for a in attributes] == sorted((a.score for a in attributes), reverse=True)
        assert all(a.score >= 1.96 and a.cue_type in CUE_TYPES for a in attributes)
        assert not any(words.names_class(a.phrase, name) for a in attributes)
    assert first["sailboat"][0].reason.endswith(" of 180 others")
    assert (
        first["sailboat"][0].reason.startswith("in ") and " of 60 captions of sailboat, " in first["sailboat"][0].reason
    )


def test_other_classes_are_attributes_too() -> None:
    captions = {
        "dog": ["a dog and a cat on grass"] * 12 + ["a dog on grass"] * 4,
        "cat": ["a cat on grass"] * 4 + ["a cat"] * 4,
        "car": ["a car"] * 20,
    }
    assert "cat" in names(mine(captions, "dog"))


def test_only_positive_associations_and_limits() -> None:
    captions = biased_captions("plain")
    assert names(mine(captions, "barn", caption_mining(0, UNUSED, most=1))) == names(mine(captions, "barn"))[:1]
    assert names(mine(captions, "barn", caption_mining(0, UNUSED, z=1000.0))) == []
    assert names(mine(captions, "barn", caption_mining(0, UNUSED, least_count=60))) == []
    assert "lighthouse" not in names(mine(captions, "barn"))


def test_a_phrase_twice_in_a_caption_counts_once() -> None:
    captions = {"dog": ["a dog with a ball and a ball and a ball"] * 5 + ["a dog"] * 5, "cat": ["a cat"] * 20}
    assert mine(captions, "dog").attributes[0].reason == "in 5 of 10 captions of dog, 0 of 20 others"


def test_the_longer_phrase_wins_only_where_it_is_as_common() -> None:
    rest = {"cat": ["a cat"] * 30}
    together = {"dog": ["a dog near a fire hydrant"] * 10, **rest}
    apart = {"dog": ["a dog near a fire hydrant"] * 5 + ["a dog near a hydrant"] * 6, **rest}
    assert names(mine(together, "dog")) == ["fire hydrant"]
    assert "hydrant" in names(mine(apart, "dog")) and "fire hydrant" not in names(mine(apart, "dog"))


def test_colour_variants_of_a_thing_are_one() -> None:
    captions = {
        "dog": ["a dog and a red car"] * 4 + ["a dog and a blue car"] * 4 + ["a dog and two cars"] * 4,
        "cat": ["a cat"] * 30,
    }
    assert [a.reason for a in mine(captions, "dog").attributes] == ["in 12 of 12 captions of dog, 0 of 30 others"]


@pytest.mark.parametrize("captions", [{}, {"dog": []}, {"dog": ["a dog and a ball"] * 9}, {"cat": ["a cat"] * 9}])
def test_without_a_contrast_there_are_no_attributes(captions: dict[str, list[str]]) -> None:
    assert mine(captions, "dog") == Proposals(())


def test_the_order_of_captions_and_classes_does_not_matter() -> None:
    captions = biased_captions("wordy")
    turned = {name: texts[::-1] for name, texts in reversed(captions.items())}
    assert mine(captions, "barn") == mine(turned, "barn")
    assert (
        caption_mining(0, UNUSED).fingerprint
        == caption_mining(1, UNUSED).fingerprint
        != caption_mining(0, UNUSED, most=3).fingerprint
    )


@pytest.mark.parametrize(
    "plural, singular",
    [
        ("sailboats", "sailboat"),
        ("buses", "bus"),
        ("bus", "bus"),
        ("grass", "grass"),
        ("leaves", "leaf"),
        ("people", "person"),
        ("sheep", "sheep"),
        ("skies", "sky"),
        ("glasses", "glasses"),
        ("bars", "bar"),
        ("kayaks", "kayak"),
        ("hoverboards", "hoverboard"),
        ("t-shirts", "t-shirt"),
        ("red", "red"),
    ],
)
def test_lemma(plural: str, singular: str) -> None:
    assert words.lemma(plural) == words.lemma(plural.upper()) == singular


@pytest.mark.parametrize(
    "phrase, class_name, same",
    [
        ("sailboat", "sailboat", True),
        ("white sail boats", "sailboat", True),
        ("boat", "sailboat", True),
        ("Sailboats", "boat", True),
        ("traffic", "traffic light", True),
        ("lights", "traffic light", True),
        ("rain", "train", False),
        ("ear", "pear", False),
        ("car", "carpet", False),
        ("light bulb", "lighthouse", False),
        ("sea", "sailboat", False),
        ("cup", "glass of water", False),
        ("piece of cake", "glass of water", False),
    ],
)
def test_names_class(phrase: str, class_name: str, same: bool) -> None:
    assert words.names_class(phrase, class_name) is same


@pytest.mark.parametrize(
    "phrase, cue_type",
    [
        ("red tint", "Colorization"),
        ("yellow color cast", "Colorization"),
        ("grayscale", "Colorization"),
        ("vivid colors", "Colorization"),
        ("dark lighting", "Lighting and Shadows"),
        ("shadows", "Lighting and Shadows"),
        ("sunlit", "Lighting and Shadows"),
        ("blurry", "Texture and Noise"),
        ("grainy photo", "Texture and Noise"),
        ("close-up view", "Perspective and Angle"),
        ("from above", "Perspective and Angle"),
        ("low angle", "Perspective and Angle"),
        ("tilted view", "Orientation"),
        ("upside down", "Orientation"),
        ("rotated", "Orientation"),
        ("small object", "Relative Size"),
        ("tiny", "Relative Size"),
        ("round shape", "Shape"),
        ("square", "Shape"),
        ("beach", "Background"),
        ("wooden floors", "Background"),
        ("white background", "Background"),
        ("text watermark", "Co-occurring Objects"),
        ("date stamp", "Co-occurring Objects"),
        ("logo", "Co-occurring Objects"),
        ("small dog", "Co-occurring Objects"),
        ("red car", "Co-occurring Objects"),
        ("round table", "Co-occurring Objects"),
        ("", "Co-occurring Objects"),
    ],
)
def test_guess_type(phrase: str, cue_type: str) -> None:
    assert words.guess_type(phrase) == cue_type


def test_merge_phrases_keeps_the_order_and_one_of_each() -> None:
    listed = [
        "Red cars",
        " a Tree ",
        "the car",
        "trees",
        "traffic lights",
        "red balloon",
        "",
        "traffic light",
    ]
    assert words.merge_phrases(listed) == ["tree", "car", "traffic light", "red balloon"]


def test_clean_takes_out_what_could_harm_a_page_or_a_terminal() -> None:
    assert words.clean(' "<b>A\x00 dog\x1b[31m‮</b>\n ball"') == "bA dog [31m /b ball"
    assert len(words.clean("x" * 999)) == words.LONGEST
