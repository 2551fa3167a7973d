"""One answer of several people's, by majority; and what they disagree on.

A person's verdict on a finding is what they said of it as a whole, or else what most of their verdicts on its pictures
say. A finding's verdict has more than half of the votes of those who aren't unsure. "Not present" said of a picture is
about that picture alone. Cues that people call by one name are one cue: what is said of one is said of all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.metrics.agreement import krippendorff_alpha
from pipeline.records import DISAGREED, matrix

KNOWN_AGAIN = 0.9
"""A cluster is an earlier audit's if the cosine of their centroids, less the data's mean, is at least this."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Opinion:
    """People's verdict on a finding: one of records.ANSWERS or DISAGREED, and who said what."""

    verdict: str
    by: Mapping[str, str]  # annotator to verdict

    def __str__(self) -> str:
        votes = Counter(self.by.values())
        return ", ".join(
            f"{number} {verdict}" for verdict, number in sorted(votes.items(), key=lambda v: (-v[1], v[0]))
        )


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha, NaN where nobody judged the same, and the number of units that two or more judged."""

    alpha: float
    units: int


def name_of(cue: Mapping[str, Any]) -> str:
    """What a cue of an audit (a row of `cues`, or of `verdicts`) is known by: its name, or its cluster."""
    return str(cue["name"] if cue["kind"] == "named" else cue["cue_id"])


def known_again(verdicts: pa.Table, clusters: pa.Table, encoder: str) -> tuple[list[Row], int]:
    """The rows of `verdicts` with the `name` (see `name_of`) of their cue in this audit, and how many have none.

    A named cue is known by its name, an unnamed one by its cluster's centroid.

    Args:
        encoder: fingerprint of this audit's region encoder: vectors of another one can't be compared.
    """
    rows = verdicts.to_pylist()
    centers = matrix(clusters["centroid"]) if len(clusters) else np.zeros((0, 0), np.float32)
    found: list[Row] = []
    for row in rows:
        if row["kind"] == "named":
            found.append(row | {"name": row["cue"]})
        elif row["encoder"] == encoder and len(row["center"]) == centers.shape[1] and len(centers):
            center = np.asarray(row["center"], np.float32)
            norms = np.linalg.norm(centers, axis=1) * max(float(np.linalg.norm(center)), 1e-12)
            likeness = centers @ center / np.maximum(norms, 1e-12)
            if likeness.max() >= KNOWN_AGAIN:
                found.append(row | {"name": f"cluster:{clusters['cluster'][int(likeness.argmax())].as_py()}"})
    return found, len(rows) - len(found)


def called(rows: Iterable[Row]) -> dict[str, str]:
    """Name of a cue (see `name_of`) to what most people call it, where any call it something; of equals the latest."""
    latest: dict[tuple[str, str], Row] = {}
    for row in rows:
        who = row["name"], row["annotator"]
        newer = who not in latest or row["given"] >= latest[who]["given"]
        if row["called"] and newer:
            latest[who] = row
    votes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (name, _), row in latest.items():
        votes[name][row["called"]].append(row["given"])
    return {name: max(by, key=lambda word: (len(by[word]), max(by[word]), word)) for name, by in votes.items()}


def opinions(rows: Iterable[Row]) -> dict[tuple[str, str], Opinion]:
    """(class, name of the cue) to people's verdict, from the rows of `known_again`."""
    rows = list(rows)
    names = called(rows)

    def known_as(row: Row) -> str:
        return names.get(str(row["name"])) or str(row["name"])

    alike: dict[str, set[str]] = defaultdict(set)  # what cues are called to those in the rows that are called so
    for row in rows:
        alike[known_as(row)].add(row["name"])
    said: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name in alike[known_as(row)]:
            said[row["class"], name][row["annotator"]].append(row)
    found: dict[tuple[str, str], Opinion] = {}
    for finding, people in said.items():
        by = {who: verdict for who in sorted(people) if (verdict := of_person(people[who]))}
        if by:
            found[finding] = Opinion(_majority(by.values()) or DISAGREED, by)
    return found


def of_person(rows: Sequence[Row]) -> str:
    """One person's verdict on a finding, or empty where they said of its pictures only whether the cue is there."""
    whole = [row for row in rows if not row["image_id"] and row["verdict"]]
    if whole:
        return max(whole, key=lambda row: row["given"])["verdict"]
    of_pictures = [row["verdict"] for row in rows if row["verdict"] in ("spurious", "core", "unsure")]
    return (_majority(of_pictures) or "unsure") if of_pictures else ""


def _majority(verdicts: Iterable[str]) -> str:
    """What more than half of those say who aren't unsure; "unsure" if all are; or empty."""
    votes = Counter(verdict for verdict in verdicts if verdict != "unsure")
    if not votes:
        return "unsure"
    verdict, number = votes.most_common(1)[0]
    return verdict if 2 * number > votes.total() else ""


def presence_of(rows: Iterable[Row]) -> dict[str, dict[str, bool]]:
    """Cue's name to image to whether most people see the cue there; not where as many do as don't."""
    return {
        name: {image: 2 * sum(seen) > len(seen) for image, seen in images.items() if 2 * sum(seen) != len(seen)}
        for name, images in _seen(rows).items()
    }


def _seen(rows: Iterable[Row]) -> dict[str, dict[str, list[bool]]]:
    """Cue's name to image to what each person sees there: of several classes' answers the latest."""
    latest: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        place = row["name"], row["image_id"], row["annotator"]
        older = place in latest and row["given"] < latest[place]["given"]
        if row["image_id"] and row["present"] is not None and not older:
            latest[place] = row
    seen: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for (name, image_id, _), row in sorted(latest.items()):
        seen[name][image_id].append(row["present"])
    return seen


def agreement(rows: Sequence[Row]) -> dict[str, Agreement]:
    """Of verdicts on findings (being unsure is no answer), and of whether a cue is in a picture."""
    verdicts = [[v for v in one.by.values() if v != "unsure"] for one in opinions(rows).values()]
    pictures = [seen for images in _seen(rows).values() for seen in images.values()]
    return {
        what: Agreement(krippendorff_alpha(units), sum(len(unit) > 1 for unit in units))
        for what, units in (("verdicts", verdicts), ("presence", pictures))
    }


def conflicts(rows: Sequence[Row]) -> list[str]:
    """Each finding, and each picture of a cue, on which people don't agree, in a line."""
    lines = [
        f"{label}, {name}: " + ", ".join(f"{who} says {verdict}" for who, verdict in one.by.items())
        for (label, name), one in sorted(opinions(rows).items())
        if len({verdict for verdict in one.by.values() if verdict != "unsure"}) > 1
    ]
    for name, images in sorted(_seen(rows).items()):
        split = {image: seen for image, seen in sorted(images.items()) if len(set(seen)) > 1}
        lines += [
            f"{name} in image {i}: {sum(seen)} see it, {len(seen) - sum(seen)} don't" for i, seen in split.items()
        ]
    return lines
