from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.evidence import manipulation
from pipeline.evidence.experiments import why_untestable
from pipeline.evidence.geometry_edits import LIBRARY
from pipeline.evidence.manipulation import (
    choose_operator,
    encode_once,
    images_to_try,
    in_words,
    operator_of,
    try_operators,
)
from pipeline.evidence.presence import find_cues
from pipeline.records import PROPERTIES, SCHEMAS, table


def stripes(degrees: float, seed: int, size: int = 64) -> np.ndarray:
    """Level stripes, turned clockwise, with a shade of their own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    turn = np.deg2rad(degrees)
    waves = np.sin(2 * np.pi * (np.cos(turn) * y - np.sin(turn) * x) / rng.uniform(9, 12) + rng.uniform(0, 6))
    return np.clip(127 + 80 * waves[..., None] + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)


class Level:
    """Sees one thing: how far the stripes are turned clockwise (and how bright it is, on an axis of its own)."""

    fingerprint, has_text = "level-1", True

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        for image in images:
            luma = image.astype(float).mean(axis=2)
            down, across = np.gradient(luma)
            angle = 0.5 * np.arctan2(-2 * (across * down).mean(), (down**2 - across**2).mean())
            rows.append([np.sin(angle), luma.mean() / 255, np.cos(angle)])
        return np.array(rows, dtype=np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[1, 0, 0] if "tilted" in t else [0, 0, 0] for t in texts], dtype=np.float32)


def nothing(what: str, number: int) -> None:
    pass


@pytest.fixture(scope="module")
def tried() -> manipulation.Tried:
    pictures = [stripes(0, seed) for seed in range(8)]
    return try_operators(pictures, ["Orientation", "Lighting and Shadows"], Level().images)


WORDS = np.array([1, 0, 0], dtype=np.float32)


def test_what_tilts_is_chosen_and_its_placebo_changes_as_much_but_does_not_tilt(tried) -> None:
    chosen = choose_operator(tried, WORDS, np.zeros(8, dtype=bool), 0.1, "Orientation", "insertion")
    assert chosen["name"] == "rotate" and chosen["strength"] == 20.0 and chosen["shift"] > 1
    placebo = chosen["placebo"]["name"], chosen["placebo"]["strength"]
    assert placebo[0] not in ("rotate", "mirror", "flip")
    moved = (tried.after[placebo] - tried.before) @ WORDS / 0.1
    assert abs(moved.mean()) <= 0.5 * chosen["shift"]
    assert tried.change[placebo] >= 0.7 * tried.change["rotate", 20.0]
    for name in ("shift_x", "shift_y", "zoom"):
        for strength in LIBRARY[name].strengths:
            if tried.change[name, strength] >= tried.change["rotate", 20.0]:  # none as large is stiller
                other = (tried.after[name, strength] - tried.before) @ WORDS / 0.1
                assert abs(moved.mean()) <= abs(other.mean()) + 1e-6


def test_the_opposite_direction_takes_it_out() -> None:
    tilted = try_operators([stripes(15, seed) for seed in range(8)], ["Orientation"], Level().images)
    chosen = choose_operator(tilted, WORDS, np.ones(8, dtype=bool), 0.1, "Orientation", "removal")
    assert chosen["name"] in ("rotate", "mirror", "flip") and chosen["shift"] < -1
    assert chosen["name"] != "rotate" or chosen["strength"] < 0


@pytest.mark.parametrize(
    "cue_type, present, spread, said",
    [
        ("Lighting and Shadows", 0, 0.1, "spotlight, vignette, brightness and contrast were tried on 8 images"),
        ("Orientation", 0, 5.0, "0.5 and 2 times its uncertainty are needed"),
        ("Orientation", 6, 0.1, "only 2 of 8 images tried are without it; 4 are needed"),
    ],
)
def test_what_does_not_move_the_score_is_no_operator(
    tried, cue_type: str, present: int, spread: float, said: str
) -> None:
    chosen = choose_operator(tried, WORDS, np.arange(8) < present, spread, cue_type, "insertion")
    assert set(chosen) == {"why"} and said in chosen["why"]


def test_without_a_placebo_there_is_no_operator(tried) -> None:
    only = {key: after for key, after in tried.after.items() if key[0] in ("rotate", "mirror", "flip")}
    alone = manipulation.Tried(tried.before, only, tried.change)
    chosen = choose_operator(alone, WORDS, np.zeros(8, dtype=bool), 0.1, "Orientation", "insertion")
    assert "no placebo" in chosen["why"]


def test_what_was_chosen_is_kept_in_words_that_can_be_read_back() -> None:
    one = {"name": "red tint", "strength": -0.3, "shift": 1.25, "placebo": {"name": "blue tint", "strength": 0.15}}
    two = {"name": "zoom", "strength": 0.262364, "shift": -0.7, "placebo": {"name": "shift_x", "strength": 0.25}}
    for chosen in ({"removal": one, "insertion": two}, {"removal": {"why": "none; of 3: tried"}, "insertion": two}):
        operator, untestable = in_words(chosen)
        cue = {"operator": operator, "untestable": untestable}
        for direction, found in chosen.items():
            assert why_untestable(cue, direction) == found.get("why", "")
            assert "why" in found or operator_of(operator, direction) == found
    assert in_words({"removal": {"why": "a"}, "insertion": {"why": "b"}}) == ("", "removal: a\ninsertion: b")
    assert why_untestable({"untestable": "no detector: none"}, "removal") == "no detector: none"


def test_images_to_try_show_every_cue_and_repeat() -> None:
    scores = np.random.default_rng(0).random((60, 3))
    rows = images_to_try(scores, 24, np.random.default_rng(1))
    assert len(set(rows.tolist())) == len(rows) == 24
    assert set(scores.argmax(axis=0)) <= set(rows.tolist())
    assert (rows == images_to_try(scores, 24, np.random.default_rng(1))).all()
    assert len(images_to_try(scores[:5], 24, np.random.default_rng(1))) == 5


def cues_of(phrases: dict[str, str], cache: Path, load=True) -> tuple[dict[str, dict], Counter[str], list[str]]:
    """The rows of `cues` by name for 40 pictures, what was counted, and which pictures were read."""
    pictures = [stripes(15 if number % 4 == 0 else 0, number) for number in range(40)]
    ids = [f"i{number:02d}" for number in range(40)]
    halves = np.arange(40) < 28
    images = pa.table({"image_id": ids, **{name: np.linspace(0, 1, 40) for name in PROPERTIES}})
    named = [
        {"label": "a", "phrase": phrase, "cue_type": kind, "source": "list", "reason": "", "score": 0.0}
        for phrase, kind in phrases.items()
    ]
    vectors = pa.table({"image_id": ids, "embedding": list(Level().images(pictures))}, schema=SCHEMAS["embeddings"])
    counts: Counter[str] = Counter()
    read: list[str] = []

    def loading(rows: pa.Table) -> list[np.ndarray]:
        read.extend(rows["image_id"].to_pylist())
        return [pictures[ids.index(image_id)] for image_id in rows["image_id"].to_pylist()]

    found = find_cues(
        images, table("attributes", named), table("detections", []), vectors, table("clusters", []),
        table("assignments", []), selection=halves, has_detector=False, encoder=Level(), cache=cache,
        count=lambda what, number: counts.update({what: number}), load=loading if load else None, seed=3,
    )  # fmt: skip
    return {row["name"]: row for row in found.rows}, counts, read


def test_a_cue_in_words_has_the_operator_that_moves_it(tmp_path: Path) -> None:
    cues, counts, read = cues_of({"tilted picture": "Orientation", "odd look": "Orientation"}, tmp_path)
    tilted = cues["tilted picture"]
    assert not tilted["untestable"] and tilted["operator"].startswith("geometry:")
    assert operator_of(tilted["operator"], "insertion")["name"] == "rotate"
    assert operator_of(tilted["operator"], "removal")["shift"] < -0.5
    assert cues["odd look"]["operator"] == ""
    for direction in ("removal", "insertion"):
        assert "tried" in why_untestable(cues["odd look"], direction)
    assert len(read) == 24 and max(read) < "i28"  # of the selection half alone
    assert counts["measure"] % 24 == 0 and counts["measure"] > 0
    assert cues_of({"tilted picture": "Orientation", "odd look": "Orientation"}, tmp_path)[0] == cues


def test_nothing_is_read_where_no_phrase_needs_it(tmp_path: Path) -> None:
    cues, counts, read = cues_of({"round thing": "Shape", "beach": "Background"}, tmp_path)
    assert not read and not counts["measure"]
    assert "no detector" in cues["round thing"]["untestable"] and "no detector" in cues["beach"]["untestable"]
    cues, _, read = cues_of({"tilted picture": "Orientation"}, tmp_path, load=False)
    assert not read and cues["tilted picture"]["untestable"]


def test_a_picture_seen_before_costs_no_forward(tmp_path: Path) -> None:
    pictures = [stripes(0, seed) for seed in range(3)]
    counted: list[int] = []
    first = encode_once(pictures, Level(), tmp_path, lambda what, n: counted.append(n))
    again = encode_once([pictures[2], stripes(9, 9), pictures[0]], Level(), tmp_path, lambda what, n: counted.append(n))
    assert counted == [3, 1]
    np.testing.assert_array_equal(again[[2, 0]], first[[0, 2]])
    np.testing.assert_array_equal(first, Level().images(pictures))
