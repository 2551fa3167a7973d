"""Association and observed gaps of all pairs at once, against the definition, pair by pair."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.metrics.association import answered_gaps, association, count, cramers_v, group_weights, observed_gaps
from pipeline.metrics.spurlens import top_k_gaps
from pipeline.metrics.tests import false_discovery


def world(seed, n=120, n_classes=4, n_cues=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    predictions = np.where(rng.random(n) < 0.7, labels, rng.integers(0, n_classes, n))
    return rng.random((n, n_cues)) < 0.4, labels, predictions, n_classes


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_every_pair_equals_its_definition(seed):
    presence, labels, predictions, n_classes = world(seed, n=40)
    gaps = observed_gaps(presence, labels, predictions, n_classes)
    for c in range(n_classes):
        own = labels == c
        for q in range(presence.shape[1]):
            cue = presence[:, q]
            table = [[np.sum(own & cue), np.sum(own & ~cue)], [np.sum(~own & cue), np.sum(~own & ~cue)]]
            np.testing.assert_array_equal(gaps.counts.table[c, q], table)
            for interval, members in ((gaps.presence_accuracy, own), (gaps.hallucination, ~own)):
                sides = [predictions[members & side] == c for side in (cue, ~cue)]
                expected = sides[0].mean() - sides[1].mean() if all(map(len, sides)) else np.nan
                np.testing.assert_allclose(interval.estimate[c, q], expected)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_an_image_of_two_classes_is_no_other_image_of_either(seed):
    presence, labels, predictions, n_classes = world(seed, n=60)
    rng = np.random.default_rng(seed)
    also = rng.random((60, n_classes)) < 0.2
    also[np.arange(60), labels] = False
    weights = rng.integers(1, 4, 60)
    gaps = observed_gaps(presence, labels, predictions, n_classes, weights, also=also)
    said = answered_gaps(presence, labels, np.eye(n_classes)[predictions], weights, also=also)
    np.testing.assert_allclose(said.hallucination.estimate, gaps.hallucination.estimate)
    np.testing.assert_allclose(said.counts.table, gaps.counts.table)
    for c in range(n_classes):
        own, other = labels == c, (labels != c) & ~also[:, c]
        for q in range(presence.shape[1]):
            cue = presence[:, q]
            table = [[weights[rows & side].sum() for side in (cue, ~cue)] for rows in (own, other)]
            np.testing.assert_allclose(gaps.counts.table[c, q], table)
            sides = [other & cue, other & ~cue]
            if all(weights[side].sum() for side in sides):
                shares = [np.average(predictions[side] == c, weights=weights[side]) for side in sides]
                np.testing.assert_allclose(gaps.hallucination.estimate[c, q], shares[0] - shares[1], atol=1e-12)


@given(st.integers(0, 10_000), st.permutations(range(4)))
@settings(max_examples=25)
def test_order_of_labels_changes_nothing(seed, order):
    presence, labels, predictions, n_classes = world(seed, n=50)
    order = np.array(order)
    plain = observed_gaps(presence, labels, predictions, n_classes)
    renamed = observed_gaps(presence, order[labels], order[predictions], n_classes)
    np.testing.assert_allclose(renamed.hallucination.lower[order], plain.hallucination.lower)
    np.testing.assert_allclose(association(renamed.counts).estimate[order], association(plain.counts).estimate)


def test_duplicated_images_change_nothing_when_grouped():
    presence, labels, predictions, n_classes = world(1)
    rows = np.concatenate([np.arange(120), np.repeat(np.arange(10), 20)])
    plain = observed_gaps(presence, labels, predictions, n_classes)
    swollen = observed_gaps(presence[rows], labels[rows], predictions[rows], n_classes, group_weights(rows))
    np.testing.assert_allclose(swollen.presence_accuracy, plain.presence_accuracy, atol=1e-9)
    np.testing.assert_allclose(association(swollen.counts), association(plain.counts), atol=1e-9)


def test_imbalanced_classes_alone_create_no_finding():
    rng = np.random.default_rng(2)
    labels = rng.choice(5, size=4000, p=[0.9, 0.04, 0.03, 0.02, 0.01])
    predictions = np.where(rng.random(4000) < 0.8, labels, 0)  # errors all go to the majority class
    presence = rng.random((4000, 200)) < 0.2
    gaps = observed_gaps(presence, labels, predictions, 5)
    for interval in (association(gaps.counts), gaps.presence_accuracy, gaps.hallucination):
        outside = (interval.lower > 0) | (interval.upper < 0)
        assert outside.mean(axis=1).max() <= 0.1  # each class: about 5 % of intervals, none favoured
    tables = gaps.counts.table.reshape(-1, 2, 2)
    p = [stats.chi2_contingency(table).pvalue for table in tables]
    assert (false_discovery(p) < 0.05).sum() == 0


def test_a_planted_association_is_seen():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 600)
    presence = (rng.random((600, 2)) < 0.1) | ((labels == 1)[:, None] & np.array([True, False]))
    result = association(count(presence, labels, 3))
    assert result.lower[1, 0] > 3
    assert (np.abs(result.estimate[:, 1]) < 1).all()


def test_empty_class_and_constant_cue_are_not_measured():
    presence = np.array([[1, 1], [0, 1], [1, 1]], bool)
    gaps = observed_gaps(presence, [0, 0, 2], [0, 2, 2], 3)
    assert np.isnan(gaps.presence_accuracy.estimate[1]).all()
    assert np.isnan(association(gaps.counts).estimate[1]).all()
    assert np.isnan(association(gaps.counts).estimate[:, 1]).all()
    assert gaps.presence_accuracy.estimate[0, 0] == 1.0


@pytest.mark.parametrize("n", [0, 1])
def test_no_image_or_one(n):
    gaps = observed_gaps(np.ones((n, 2), bool), np.zeros(n, int), np.zeros(n, int), 2)
    assert gaps.counts.class_with[0].tolist() == [n, n]
    assert np.isnan(gaps.presence_accuracy.estimate).all()


def test_indices_out_of_range_are_refused():
    with pytest.raises(ValueError, match="labels"):
        count(np.ones((2, 1), bool), [0, 3], 3)
    with pytest.raises(ValueError, match="predictions"):
        observed_gaps(np.ones((2, 1), bool), [0, 1], [0, 2], 2)


@given(st.lists(st.integers(1, 40), min_size=6, max_size=6))
def test_cramers_v_agrees_with_scipy(cells):
    for table in (np.reshape(cells, (2, 3)), np.reshape(cells[:4], (2, 2))):
        expected = stats.contingency.association(table, method="cramer")
        assert cramers_v(table) == pytest.approx(expected, abs=1e-9)


def test_cramers_v_at_its_ends():
    np.testing.assert_allclose(cramers_v([[[5, 0], [0, 9]], [[4, 4], [6, 6]]]), [1.0, 0.0], atol=1e-9)
    assert np.isnan(cramers_v([[5, 0], [7, 0]]))


@pytest.mark.slow
def test_all_pairs_of_a_large_data_set_take_seconds():
    rng = np.random.default_rng(0)
    n, n_classes, n_cues = 100_000, 1000, 300
    scores = np.maximum(rng.random((n, n_cues), np.float32) - 0.9, 0)
    labels, predictions = rng.integers(0, n_classes, (2, n))
    start = time.process_time()  # of this process: other work on the machine is no fault of the code
    gaps = observed_gaps(scores > 0, labels, predictions, n_classes)
    association(gaps.counts)
    cramers_v(gaps.counts.table)
    top_k_gaps(scores, labels, predictions, n_classes, rng)
    assert time.process_time() - start < 60


def test_answers_about_each_class_give_the_gaps_of_a_classifier_where_they_are_its_predictions() -> None:
    rng = np.random.default_rng(3)
    n, n_classes = 200, 4
    labels, predicted = rng.integers(0, n_classes, n), rng.integers(0, n_classes, n)
    cues, weights = rng.random((n, 6)) < 0.4, rng.random(n)
    said = np.eye(n_classes)[predicted]
    expected = observed_gaps(cues, labels, predicted, n_classes, weights)
    found = answered_gaps(cues, labels, said, weights)
    for name in ("presence_accuracy", "hallucination"):
        for part in ("estimate", "lower", "upper"):
            np.testing.assert_allclose(getattr(getattr(found, name), part), getattr(getattr(expected, name), part))
    np.testing.assert_allclose(found.counts.table, expected.counts.table)


def test_yes_to_several_classes_and_questions_not_asked() -> None:
    labels, cue = np.array([0, 0, 0, 1, 1]), np.array([[1], [1], [0], [1], [0]], dtype=bool)
    yes = np.array([[1, 1], [np.nan, 1], [0, 0], [1, 1], [0, 1]], dtype=float)
    gaps = answered_gaps(cue, labels, yes)
    # class 0: its asked images are the first (with, Yes) and the third (without, No); of class 1 with and without
    np.testing.assert_allclose(gaps.presence_accuracy.estimate[:, 0], [1.0, 0.0])
    np.testing.assert_allclose(gaps.hallucination.estimate[:, 0], [1.0, 1.0])
    assert gaps.counts.class_with[0, 0] == 2, "association is about all images"
