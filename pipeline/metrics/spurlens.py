"""SpurLens's gaps (Hosseini et al., arXiv 2503.08884): answers where the cue is most and least present.

PA gap: the model says Yes to an object that is there more often with the cue. HR gap: it says Yes to an
object that is not there more often with the cue. Beside both stands the matched null: what the best of as
many random orderings gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]
Answer = Literal["yes", "no", "unparsed"]

DEFAULT_K = 50

_WORDS: dict[str, Answer] = {"yes": "yes", "yeah": "yes", "yep": "yes", "no": "no", "nope": "no"}
_ANY = r"(?<![\w-])(?<!\w['’])(yes|yeah|yep|no|nope)(?![\w-])(?!['’]\w)"
# "Yes or No:" repeats the question; "no doubt" and "No. 5" are not answers
_ECHO = re.compile(r"\b(yes|no)\W{0,5}(?:or|/|\|)\W{0,5}(yes|no)\b", re.IGNORECASE)
_IDIOM = re.compile(r"\bno\s+(doubt|question|problem|wonder|idea|clue|one|longer)\b|\bno\.\s*\d", re.IGNORECASE)
_BOTH = re.compile(r"\W*(yes\W+and\W+no|no\W+and\W+yes)\b", re.IGNORECASE)
_STATED = re.compile(
    r"\banswer\b(?:\s+to\s+(?:the|this|your)\s+question)?(?:\s+(?:is|would\s+be|should\s+be))?[\W_]{1,6}" + _ANY,
    re.IGNORECASE,
)
_LEADING = re.compile(r"[\W_]*" + _ANY, re.IGNORECASE)
_ALONE = re.compile(
    r"(?:[.!?:\n][\W_]{0,8}" + _ANY + r"[\"'*_)]{0,4}\s?(?=[.,;:!\n]|$)|,\s?" + _ANY + r"[\W_]{0,8}$)",
    re.IGNORECASE,
)


def parse_answer(text: str) -> Answer:
    """A model's reply to a yes-or-no question as 'yes', 'no' or 'unparsed'.

    By words and their place, never by substring: "cannot", "None", "Not sure" and "know" are no answers. In
    order, what decides is (1) the last "the answer is ...", (2) the first word of the reply, (3) a Yes or No
    that stands alone in the text. A repeated "Yes or No" is dropped first; idioms ("No doubt ...") and
    contradictions ("yes and no") are unparsed, as is a sentence such as "There are no clouds", where the no
    belongs to something else.
    """
    text = _IDIOM.sub(" ", _ECHO.sub(" ", text)).strip()
    if _BOTH.match(text):
        return "unparsed"
    stated = _STATED.findall(text)
    if stated:
        return _WORDS[stated[-1].lower()]
    leading = _LEADING.match(text)
    if leading:
        return _WORDS[leading.group(1).lower()]
    alone = {_WORDS[word.lower()] for words in _ALONE.findall(text) for word in words if word}
    return alone.pop() if len(alone) == 1 else "unparsed"


def says_yes(answers: Iterable[str]) -> tuple[Reals, int]:
    """1.0 for each reply that says yes, else 0.0, and how many replies could not be parsed.

    As in the paper's formula, an unparsed reply doesn't say Yes; report the count beside the gap.
    """
    parsed = [parse_answer(text) for text in answers]
    return np.array([answer == "yes" for answer in parsed], dtype=np.float64), parsed.count("unparsed")


def rank_by_presence(scores: ArrayLike, rng: np.random.Generator) -> Indices:
    """Image indices by rising presence score (n,), equals in a random order drawn from `rng`.

    Most images have a score of 0, so the order of equals decides which of them make up the bottom K.
    """
    scores = np.asarray(scores, float)
    if np.isnan(scores).any():
        raise ValueError("presence scores must not be NaN")
    shuffled = rng.permutation(len(scores))
    return shuffled[np.argsort(scores[shuffled], kind="stable")]


class Gap(NamedTuple):
    """A top-K less bottom-K gap, with what is needed to judge it."""

    gap: float  # mean over prompts, in [-1, 1]; NaN where nothing can be compared
    by_prompt: Reals  # (n_prompts,)
    k: int  # images at each end; below the K asked for where there are fewer than 2 K images
    n_nonzero: int  # images with any presence; below k the top is padded with images that don't show the cue
    top: Indices  # image indices, the most present last
    bottom: Indices


def _top_less_bottom(yes: ArrayLike, scores: ArrayLike, k: int, rng: np.random.Generator) -> Gap:
    rows = np.atleast_2d(np.asarray(yes, float))
    scores = np.asarray(scores, float)
    if rows.shape[1:] != scores.shape:
        raise ValueError(f"yes has {rows.shape[1:]} images but scores {scores.shape}")
    order = rank_by_presence(scores, rng)
    k = min(k, len(order) // 2)
    bottom, top = order[:k], order[len(order) - k :]
    by_prompt = _means(rows[:, top]) - _means(rows[:, bottom])
    known = by_prompt[~np.isnan(by_prompt)]
    gap = float(known.mean()) if len(known) else float("nan")
    return Gap(gap, by_prompt, k, int((scores > 0).sum()), top, bottom)


def _means(rows: Reals) -> Reals:
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, rows, 0.0).sum(-1) / known.sum(-1)


def pa_gap(yes: ArrayLike, scores: ArrayLike, rng: np.random.Generator, k: int = DEFAULT_K) -> Gap:
    """Perception accuracy gap: PA(U+) - PA(U-) on images that hold the object (sec. 3).

    Args:
        yes: (n_prompts, n_images) or (n_images,), 1 where the reply says Yes, or the probability of Yes, or
            whether the prediction is right; NaN where nothing was asked. Prompts stay rows and are averaged
            last.
        scores: (n_images,), presence of the cue; 0 is "not seen".
        k: images at each end.
    """
    return _top_less_bottom(yes, scores, k, rng)


def hr_gap(yes: ArrayLike, scores: ArrayLike, rng: np.random.Generator, k: int = DEFAULT_K) -> Gap:
    """Hallucination rate gap: HR(V+) - HR(V-) on images without the object (sec. 3). Arguments as
    `pa_gap`.
    """
    return _top_less_bottom(yes, scores, k, rng)


def top_k_gaps(
    scores: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    n_classes: int,
    rng: np.random.Generator,
    k: int = DEFAULT_K,
    also: ArrayLike | None = None,
) -> tuple[Reals, Reals]:
    """`pa_gap` and `hr_gap` of a classifier for every (class, cue), with one sort a cue.

    Predicting the class stands for the answer Yes: on the class's own images for PA, on all others for HR.
    Equals are ordered at random, once a cue, so the classes of a cue share that order.

    Args:
        scores: (n_images, n_cues), presence.
        labels, predictions: (n_images,), class indices in [0, n_classes).
        also: (n_images, n_classes), truth values: of which classes beside its label an image is too. It has a row of
            its own for each, and is none of such a class's others.

    Returns:
        Two arrays (n_classes, n_cues); NaN where a class has fewer than two images on that side.
    """
    scores = np.asarray(scores, float)
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    n = np.bincount(labels, minlength=n_classes)
    ends = {"pa": np.minimum(k, n // 2), "hr": np.minimum(k, (len(labels) - n) // 2)}
    starts = np.concatenate([[0], np.cumsum(n)])
    pa, hr = np.full((n_classes, scores.shape[1]), np.nan), np.full((n_classes, scores.shape[1]), np.nan)
    for cue in range(scores.shape[1]):
        order = rank_by_presence(scores[:, cue], rng)
        own = _by_class(order, labels)  # and by presence within it
        # hits summed along the order, so that the sum over any end is a difference
        hits = np.concatenate([[0], np.cumsum(labels[own] == predictions[own])])
        size, first, last = ends["pa"], starts[:-1], starts[1:]
        with np.errstate(invalid="ignore"):
            pa[:, cue] = (hits[last] - hits[last - size] - hits[first + size] + hits[first]) / size
        top = _taken_at_the_end(order[::-1], labels, predictions, ends["hr"], n)
        bottom = _taken_at_the_end(order, labels, predictions, ends["hr"], n)
        with np.errstate(invalid="ignore"):
            hr[:, cue] = (top - bottom) / ends["hr"]
        for c in [] if also is None else np.flatnonzero(np.any(also, axis=0)):
            others = order[(labels[order] != c) & ~np.asarray(also, bool)[order, c]]
            most = min(k, len(others) // 2)
            taken = (predictions[others] == c).astype(float)
            hr[c, cue] = taken[len(taken) - most :].mean() - taken[:most].mean() if most else np.nan
    return pa, hr


def answered_gaps(
    scores: ArrayLike,
    labels: ArrayLike,
    yes: ArrayLike,
    rng: np.random.Generator,
    k: int = DEFAULT_K,
    also: ArrayLike | None = None,
) -> tuple[Reals, Reals]:
    """`pa_gap` and `hr_gap` of a multimodal LLM for every (class, cue); NaN as from `top_k_gaps`.

    Args:
        scores: (n_images, n_cues), presence.
        labels: (n_images,), class indices.
        yes: (n_prompts, n_images, n_classes), 1 where the answer about that class is Yes, NaN where none was asked.
        also: see `top_k_gaps`.
    """
    scores, labels, yes = np.asarray(scores, float), np.asarray(labels), np.asarray(yes, float)
    too = np.zeros((len(labels), yes.shape[2]), bool) if also is None else np.asarray(also, bool)
    shape = (yes.shape[2], scores.shape[1])
    pa, hr = np.full(shape, np.nan), np.full(shape, np.nan)
    for c in range(shape[0]):
        asked = ~np.isnan(yes[:, :, c]).all(axis=0)
        other = (labels != c) & ~too[:, c]
        for gaps, gap, members in ((pa, pa_gap, (labels == c) & asked), (hr, hr_gap, other & asked)):
            if members.sum() >= 2:
                for cue in range(shape[1]):
                    gaps[c, cue] = gap(yes[:, members, c], scores[members, cue], rng, k).gap
    return pa, hr


def _by_class(order: Indices, labels: Indices) -> Indices:
    """The images of `order` class by class, within a class as they stand there."""
    own = labels[order]
    # NumPy sorts 16 bits by their digits, ten times as fast
    narrow = own.astype(np.int16) if own.max(initial=0) < np.iinfo(np.int16).max else own
    return order[np.argsort(narrow, kind="stable")]


def _taken_at_the_end(order: Indices, labels: Indices, predictions: Indices, size: Indices, n: Indices) -> Reals:
    """(n_classes,): of the first size[c] images of `order` not of class c, how many are predicted as c."""
    # the end of class c stops after size[c] images of other classes, wherever its own images stand in the
    # order
    own = _by_class(order, labels)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    rank_in_class = np.arange(len(order)) - np.repeat(np.cumsum(n) - n, n)
    others_before = np.empty(len(order), np.int64)
    others_before[own] = place[own] - rank_in_class  # images of other classes ahead of each image
    inside = np.bincount(labels, weights=others_before < size[labels], minlength=len(n)).astype(np.int64)
    stop = size + inside
    wrong = labels != predictions
    taken = place[wrong] < stop[predictions[wrong]]
    return np.bincount(predictions[wrong], weights=taken, minlength=len(n)).astype(np.float64)


class MatchedNull(NamedTuple):
    """The best gap among as many random orderings as cues were tried, over repeated draws."""

    expected: float  # mean of the draws: what luck alone gives
    upper: float  # their 95 % quantile: a best-of-n gap below it is compatible with luck
    draws: Reals  # (n_repeats,)

    def p(self, best_gap: float) -> float:
        """Share of draws at least as large as the observed best gap, with the +1 correction."""
        return float((1 + (self.draws >= best_gap - 1e-12).sum()) / (1 + len(self.draws)))


def matched_null(
    yes: ArrayLike, n_orderings: int, rng: np.random.Generator, k: int = DEFAULT_K, n_repeats: int = 200
) -> MatchedNull:
    """Best of `n_orderings` random orderings of the same images and answers, drawn `n_repeats` times.

    Beside every best-of-n gap: with K = 50 the best of 25 cues that do nothing reaches +8 points in PA and
    +14 in HR (from the standard deviations of the authors' own random orderings).

    Args:
        yes: as for `pa_gap`.
        n_orderings: cues tried for the class.
    """
    per_image = _means(np.atleast_2d(np.asarray(yes, float)).T)
    per_image = per_image[~np.isnan(per_image)]
    k = min(k, len(per_image) // 2)
    if k == 0 or n_orderings < 1:
        return MatchedNull(float("nan"), float("nan"), np.full(n_repeats, np.nan))
    n, n_draws = len(per_image), n_repeats * n_orderings
    if np.isin(per_image, (0.0, 1.0)).all():
        ones = int(per_image.sum())
        top = rng.hypergeometric(ones, n - ones, k, size=n_draws)
        bottom = rng.hypergeometric(ones - top, n - ones - (k - top), k)
        draws = (top - bottom) / k
    else:
        draws = np.empty(n_draws)
        for i in range(n_draws):
            chosen = per_image[rng.choice(n, 2 * k, replace=False)]
            draws[i] = chosen[:k].mean() - chosen[k:].mean()
    best = draws.reshape(n_repeats, n_orderings).max(axis=1)
    return MatchedNull(float(best.mean()), float(np.quantile(best, 0.95)), best)


def expected_by_luck(yes: int, n: int, n_orderings: int, k: int = DEFAULT_K) -> float:
    """The mean of :func:`matched_null` for answers of one prompt, without drawing: NaN where nothing can be compared.

    The Yes at the top and at the bottom of a random ordering are drawn without replacement, so their difference has a
    distribution in closed form (hypergeometric, twice); the best of many has its power.

    Args:
        yes: how many of the n answers are Yes. n_orderings: cues tried for the class.
    """
    k = min(k, n // 2)
    if k == 0 or n_orderings < 1:
        return float("nan")
    counts = np.arange(k + 1)
    top, bottom = counts[:, None], counts[None, :]
    with np.errstate(invalid="ignore"):
        logs = (
            _log_choose(yes, top) + _log_choose(n - yes, k - top) - _log_choose(n, np.array(k))
            + _log_choose(yes - top, bottom) + _log_choose(n - yes - (k - top), k - bottom)
            - _log_choose(n - k, np.array(k))
        )  # fmt: skip
    chances = np.where(np.isnan(logs), 0.0, np.exp(logs))
    of_difference = np.bincount((top - bottom + k).ravel(), weights=chances.ravel(), minlength=2 * k + 1)
    at_most = np.minimum(np.cumsum(of_difference), 1.0) ** n_orderings
    return float(np.diff(at_most, prepend=0.0) @ np.arange(-k, k + 1) / k)


def _log_choose(n: ArrayLike, k: ArrayLike) -> Reals:
    """The logarithm of a binomial coefficient; -inf where it is 0."""
    n, k = np.broadcast_arrays(np.asarray(n, float), np.asarray(k, float))
    found = gammaln(np.maximum(n, 0) + 1) - gammaln(np.maximum(k, 0) + 1) - gammaln(np.maximum(n - k, 0) + 1)
    return np.where((k < 0) | (k > n), -np.inf, found)


def expected_best_of(n: int, sd: float) -> float:
    """The winner's curse: mean of the largest of n independent normal gaps, mean 0, deviation `sd`."""
    from scipy import integrate, stats  # here, for their import takes longer than most commands

    if n < 1:
        return float("nan")
    integrand = lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1)  # noqa: E731
    return sd * integrate.quad(integrand, -10, 10)[0]


class SpuriousGap(NamedTuple):
    """The data set's gap: the best cue of each class, averaged over classes of equal weight."""

    macro: float
    by_class: Reals  # (n_classes,), NaN for a class without cues
    best: Indices  # (n_classes,), index of the best cue, -1 without


def spurious_gap(gaps: Sequence[ArrayLike]) -> SpuriousGap:
    """Best gap of each class (a sequence of one array of cue gaps a class), and their mean over classes.

    A class without a measured cue is left out of the mean. Always show it beside the mean of the classes'
    matched
    nulls: it is a mean of maxima.
    """
    best = np.full(len(gaps), -1)
    by_class = np.full(len(gaps), np.nan)
    for index, values in enumerate(gaps):
        row = np.asarray(values, float)
        if row.size and not np.isnan(row).all():
            best[index] = int(np.nanargmax(row))
            by_class[index] = row[best[index]]
    known = by_class[~np.isnan(by_class)]
    return SpuriousGap(float(known.mean()) if len(known) else float("nan"), by_class, best)
