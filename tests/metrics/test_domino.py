"""Error-aware slices: a planted group of errors comes out first, and the mixture behaves as a mixture."""

import numpy as np
import pytest

from pipeline.metrics.domino import find_slices


def world(seed=0, n=600, n_classes=2, d=6):
    """Two looks; among those of the second, label 1 is taken for 0."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    odd = rng.random(n) < 0.15
    embeddings = rng.normal(size=(n, d)) + 5 * odd[:, None] * np.eye(d)[0]
    predicted = np.where(odd & (labels == 1), 0, labels)
    return embeddings, labels, np.eye(n_classes)[predicted], odd & (labels == 1)


@pytest.mark.parametrize(("n_classes", "n_components"), [(2, 25), (3, 8)])  # more components than cells, and fewer
def test_the_planted_errors_are_the_first_slice(n_classes, n_components):
    embeddings, labels, probabilities, planted = world(n_classes=n_classes)
    slices = find_slices(embeddings, labels, probabilities, np.random.default_rng(0), n_components=n_components)
    inside = slices.membership[:, 0] > 0.5
    assert slices.error[0] > 0.9
    assert inside.any() and planted[inside].mean() > 0.9


def test_slices_are_probabilities_and_sorted():
    embeddings, labels, probabilities, _ = world(1)
    slices = find_slices(embeddings, labels, probabilities, np.random.default_rng(0), n_slices=25)
    np.testing.assert_allclose(slices.membership.sum(axis=1), 1.0)
    assert (np.diff(slices.error) <= 0).all()
    kept = slices.membership.sum(axis=0) > 1e-6
    np.testing.assert_allclose(slices.label_shares[kept].sum(axis=1), 1.0, atol=1e-6)


def test_the_seed_decides():
    args = world(2)[:3]
    one, two = (find_slices(*args, np.random.default_rng(7)).membership for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_classes_renamed_give_the_same_slices():
    embeddings, labels, probabilities, _ = world(3)
    converge = {"tolerance": 1e-10, "max_iterations": 3000}
    flipped = (embeddings, 1 - labels, probabilities[:, ::-1])
    plain = find_slices(embeddings, labels, probabilities, np.random.default_rng(0), n_components=4, **converge)
    renamed = find_slices(*flipped, np.random.default_rng(0), n_components=4, **converge)
    np.testing.assert_allclose(plain.membership[:, 0], renamed.membership[:, 0], atol=1e-3)
    np.testing.assert_allclose(plain.label_shares[0], renamed.label_shares[0, ::-1], atol=1e-3)


def test_many_classes_and_few_images():
    rng = np.random.default_rng(0)
    slices = find_slices(rng.normal(size=(4, 3)), [0, 1, 2, 9], np.full((4, 10), 0.1), rng)
    assert slices.membership.shape == (4, 4)
    assert np.isfinite(slices.membership).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="don't fit"):
        find_slices(np.ones((3, 2)), [0, 1], np.ones((3, 2)), np.random.default_rng(0))
