"""Spread over subgroups, common against counter groups, and Bias-to-Text's keyword scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics import b2t, subgroups


def groups_of(rows):
    """rows: (label, subgroup, right, n)."""
    labels = np.concatenate([[label] * n for label, _, _, n in rows])
    values = np.concatenate([[group] * n for _, group, _, n in rows])
    correct = np.concatenate([np.arange(n) < right for _, _, right, n in rows])
    return correct, labels, values


def test_macro_std_by_hand():
    # class 0: 0.9 (30 images) and 0.5 (10): mean 0.8, sqrt(0.75 * 0.01 + 0.25 * 0.09) = sqrt(0.03); class 1:
    # equal
    correct, labels, values = groups_of([(0, 0, 27, 30), (0, 1, 5, 10), (1, 0, 10, 20), (1, 1, 5, 10)])
    result = subgroups.macro_std(subgroups.subgroup_accuracy(correct, labels, values, 3, 2))
    np.testing.assert_allclose(result.by_class, [np.sqrt(0.03), 0.0, np.nan], atol=1e-12)
    assert result.macro == pytest.approx(np.sqrt(0.03) / 2)


@given(st.integers(0, 1000), st.permutations(range(3)), st.permutations(range(4)))
def test_names_and_copies_change_no_spread(seed, label_order, group_order):
    rng = np.random.default_rng(seed)
    labels, values, correct = rng.integers(0, 3, 60), rng.integers(0, 4, 60), rng.random(60) < 0.7
    plain = subgroups.macro_std(subgroups.subgroup_accuracy(correct, labels, values, 3, 4))
    renamed = subgroups.subgroup_accuracy(
        np.tile(correct, 3),
        np.tile(np.array(label_order)[labels], 3),
        np.tile(np.array(group_order)[values], 3),
        3,
        4,
    )
    assert subgroups.macro_std(renamed).macro == pytest.approx(plain.macro)


def test_common_counter_drop():
    correct, labels, common = groups_of([(0, 1, 56, 70), (0, 0, 48, 80), (1, 1, 5, 5)])
    drop = subgroups.common_counter_drop(correct, labels, common, 2)
    assert [part[0] for part in drop.by_class] == pytest.approx([0.2, 0.0524, 0.3339], abs=5e-5)
    assert np.isnan(drop.by_class.estimate[1])
    assert drop.macro == pytest.approx(0.2)


def test_worst_group():
    correct, labels, values = groups_of([(0, 0, 9, 10), (0, 1, 0, 1), (1, 1, 4, 10), (1, 0, 2, 5)])
    table = subgroups.subgroup_accuracy(correct, labels, values, 2, 3)
    assert subgroups.worst_group_accuracy(table) == (0.0, 0, 1, 1)
    assert subgroups.worst_group_accuracy(table, minimum_size=5) == (0.4, 1, 1, 10)
    assert subgroups.worst_group_accuracy(table, minimum_size=50).label == -1


def test_clip_score_by_hand():
    images = np.array([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    keywords = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    scores = b2t.clip_score(images, keywords, [True, True, False, False])
    np.testing.assert_allclose(scores, [1.0, -1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(b2t.clip_score(images, keywords, [False, False, True, True]), -scores, atol=1e-12)


@pytest.mark.parametrize("wrong", [[True, True], [False, False]])
def test_clip_score_needs_right_and_wrong_images(wrong):
    assert np.isnan(b2t.clip_score(np.eye(2), np.eye(2), wrong)).all()


def test_clip_score_ignores_how_many_images_are_wrong():
    rng = np.random.default_rng(0)
    images, keywords = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    wrong = np.array([1, 1, 0, 0, 0, 0], bool)
    more = np.concatenate([images, *[images[:2]] * 9])
    swollen = b2t.clip_score(more, keywords, np.concatenate([wrong, np.ones(18, bool)]))
    np.testing.assert_allclose(b2t.clip_score(images, keywords, wrong), swollen)


def test_keyword_accuracy():
    mentions = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    np.testing.assert_allclose(b2t.keyword_accuracy(mentions, [True, False, False]), [0.5, 0.0, np.nan])
