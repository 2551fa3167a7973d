"""Words of attributes: one spelling for each, which of them name the class, and what type of cue they speak
of.

Everything is offline: lemminflect's dictionary travels inside its package.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

LONGEST = 60
"""Characters of a phrase; a longer one is no name of a thing."""

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


def _read_sections() -> dict[str, frozenset[str]]:
    sections: dict[str, set[str]] = {}
    for line in Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            words = sections.setdefault(line.strip("[]"), set())
        elif line and not line.startswith("#"):
            words.update(line.split())
    return {name: frozenset(words) for name, words in sections.items()}


_SECTIONS = _read_sections()
GRAMMAR = _SECTIONS["function"] | _SECTIONS["preposition"]
IMAGE_WORDS = _SECTIONS["image"]
STOP_WORDS = GRAMMAR | IMAGE_WORDS
MODIFIERS = _SECTIONS["modifier"]
PLACE, COMPANY = _SECTIONS["place"], _SECTIONS["company"]
_PLURAL_ONLY = _SECTIONS["plural only"]
_IRREGULAR = {
    "people": "person",
    "leaves": "leaf",
    "greyscale": "grayscale",
    "grey": "gray",
    "colour": "color",
}
_SHADES = {
    "reddish": "red",
    "greenish": "green",
    "bluish": "blue",
    "yellowish": "yellow",
    "purplish": "purple",
}
_LEADING = _SECTIONS["article"]

COLORS = _SECTIONS["color"] | frozenset(_SHADES)
TINTS = _SECTIONS["tint"]

OVERLAYS = _SECTIONS["overlay"]
SCENES = _SECTIONS["scene"]

WHOLE_IMAGE: dict[str, tuple[str, str]] = {
    word: (cue_type, phrase)
    for cue_type, phrase, words in (
        ("Colorization", "grayscale", "grayscale monochrome black-and-white greyscale desaturated colorless"),
        ("Colorization", "sepia tint", "sepia"),
        ("Colorization", "vivid colors", "vivid vibrant saturated oversaturated colorful"),
        (
            "Lighting and Shadows",
            "dark lighting",
            "dark dim dimly darkness darkened gloomy underexposed nighttime low-light",
        ),
        ("Lighting and Shadows", "bright lighting", "bright brightly brightness overexposed well-lit"),
        ("Lighting and Shadows", "sunlight", "sunlit sunlight sunny sunshine"),
        ("Lighting and Shadows", "shadow", "shadow shadowy shaded"),
        ("Lighting and Shadows", "backlight", "backlit backlight backlighting silhouette silhouetted"),
        ("Lighting and Shadows", "spotlight", "spotlight spotlit"),
        ("Texture and Noise", "blurry image", "blurry blurred blur out-of-focus unfocused defocused"),
        ("Texture and Noise", "noisy image", "noisy noise grainy grain pixelated speckled"),
        ("Texture and Noise", "textured surface", "texture textured patterned pattern"),
        ("Perspective and Angle", "close-up view", "close-up closeup macro zoomed-in zoomed"),
        ("Perspective and Angle", "aerial view", "aerial from-above overhead bird's-eye top-down high-angle"),
        ("Perspective and Angle", "low-angle view", "low-angle from-below worm's-eye"),
        ("Perspective and Angle", "side view", "from-the-side side-view"),
        ("Orientation", "tilted view", "tilted tilt slanted crooked askew"),
        ("Orientation", "upside down", "upside-down inverted flipped"),
        ("Orientation", "rotated view", "rotated sideways"),
        ("Orientation", "tipped over", "tipped-over"),
        ("Relative Size", "small object", "small tiny little miniature"),
        ("Relative Size", "large object", "large huge giant gigantic enormous massive big"),
        ("Shape", "round shape", "round circular oval spherical"),
        ("Shape", "square shape", "square rectangular"),
        ("Shape", "triangular shape", "triangular"),
        ("Shape", "cylindrical shape", "cylindrical"),
    )
    for word in words.split()
}
"""Words that speak of the whole image or of the object's look: word -> (type, the phrase it is called by)."""

ADJECTIVES = _SECTIONS["look"]
"""Those of WHOLE_IMAGE that may instead describe one thing ("small dog"); then they belong to that thing."""

_IDIOMS = tuple(
    (re.compile(rf"\b{pattern}\b"), joined)
    for pattern, joined in (
        (r"black[ -]and[ -]white", "black-and-white"),
        (r"(?:greyscale|gray scale|grey scale)", "grayscale"),
        (r"close[ -]?up", "close-up"),
        (r"zoomed[ -]in", "zoomed-in"),
        (r"upside[ -]down", "upside-down"),
        (r"low[ -]angle", "low-angle"),
        (r"high[ -]angle", "high-angle"),
        (r"(?:taken |seen |viewed |shot |photographed )?from above", "from-above"),
        (r"(?:taken |seen |viewed |shot |photographed )?from below", "from-below"),
        (r"bird'?s[ -]eye", "bird's-eye"),
        (r"worm'?s[ -]eye", "worm's-eye"),
        (r"top[ -]down", "top-down"),
        (r"out[ -]of[ -]focus", "out-of-focus"),
        (r"(?:tipped|knocked|fallen) over", "tipped-over"),
        (r"low[ -]light", "low-light"),
        (r"well[ -]lit", "well-lit"),
        (r"colou?r cast", "color-cast"),
        (r"[ -]tinted\b", " tint"),
        (r"grey", "gray"),
        (r"parking lot", "parking-lot"),
        (r"in front of", "in-front-of"),
        (r"(?:next|adjacent|close) to", "next-to"),
        (r"on top of", "on-top-of"),
        (r"in the middle of", "in-the-middle-of"),
        (r"in the (?:back|fore)ground", "in-the-background"),
    )
)


def tokens(text: str) -> list[str]:
    """Lower-case words of `text`, with fixed expressions ("close up", "next to") joined by hyphens into
    one."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    for pattern, joined in _IDIOMS:
        text = pattern.sub(joined, text)
    words = (_SHADES.get(word, _IRREGULAR.get(word, word)) for word in _WORD.findall(text))
    return [word.removesuffix("'s") if word.endswith("'s") else word for word in words]


@functools.lru_cache(maxsize=100_000)
def lemma(word: str) -> str:
    """The singular of a noun, lower case; a word that is no plural comes back as it is."""
    from lemminflect import getAllLemmas, getAllLemmasOOV

    word = word.lower()
    if word in _IRREGULAR or word in _PLURAL_ONLY:
        return _IRREGULAR.get(word, word)
    head, hyphen, last = word.rpartition("-")
    if hyphen:
        return f"{head}-{lemma(last)}"
    known = getAllLemmas(word)
    if "NOUN" in known:
        return known["NOUN"][0]
    if not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    # "bars" is only a verb in the dictionary, and a captioner's rarer nouns are in none.
    return known["VERB"][0] if "VERB" in known else getAllLemmasOOV(word, "NOUN")["NOUN"][0]


@functools.lru_cache(maxsize=100_000)
def can_name(word: str) -> bool:
    """Can a phrase end with this word: a noun, or a word that no dictionary holds?"""
    from lemminflect import getAllLemmas

    if word in STOP_WORDS or word in MODIFIERS or len(word) < 2 or not any(c.isalpha() for c in word):
        return False
    if word in _SECTIONS["ing"] or "-" in word:
        return True
    known = getAllLemmas(word)
    if word.endswith(("ing", "ed")) and "VERB" in known:
        return False
    return not known or bool({"NOUN", "PROPN", "VERB"} & known.keys())


def clean(text: str) -> str:
    """One line without control characters, markup or surrounding quotes, at most LONGEST characters."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    text = re.sub(r"[<>`{}|\\]", "", text)
    return " ".join(text.split()).strip(" \"'.,;:*-•")[:LONGEST].strip()


def normalise(phrase: str) -> str:
    """The spelling a phrase is known by: lower case, no leading article, its head noun in the singular.

    The head is the last word, and the word before "of". Whole-image phrases keep their wording.
    """
    words = clean(phrase).lower().split()
    while len(words) > 1 and words[0] in _LEADING:
        words = words[1:]
    if " ".join(words) in {name for _, name in WHOLE_IMAGE.values()}:
        return " ".join(words)
    heads = {len(words) - 1} | {i - 1 for i, word in enumerate(words) if word == "of" and i}
    return " ".join(lemma(word) if i in heads else word for i, word in enumerate(words))


def names_class(phrase: str, class_name: str) -> bool:
    """Does the phrase say the class's own name: a shared lemma, or one the head of the other's compound?

    "sail boats" and "boat" name "sailboat" (sail + boat), "rain" doesn't name "train".
    """
    mine = {lemma(word) for word in tokens(phrase)} - GRAMMAR
    own = {lemma(word) for word in tokens(class_name)} - GRAMMAR
    joined = "".join(lemma(word) for word in tokens(phrase)) == "".join(lemma(word) for word in tokens(class_name))
    return joined or bool(mine & own) or any(_is_head(a, b) or _is_head(b, a) for a in mine for b in own)


@functools.lru_cache(maxsize=100_000)
def _is_head(head: str, compound: str) -> bool:
    from lemminflect import getAllLemmas

    front = compound.removesuffix(head)
    return front != compound and len(front) >= 3 and len(head) >= 3 and "NOUN" in getAllLemmas(front)


def merge_phrases(phrases: Iterable[str]) -> list[str]:
    """Phrases normalised, each once, in order of first appearance.

    A colour variant ("red car") gives way to its noun where that is on the list too.
    """
    merged = list(dict.fromkeys(word for word in map(normalise, phrases) if word))
    present = set(merged)

    def varies(phrase: str) -> bool:
        first, _, rest = phrase.partition(" ")
        return first in COLORS and rest in present

    return [phrase for phrase in merged if not varies(phrase)]


def whole_image_type(words: Sequence[str]) -> str | None:
    """The type of a phrase that speaks of the whole image or an object's look, or None for things and
    places."""
    if not words or OVERLAYS & set(words):
        return None
    last = words[-1]
    if any(word in COLORS for word in words) and (last in TINTS or last in COLORS or last == "color"):
        return "Colorization"
    described = [word for word in words if word not in IMAGE_WORDS]
    for word in described:
        if word in WHOLE_IMAGE and (word not in ADJECTIVES or len(described) == 1 or last in _ABSTRACT):
            return WHOLE_IMAGE[word][0]
    return "Lighting and Shadows" if last in ("lighting", "illumination", "light") and len(words) > 1 else None


_ABSTRACT = _SECTIONS["abstract"]


def guess_type(phrase: str) -> str:
    """The type of cue (one of records.CUE_TYPES) that a phrase most likely speaks of, by a lexicon."""
    words = [lemma(word) for word in tokens(phrase)]
    kind = whole_image_type(words)
    if kind:
        return kind
    if words and not OVERLAYS & set(words) and (words[-1] in SCENES or words[0] in ("indoor", "outdoor")):
        return "Background"
    return "Co-occurring Objects"
