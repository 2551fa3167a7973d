"""The proposer without a language model: phrases that a class's captions hold more often than the others'.

The measure is the weighted log-odds-ratio with an informative Dirichlet prior of Monroe, Colaresi and Quinn,
"Fightin' Words" (Political Analysis 16, 2008), eq. 16-22, over document frequencies: a caption either holds a
phrase or not, so that a captioner that repeats itself doesn't count twice.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.models import words as w
from pipeline.models.fingerprints import of_options
from pipeline.models.protocols import Attribute, Proposals
from pipeline.places import Place

VERSION = 1
PRIOR_CAPTIONS = 10.0
"""Weight of the prior, in captions that hold each phrase as often as the whole collection does."""
SUBSUMED = 0.8
"""A longer phrase that has this share of the shorter one's captions takes its place."""

_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<!\w)'[^'\n]{1,80}'(?!\w)")
_CLAUSE = re.compile(r"[.,;:!?()\[\]\n]+|\s[-–—]+\s")


def log_odds(with_a: float, n_a: int, with_b: float, n_b: int, prior: float = PRIOR_CAPTIONS) -> tuple[float, float]:
    """(delta, z) of a phrase held by `with_a` of `n_a` captions of a class and `with_b` of `n_b` others.

    delta is Monroe et al. eq. 16, z its eq. 22: delta / sqrt(variance). The prior's `alpha` for the phrase is
    `prior` times the phrase's share in all captions. The variance keeps the terms of the captions without the
    phrase, which the paper drops because no word fills a corpus; a phrase may well be in every caption.
    """
    alpha = prior * (with_a + with_b) / (n_a + n_b)
    a, not_a = with_a + alpha, n_a - with_a + prior - alpha
    b, not_b = with_b + alpha, n_b - with_b + prior - alpha
    if min(a, not_a, b, not_b) <= 0:
        return 0.0, 0.0  # in no caption, or in every one: no contrast
    delta = math.log(a / not_a) - math.log(b / not_b)
    return delta, delta / math.sqrt(1 / a + 1 / not_a + 1 / b + 1 / not_b)


@functools.lru_cache(maxsize=50_000)
def phrases(caption: str, class_name: str) -> tuple[tuple[str, str], ...]:
    """The phrases of a caption, each once, with the type that its place in the sentence speaks for, or "".

    1-3 words inside a clause, neither starting nor ending with a stop word; "of" may stand inside. Words for
    the whole image become one phrase each ("dimly lit" and "dark" are "dark lighting"); a colour or size
    before a noun is dropped, unless the noun is the class itself: then it is an attribute of its own.
    """
    found: dict[str, str] = {}
    own = {w.lemma(word) for word in w.tokens(class_name)} - w.GRAMMAR
    for clause in _CLAUSE.split(_QUOTED.sub(" ", caption)):
        words = w.tokens(clause)
        used = [False] * len(words)
        for phrase, kind, start, stop in _whole_image(words, own):
            found.setdefault(phrase, kind)
            used[start:stop] = [True] * (stop - start)
        for start, stop in _spans(words, used):
            phrase = w.normalise(" ".join(words[start:stop]))
            vote = _place(words, start, stop)
            found[phrase] = found.get(phrase) or vote
    return tuple(sorted(found.items()))


def _whole_image(words: list[str], own: set[str]) -> Iterator[tuple[str, str, int, int]]:
    """(phrase, type, start, stop) of each expression for the whole image or for the looks of the class."""
    for i, word in enumerate(words):
        # "a tilted dark photo": what an adjective describes comes after its fellows
        after = next((other for other in words[i + 1 :] if other not in w.ADJECTIVES and other not in w.COLORS), "")
        describes_class = w.lemma(after) in own if after else False
        if word in w.COLORS:
            j = i + 1 + (after == "color")
            if j < len(words) and words[j] in w.TINTS:
                yield f"{word} tint", "Colorization", i, j + 1
                continue
            while j + 1 < len(words) and words[j] == "and" and words[j + 1] in w.COLORS:
                j += 2
            alone = j >= len(words) or words[j] in w.STOP_WORDS
            a_fruit = word == "orange" and i > 0 and words[i - 1] in ("a", "an", "the")
            if (j < len(words) and w.lemma(words[j]) in own) or (alone and not a_fruit):
                yield f"{word} color", "Colorization", i, i + 1
        elif word in w.WHOLE_IMAGE:
            kind, phrase = w.WHOLE_IMAGE[word]
            if word not in w.ADJECTIVES or not after or after in w.STOP_WORDS or after in w.TINTS or describes_class:
                yield phrase, kind, i, i + 1


def _spans(words: list[str], used: list[bool]) -> Iterator[tuple[int, int]]:
    for start in range(len(words)):
        first = words[start]
        backdrop = words[start + 1 : start + 2] == ["background"]
        a_fruit = first == "orange" and not (words[start + 1 :] and w.can_name(words[start + 1]))
        # "a large red car" is a car: a detector knows cars, and the rest is the speaker's choice of words
        describes = first in w.MODIFIERS or (first in w.COLORS and not a_fruit)
        if used[start] or first in w.STOP_WORDS or (describes and not backdrop):
            continue
        for stop in range(start + 1, min(start + 3, len(words)) + 1):
            inner = words[start + 1 : stop - 1]
            if used[stop - 1] or any(word in w.STOP_WORDS and word != "of" for word in inner):
                break
            last = words[stop - 1]
            bare = stop - start == 1 and (last == "background" or last in w.COLORS - {"orange"})
            if w.can_name(last) and not bare:
                yield start, stop


def _place(words: list[str], start: int, stop: int) -> str:
    """The type that the preposition before a phrase speaks for: a place is Background, company an object."""
    if words[stop : stop + 1] == ["in-the-background"]:
        return "Background"
    for word in reversed(words[max(0, start - 4) : start]):
        if word in w.PLACE:
            return "Background"
        if word in w.COMPANY:
            return "Co-occurring Objects"
    return ""


@dataclass(frozen=True)
class _Counts:
    captions: int
    holding: Counter[str]
    votes: Counter[tuple[str, str]]


class CaptionMiner:
    """See `caption_mining`."""

    def __init__(self, most: int, least_count: int, z: float) -> None:
        self.most, self.least_count, self.z = most, least_count, z
        self.fingerprint = of_options(
            "caption_mining", {"version": VERSION, "most": most, "least_count": least_count, "z": z}
        )
        self.contrast = self
        self._counted: dict[str, tuple[int, _Counts]] = {}

    def propose(self, class_name: str, classes: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Proposals:
        """Attributes of one class, the strongest association first; `score` is z."""
        mine = self._count(class_name, captions.get(class_name, ()))
        others = [self._count(name, texts) for name, texts in captions.items() if name != class_name]
        n_others = sum(counts.captions for counts in others)
        if not mine.captions or not n_others:
            return Proposals(())
        scored: dict[str, tuple[float, int, int]] = {}
        for phrase, count in mine.holding.items():
            if count < self.least_count or w.names_class(phrase, class_name):
                continue
            elsewhere = sum(counts.holding[phrase] for counts in others)
            delta, z = log_odds(count, mine.captions, elsewhere, n_others)
            if delta > 0 and z >= self.z:
                scored[phrase] = (z, count, elsewhere)
        kept = _without_subsumed({phrase: count for phrase, (_, count, _) in scored.items()})
        order = sorted(kept, key=lambda phrase: (-scored[phrase][0], -scored[phrase][1], phrase))[: self.most]
        attributes = []
        for phrase in order:
            z, count, elsewhere = scored[phrase]
            reason = f"in {count} of {mine.captions} captions of {class_name}, {elsewhere} of {n_others} others"
            attributes.append(Attribute(phrase, _type(phrase, [mine, *others]), reason, z))
        return Proposals(tuple(attributes))

    def _count(self, class_name: str, captions: Sequence[str]) -> _Counts:
        key = hash(tuple(captions))
        kept = self._counted.get(class_name)
        if kept is None or kept[0] != key:
            holding: Counter[str] = Counter()
            votes: Counter[tuple[str, str]] = Counter()
            for caption in captions:
                for phrase, vote in phrases(caption, class_name):
                    holding[phrase] += 1
                    votes[phrase, vote] += 1
            kept = self._counted[class_name] = (key, _Counts(len(captions), holding, votes))
        return kept[1]


def _without_subsumed(counts: dict[str, int]) -> list[str]:
    """Of nested phrases the longer one where its count is close to the shorter's, else the shorter."""
    kept = dict(counts)
    for phrase in sorted(counts, key=lambda text: (-text.count(" "), text)):
        if phrase not in kept:
            continue
        parts = phrase.split()
        n = len(parts)
        inside = {" ".join(parts[i:j]) for i in range(n) for j in range(i + 1, n + 1)} - {phrase}
        shorter = sorted(part for part in inside if part in kept)
        if any(counts[phrase] < SUBSUMED * counts[part] for part in shorter):
            del kept[phrase]
        else:
            for part in shorter:
                del kept[part]
    return list(kept)


def _type(phrase: str, counted: Sequence[_Counts]) -> str:
    guess = w.guess_type(phrase)
    if guess not in ("Background", "Co-occurring Objects") or w.OVERLAYS & set(phrase.split()):
        return guess
    places = sum(counts.votes[phrase, "Background"] for counts in counted)
    company = sum(counts.votes[phrase, "Co-occurring Objects"] for counts in counted)
    if places == company:
        return guess
    return "Background" if places > company else "Co-occurring Objects"


def caption_mining(seed: int, cache: Place, *, most: int = 12, least_count: int = 3, z: float = 1.96) -> CaptionMiner:
    """Attributes from captions alone, offline.

    Args:
        seed, cache: unused; every proposer is given them.
        most: most attributes of a class.
        least_count: fewest captions of the class that must hold a phrase.
        z: least z of the weighted log-odds-ratio; 1.96 is a two-sided 5 % test of each phrase.
    """
    return CaptionMiner(most, least_count, z)
