"""One name for what means the same, by spelling or by a text encoder."""

from __future__ import annotations

import numpy as np

from pipeline.evidence.synonyms import one_name_each

THING, SCENE, LIGHT = "Co-occurring Objects", "Background", "Lighting and Shadows"
WORDS = {
    "boat": THING,
    "ocean": SCENE,
    "sea": SCENE,
    "dark lighting": LIGHT,
    "dark image": LIGHT,
    "water": THING,
    "dog": THING,
    "cat": THING,
    "tree": THING,
}


def vectors(*same: tuple[str, str]) -> np.ndarray:
    """Unit vectors with a large common part, independent but for these pairs."""
    rng = np.random.default_rng(0)
    own = {name: rng.normal(size=64) for name in WORDS}
    for a, b in same:
        own[b] = own[a] + 0.05 * rng.normal(size=64)
    rows = np.array([own[name] for name in WORDS]) + 20.0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def changed(stands: dict[str, str]) -> dict[str, str]:
    return {name: other for name, other in stands.items() if name != other}


def test_spelling_alone_where_there_is_no_encoder() -> None:
    assert changed(one_name_each({"Buoys": THING, "a buoy": THING, "sea": SCENE, "ocean": SCENE})) == {
        "a buoy": "Buoys"
    }


def test_what_the_encoder_takes_for_the_same_gets_the_first_name() -> None:
    found = one_name_each(WORDS, vectors(("ocean", "sea"), ("dog", "cat")))
    assert changed(found) == {"sea": "ocean", "cat": "dog"}
    assert changed(one_name_each(WORDS, vectors())) == {}, "the common part of all phrases makes none the same"


def test_a_measured_property_comes_first_and_things_never_become_scenes() -> None:
    found = one_name_each(WORDS, vectors(("dark lighting", "dark image"), ("ocean", "water")))
    assert changed(found) == {"dark lighting": "dark image"}
