"""Which outputs of a classifier count for which class."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.labels import Labels, match, named

OUTPUTS = [("n01", "tabby, tabby cat"), ("n02", "beagle"), ("n03", "pug, pug-dog"), ("n04", "crane"), ("n05", "crane")]


def test_names_are_found_whatever_their_case_and_signs() -> None:
    assert match(["Tabby Cat", "pug_dog", "n02"], OUTPUTS, {}).outputs == ((0,), (2,), (1,))


def test_several_labels_may_count_for_one_class_and_their_probabilities_add_up() -> None:
    found = match(["cat", "dog"], OUTPUTS, {"dog": ["beagle", "n03"], "cat": "tabby"})
    assert found.outputs == ((0,), (1, 2))
    raw = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    probability = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    mine = np.exp(found.logits(raw))
    expected = np.stack([probability[:, 0], probability[:, 1] + probability[:, 2]], axis=1)
    np.testing.assert_allclose(
        mine / mine.sum(axis=1, keepdims=True), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_two_outputs_of_one_name_are_told_apart_by_number() -> None:
    with pytest.raises(UserError, match=r"more than one output is called 'crane' \(3 and 4\)"):
        match(["crane"], OUTPUTS, {})
    assert match(["crane"], OUTPUTS, {"crane": 4}).outputs == ((4,),)


@pytest.mark.parametrize(
    ("classes", "mapping", "words"),
    [
        (["beagel"], {}, ["the class 'beagel' is none of the model's 5 labels", "Did you mean 'beagle'", "mapping"]),
        (["beagle"], {"begle": "pug"}, ["mapping names 'begle'", "Did you mean 'beagle'"]),
        (["dog"], {"dog": ["beagle", "pugg"]}, ["'pugg', which mapping lists for 'dog'", "Did you mean 'pug"]),
        (["dog", "pug"], {"dog": ["beagle", "pug"]}, ["'n03' would count for the classes 'dog' and 'pug'"]),
        (["dog"], {"dog": []}, ["no label for the class 'dog'"]),
        (["dog"], {"dog": 5}, ["the output 5", "0 to 4"]),
    ],
)
def test_mistakes_are_said_plainly(classes, mapping, words) -> None:
    with pytest.raises(UserError) as caught:
        match(classes, OUTPUTS, mapping)
    for word in words:
        assert word in str(caught.value)


def test_outputs_that_nobody_names_or_that_do_not_fit_are_said_plainly() -> None:
    with pytest.raises(UserError, match=r"doesn't name its 7 outputs.*'labels'"):
        named([], None, 7)
    with pytest.raises(UserError, match="has 7 outputs, but 'labels' lists 2"):
        named(["a", "b"], None, 7)
    assert named(["a", "b"], OUTPUTS[:2], 2) == [("a",), ("b",)]


def test_overflow_is_no_answer() -> None:
    with pytest.raises(UserError, match="precision: fp32"):
        Labels(((0,), (1,))).logits(np.array([[np.inf, 0.0]], np.float32))
