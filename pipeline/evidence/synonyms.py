"""One name for each cue: phrases that mean the same become one before anything is detected or measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.models.protocols import Floats
from pipeline.models.words import normalise
from pipeline.properties import PROPERTY_CUES
from pipeline.records import THINGS

SAME_MEANING = 0.95
"""Cosine above which two phrases are one, after the mean of all phrases is taken off: CLIP's text vectors share a large
part. It is high on purpose. Two names of one cue that stay apart are found out later, by the images they are in; two
cues under one name never are."""
FEWEST = 8
"""With fewer phrases their mean says nothing of what they share, and only spelling counts."""
PROMPT = "a photo of a {}."


def one_name_each(phrases: Mapping[str, str], vectors: Floats | None = None) -> dict[str, str]:
    """The phrase that stands for each: itself, or an earlier one that is spelt alike or means the same.

    A measured property comes first, whatever the order: a measurement has an edit. Things and cues of the whole image
    are never one, for they are looked for in different ways.

    Args:
        phrases: phrase to type of cue, in order of preference.
        vectors: (phrases, d) unit text vectors, or None: then spelling alone decides.
    """
    names = list(phrases)
    order = sorted(range(len(names)), key=lambda n: (names[n] not in PROPERTY_CUES, n))
    alike = _alike(vectors) if vectors is not None and len(names) >= FEWEST else np.zeros((len(names),) * 2, bool)
    kept: list[int] = []
    stands: dict[str, str] = {}
    for n in order:
        same = next((k for k in kept if _one(names, phrases, n, k, bool(alike[n, k]))), None)
        stands[names[n]] = names[n if same is None else same]
        if same is None:
            kept.append(n)
    return stands


def _one(names: Sequence[str], types: Mapping[str, str], a: int, b: int, alike: bool) -> bool:
    if normalise(names[a]) == normalise(names[b]):
        return True
    return alike and (types[names[a]] in THINGS) == (types[names[b]] in THINGS) and names[a] not in PROPERTY_CUES


def _alike(vectors: Floats) -> np.ndarray:
    """(phrases, phrases): is each the other's nearest, and near?"""
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosine = centred @ centred.T
    np.fill_diagonal(cosine, -1.0)
    nearest = cosine.max(axis=1)
    return (cosine >= SAME_MEANING) & ((cosine >= nearest[:, None] - 1e-6) | (cosine >= nearest[None, :] - 1e-6))
