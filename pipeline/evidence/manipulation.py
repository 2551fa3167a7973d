"""The manipulation check: which edit of the whole picture puts in or takes out a cue that is known in words only.

Nobody can say beforehand which edit makes a picture look "tilted" to an encoder, so the operators of a small library
(pipeline/evidence/geometry_edits.py) are tried on a few images of the selection half, and the presence score of the
words is measured before and after. The model under test takes no part in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.evidence.geometry_edits import FITTING, LIBRARY, apply_geometry
from pipeline.images import RGB
from pipeline.models.protocols import RegionEncoder
from pipeline.places import Place
from pipeline.properties import rms
from pipeline.records import SCHEMAS, matrix
from pipeline.store import Shelf

VERSION = 1
MOST_IMAGES = 24
"""Images that every operator is tried on."""
LEAST_IMAGES = 4
"""A mean shift over fewer images is no measurement."""
LEAST_SHIFT = 0.5
"""An operator must move the score by this many standard deviations of it over the selection half..."""
LEAST_SURE = 2.0
"""...and by this many standard errors over the images it was tried on."""
STILL = 0.5
"""A placebo moves the score by at most this share of what the edit does."""
AS_LARGE = 0.7
"""A placebo changes pixels by at least this share (root mean square) of what the edit does, at its full strength."""

Try = tuple[str, float]  # an operator's name and its strength
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Tried:
    """The operators on the images they were tried on: unit vectors (n, d) before and after, and the mean change."""

    before: NDArray[np.float32]
    after: dict[Try, NDArray[np.float32]]
    change: dict[Try, float]  # root mean square over pixels, 0..255


def encode_once(
    pictures: Sequence[RGB], encoder: RegionEncoder, cache: Place, count: Callable[[str, int], None]
) -> NDArray[np.float32]:
    """Unit vectors (n, d) of pictures through the feature cache, by their pixels: edits made again cost no forward."""
    shelf = Shelf(cache, "manipulation", "embeddings", "image_id", (VERSION, encoder.fingerprint))
    keys = [hashlib.blake2b(p.tobytes(), digest_size=16, salt=str(p.shape).encode()[:16]).hexdigest() for p in pictures]
    known = shelf.keys()
    missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
    if missing:
        rows = {"image_id": list(missing), "embedding": list(encoder.images(list(missing.values())))}
        shelf.add(missing, pa.table(rows, schema=SCHEMAS["embeddings"]))
        count("measure", len(missing))
    stored = shelf.read(sorted(set(keys)))
    found = dict(zip(stored["image_id"].to_pylist(), matrix(stored["embedding"]), strict=True))
    return np.stack([found[key] for key in keys])


def try_operators(
    pictures: Sequence[RGB], cue_types: Sequence[str], encode: Callable[[Sequence[RGB]], NDArray[np.float32]]
) -> Tried:
    """Embed the pictures after each operator that fits one of the types, or may be the placebo of one that does."""
    kinds = {LIBRARY[name].kind for cue_type in cue_types for name in FITTING.get(cue_type, ())}
    tries = [(o.name, strength) for o in LIBRARY.values() if o.kind in kinds for strength in o.strengths]
    edited = {key: [apply_geometry(picture, *key) for picture in pictures] for key in tries}
    vectors = encode([*pictures, *(picture for key in tries for picture in edited[key])])
    before, *rest = np.split(vectors, len(tries) + 1)
    change = {
        key: float(
            np.mean([rms(a.astype(np.float32) - b.astype(np.float32)) for a, b in zip(after, pictures, strict=True)])
        )
        for key, after in edited.items()
    }
    return Tried(before, dict(zip(tries, rest, strict=True)), change)


def choose_operator(
    tried: Tried, words: NDArray[np.float32], present: NDArray[np.bool_], spread: float, cue_type: str, direction: str
) -> dict[str, Any]:
    """The operator for one cue and direction: its name, strength, shift in standard deviations, and its placebo.

    Or only `why`, a sentence, where none passes.

    Args:
        words: (d,) what an image's vector is multiplied with for the cue's presence score.
        present: (n,) whether the images tried have the cue: it is put into those that lack it.
        spread: standard deviation of the score over the selection half.
        direction: insertion or removal.
    """
    removal = direction == "removal"
    fitting = FITTING[cue_type]
    subjects = present == removal
    what, whose = ("takes it out", "with it") if removal else ("puts it in", "without it")
    if subjects.sum() < LEAST_IMAGES or not spread > 0:
        return {"why": f"only {subjects.sum()} of {len(present)} images tried are {whose}; {LEAST_IMAGES} are needed"}
    before = tried.before[subjects] @ words
    shifts = {key: (after[subjects] @ words - before) / spread for key, after in tried.after.items()}
    mean = {key: float(shift.mean()) for key, shift in shifts.items()}
    error = {key: float(shift.std(ddof=1)) / np.sqrt(len(shift)) for key, shift in shifts.items()}
    sign = -1 if removal else 1
    best = max((key for key in mean if key[0] in fitting), key=lambda key: sign * mean[key])
    names = f"{', '.join(fitting[:-1])} and {fitting[-1]} were" if len(fitting) > 1 else f"{fitting[0]} was"
    if sign * mean[best] < max(LEAST_SHIFT, LEAST_SURE * error[best]):
        return {
            "why": f"no edit of the whole picture {what}: {names} tried on {subjects.sum()} images {whose}, and the "
            f"best of them moved its score by {sign * mean[best]:.2f} standard deviations, give or take "
            f"{error[best]:.2f}; {LEAST_SHIFT:g} and {LEAST_SURE:g} times its uncertainty are needed"
        }
    placebos = [
        key
        for key in mean
        if LIBRARY[key[0]].kind == LIBRARY[best[0]].kind
        and key[0] not in (best[0], "mirror", "flip")
        and abs(mean[key]) <= STILL * abs(mean[best])
        and tried.change[key] >= AS_LARGE * tried.change[best]
    ]
    if not placebos:
        return {
            "why": f"{best[0]} {what}, but no other edit that changes as much of the picture leaves its score alone, "
            "so there is no placebo"
        }
    placebo = min(placebos, key=lambda key: abs(mean[key]))
    return {
        "name": best[0],
        "strength": best[1],
        "shift": round(mean[best], 3),
        "placebo": {"name": placebo[0], "strength": placebo[1]},
    }


def images_to_try(scores: Reals, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of `scores` (images, cues) to try operators on: three in four show a cue best, in turn, the rest are any."""
    chosen: list[int] = []
    ranked = np.argsort(-scores, axis=0, kind="stable")
    for turn in range(len(scores)):
        for column in range(scores.shape[1]):
            if len(chosen) < 3 * most // 4 and ranked[turn, column] not in chosen:
                chosen.append(int(ranked[turn, column]))
    others = [int(row) for row in rng.permutation(len(scores)) if row not in chosen]
    return np.sort(np.array([*chosen, *others[: most - len(chosen)]], dtype=np.int64))


_WORDS = re.compile(
    r"(removal|insertion) by (.+?) (-?[\d.]+) \((-?[\d.]+) standard deviations\), placebo (.+?) (-?[\d.]+)(?:; |$)"
)


def in_words(chosen: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """A cue's `operator` and `untestable` in table `cues`, from what was chosen for each direction.

    The operator reads "geometry:insertion by rotate 20 (2.1 standard deviations), placebo shift_x 0.25; removal by ..."
    without a direction that has none; `untestable` has a line for each of those: "removal: only 2 of ...".
    """
    parts = [
        f"{direction} by {one['name']} {one['strength']:g} ({one['shift']:g} standard deviations), "
        f"placebo {one['placebo']['name']} {one['placebo']['strength']:g}"
        for direction, one in chosen.items()
        if "name" in one
    ]
    whys = [f"{direction}: {one['why']}" for direction, one in chosen.items() if "why" in one]
    return f"geometry:{'; '.join(parts)}" if parts else "", "\n".join(whys)


def operator_of(words: str, direction: str) -> dict[str, Any]:
    """What was chosen for a direction, from a cue's `operator`: the inverse of :func:`in_words`.

    Raises:
        KeyError: nothing was.
    """
    found = {}
    for way, name, strength, shift, placebo, its_strength in _WORDS.findall(words.partition(":")[2]):
        other = {"name": placebo, "strength": float(its_strength)}
        found[way] = {"name": name, "strength": float(strength), "shift": float(shift), "placebo": other}
    return found[direction]
