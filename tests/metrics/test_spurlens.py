"""SpurLens's gaps, the reading of answers, and what luck alone reaches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import spurlens


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("YES!", "yes"),
        ("**Yes**, there is a boat.", "yes"),
        ("'Yes'", "yes"),
        ("Yes, there is a boat. No people are visible.", "yes"),
        ("Yeah", "yes"),
        ("\n yes\n", "yes"),
        ("No", "no"),
        ("no, I cannot see one", "no"),
        ("Nope.", "no"),
        ("No boat is visible.", "no"),
        ("“No”", "no"),
        ("The answer is: **no**.", "no"),
        ("Step 1. I see water.\nStep 2. No mast.\nSo the answer is yes.", "yes"),
        ("The answer is yes. Wait, the answer is no.", "no"),
        ("Is there a boat? Yes.", "yes"),
        ("Yes or No: No", "no"),
        ("Yes/No? Yes", "yes"),
        ("After a close look, no.", "no"),
        ("No doubt: yes", "yes"),
        ("Not", "unparsed"),
        ("None", "unparsed"),
        ("cannot", "unparsed"),
        ("I cannot tell.", "unparsed"),
        ("Not sure", "unparsed"),
        ("Nothing there", "unparsed"),
        ("I know it", "unparsed"),
        ("Norway", "unparsed"),
        ("Yesterday", "unparsed"),
        ("eyes", "unparsed"),
        ("", "unparsed"),
        ("Yes and no.", "unparsed"),
        ("There are no clouds in the picture.", "unparsed"),
        ("No one is there", "unparsed"),
        ("no-one", "unparsed"),
        ("No idea", "unparsed"),
        ("Perhaps. Yes. No.", "unparsed"),
        ("No. 5 is the boat", "unparsed"),
    ],
)
def test_answers(text, answer):
    assert spurlens.parse_answer(text) == answer


@given(st.text(alphabet="notknwaeyscv' .", max_size=30))
def test_without_the_words_there_is_no_answer(text):
    words = {word.strip(".'") for word in text.lower().split()}
    if not words & {"yes", "no", "yeah", "yep", "nope"} and "yes" not in text and "no" not in text:
        assert spurlens.parse_answer(text) == "unparsed"


def test_a_hostile_answer_costs_no_time():
    for text in ("." * 100_000, "yes or " * 20_000 + "x", "\n \n" * 50_000, "answer is " * 20_000):
        spurlens.parse_answer(text)


def test_says_yes_counts_the_unparsed():
    yes, unparsed = spurlens.says_yes(["Yes.", "No.", "I cannot tell"])
    assert yes.tolist() == [1.0, 0.0, 0.0]
    assert unparsed == 1


def test_ties_are_broken_by_the_seed_and_nothing_else():
    scores = np.zeros(50)
    scores[7] = 1.0
    first = spurlens.rank_by_presence(scores, np.random.default_rng(0))
    assert first.tolist() == spurlens.rank_by_presence(scores, np.random.default_rng(0)).tolist()
    assert first.tolist() != spurlens.rank_by_presence(scores, np.random.default_rng(1)).tolist()
    assert first[-1] == 7 and sorted(first) == list(range(50))


def test_gap_by_hand_with_prompts_averaged_late():
    scores = np.array([0.9, 0.8, 0.1, 0.0, 0.5])
    yes = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 1, 1], [1, np.nan, 1, 1, 0]])
    result = spurlens.pa_gap(yes, scores, np.random.default_rng(0), k=2)
    assert result.by_prompt.tolist() == [1.0, 0.0, 0.0]
    assert result.gap == pytest.approx(1 / 3)
    assert (result.k, result.n_nonzero) == (2, 4)
    assert sorted(result.top) == [0, 1] and sorted(result.bottom) == [2, 3]
    assert spurlens.hr_gap(yes, scores, np.random.default_rng(0), k=2).gap == result.gap


@pytest.mark.parametrize("n", [0, 1])
def test_one_image_has_no_gap(n):
    result = spurlens.pa_gap(np.ones(n), np.ones(n), np.random.default_rng(0))
    assert result.k == 0 and np.isnan(result.gap)
    assert np.isnan(spurlens.matched_null(np.ones(n), 5, np.random.default_rng(0)).expected)


def test_ends_never_overlap():
    result = spurlens.pa_gap(np.ones(11), np.arange(11), np.random.default_rng(0), k=50)
    assert result.k == 5 and not set(result.top) & set(result.bottom)


@given(st.integers(0, 10_000), st.integers(1, 30))
@settings(max_examples=30)
def test_all_pairs_at_once_equal_one_at_a_time(seed, k):
    rng = np.random.default_rng(seed)
    n, n_classes, n_cues = 60, 4, 3
    labels, predictions = rng.integers(0, n_classes, (2, n))
    scores = rng.permuted(np.tile(np.arange(n), (n_cues, 1)), axis=1).T  # no ties: the seed plays no part
    pa, hr = spurlens.top_k_gaps(scores, labels, predictions, n_classes, rng, k)
    for c in range(n_classes):
        own = labels == c
        for cue in range(n_cues):
            for found, members, gap in ((pa, own, spurlens.pa_gap), (hr, ~own, spurlens.hr_gap)):
                one = gap(predictions[members] == c, scores[members, cue], rng, k).gap
                np.testing.assert_allclose(found[c, cue], one)


# Random orderings of the authors' notebooks (K = 50, 3 prompts): sd 4.0 points in PA, 7.1 in HR
@pytest.mark.parametrize(("n", "sd", "best"), [(25, 4.0, 7.9), (25, 7.1, 13.9), (64, 4.0, 9.5), (64, 7.1, 16.6)])
def test_winners_curse(n, sd, best):
    assert spurlens.expected_best_of(n, sd) == pytest.approx(best, abs=0.15)


@pytest.mark.parametrize("n_prompts", [1, 3])
def test_matched_null_is_the_winners_curse_of_these_images(n_prompts):
    rng = np.random.default_rng(0)
    yes = (rng.random((n_prompts, 3000)) < 0.5).astype(float)
    sd = np.sqrt(2 * yes.mean(0).var() / 50)
    null = spurlens.matched_null(yes, 25, rng, k=50, n_repeats=300)
    assert null.expected == pytest.approx(spurlens.expected_best_of(25, sd), rel=0.06)
    assert null.expected < null.upper
    assert null.p(10.0) == pytest.approx(1 / 301) and null.p(-1.0) == 1.0


@pytest.mark.parametrize(
    ("ones", "n", "orderings", "k"), [(30, 100, 25, 50), (3, 5000, 300, 50), (9, 10, 4, 3), (0, 8, 9, 2)]
)
def test_luck_by_its_distribution_is_luck_by_drawing(ones, n, orderings, k):
    yes = (np.arange(n) < ones).astype(float)
    drawn = spurlens.matched_null(yes, orderings, np.random.default_rng(0), k, n_repeats=4000).draws
    error = drawn.std() / np.sqrt(len(drawn))
    assert spurlens.expected_by_luck(ones, n, orderings, k) == pytest.approx(drawn.mean(), abs=4 * error + 1e-12)


def test_luck_of_one_ordering_is_none_and_of_nothing_unknown():
    assert spurlens.expected_by_luck(7, 20, 1) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(spurlens.expected_by_luck(1, 1, 5)) and np.isnan(spurlens.expected_by_luck(3, 9, 0))


def test_best_of_many_useless_cues_is_not_beyond_its_null():
    rng = np.random.default_rng(1)
    p = []
    for _ in range(60):
        yes = (rng.random(300) < 0.4).astype(float)
        best = max(spurlens.hr_gap(yes, rng.random(300), rng).gap for _ in range(15))
        p.append(spurlens.matched_null(yes, 15, rng, n_repeats=99).p(best))
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert 0.35 < np.mean(p) < 0.65


def test_spurious_gap_weighs_classes_alike():
    result = spurlens.spurious_gap([[0.1, 0.5], [np.nan, 0.2, 0.1], [], [np.nan]])
    assert result.best.tolist() == [1, 1, -1, -1]
    assert result.macro == pytest.approx(0.35)


def test_answers_about_each_class_give_the_gaps_of_pa_and_hr_with_prompts_averaged_last():
    rng = np.random.default_rng(5)
    n, n_prompts, n_classes = 60, 3, 2
    labels, scores = rng.integers(0, n_classes, n), rng.random((n, 2))  # no ties: the order is the scores'
    yes = (rng.random((n_prompts, n, n_classes)) < scores[:, 0][None, :, None]).astype(float)
    yes[:, 0, :] = np.nan  # not asked
    pa, hr = spurlens.answered_gaps(scores, labels, yes, rng, k=10)
    for c in range(n_classes):
        for found, members in ((pa, labels == c), (hr, labels != c)):
            kept = [i for i in np.argsort(scores[:, 0]) if members[i] and i != 0]
            expected = yes[:, kept[-10:], c].mean() - yes[:, kept[:10], c].mean()
            assert found[c, 0] == pytest.approx(expected)
    assert pa[:, 0].min() > 0.2
