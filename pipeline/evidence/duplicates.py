"""Copies of a picture: under another label, or in the other half, where they make an estimate look surer than it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASH = re.compile(r"^[0-9a-f]{32}$")
"""A group that ingest made: a 128-bit difference hash. Any other was given by the data."""
MOST_BITS = 4
"""Difference hashes that differ in so few of 128 bits are looked at as near-duplicates."""
BANDS = ((0, 3), (3, 6), (6, 9), (9, 12), (12, 16))
"""Bytes of a hash: MOST_BITS differing bits leave at least one of these five bands untouched."""
WINDOW = 32
"""A hash is held against so many after it within its band, in sorted order: linear also where many bands are equal."""

Row = dict[str, Any]


def exact(quarantine: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Paths of the pictures that were found twice with the same bytes: under the same labels, and under others.

    Ingest keeps one of the former and none of the latter; both stand in the table of quarantined files.
    """
    copies: list[str] = []
    conflicts: list[str] = []
    for row in quarantine:
        if row["reason"].startswith("the same picture "):
            (conflicts if "label" in row["reason"] else copies).append(row["path"])
    return copies, conflicts


def conflicting(images: Sequence[Row]) -> list[list[Row]]:
    """Near-duplicate groups, by hash, whose pictures have different labels: an image of each set of labels.

    A picture of several labels has a row each; that alone is no conflict. The largest groups come first.
    """
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in images:
        if HASH.fullmatch(row["group"]):
            groups[row["group"]][row["path"]].append(row)
    found = []
    for by_path in groups.values():
        first: dict[frozenset[str], Row] = {}
        for rows in by_path.values():
            first.setdefault(frozenset(row["label"] for row in rows), rows[0])
        if len(first) > 1:
            found.append((len(by_path), list(first.values())))
    return [rows for _, rows in sorted(found, key=lambda one: (-one[0], one[1][0]["image_id"]))]


def near_pairs(groups: Sequence[str]) -> list[tuple[int, int, int]]:
    """Pairs of difference hashes that differ in 1 to MOST_BITS bits: (first, second, bits), by their positions.

    Bands find every such pair (pigeonhole) as far as a band is shared by no more than WINDOW hashes; n log n.
    """
    places = [place for place, group in enumerate(groups) if HASH.fullmatch(group)]
    if len(places) < 2:
        return []
    hashes = np.frombuffer(bytes.fromhex("".join(groups[place] for place in places)), np.uint8).reshape(-1, 16)
    pairs: set[tuple[int, int, int]] = set()
    for start, stop in BANDS:
        keys = np.concatenate([hashes[:, start:stop], hashes], axis=1)
        order = np.lexsort(keys.T[::-1])
        ordered, bands = hashes[order], hashes[order, start:stop]
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            same = np.flatnonzero((bands[step:] == bands[:-step]).all(axis=1))
            if not len(same):
                break
            bits = np.bitwise_count(ordered[same] ^ ordered[same + step]).sum(axis=1)
            for at in np.flatnonzero((bits > 0) & (bits <= MOST_BITS)):
                one, other = sorted((places[order[same[at]]], places[order[same[at] + step]]))
                pairs.add((one, other, int(bits[at])))
    return sorted(pairs, key=lambda pair: (pair[2], pair[0], pair[1]))


def cosine_distance(vectors: NDArray[np.float32], first: Sequence[int], second: Sequence[int]) -> NDArray[np.float64]:
    """1 - cosine of pairs of rows; 2 for one that points the other way."""
    one, other = vectors[list(first)].astype(np.float64), vectors[list(second)].astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(1 - (one * other).sum(axis=1) / np.maximum(norms, 1e-12))
