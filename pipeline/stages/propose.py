"""propose: candidate cues in words, for each class, from the captions of the selection half.

Two contrasts: the class's images against the others, and, among the others' images, those that the model wrongly takes
for the class against those that it doesn't. The second finds what the model leans on where the data don't (in the
manner of Bias-to-Text, arXiv 2301.11104); only a proposer that costs nothing is asked for it.

Phrases of all classes that mean the same get one name, and every attribute names the proposers that listed it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.config import Audit
from pipeline.errors import BudgetReached
from pipeline.evidence.answers import affirmed, says_yes_or_no
from pipeline.evidence.synonyms import PROMPT, one_name_each
from pipeline.evidence.texts import text_embeddings
from pipeline.models.annotations import other_labels
from pipeline.models.caption_mining import phrases
from pipeline.models.protocols import Attribute, Classifier, Proposer, RecordedAnswers, RegionEncoder
from pipeline.models.union_proposer import also
from pipeline.models.words import names_class
from pipeline.places import Place
from pipeline.properties import PROPERTY_CUES
from pipeline.records import table
from pipeline.verdicts.settled import opinions

VERSION = 3


def propose(
    images: pa.Table,
    predictions: pa.Table,
    captions: pa.Table,
    annotations: pa.Table,
    verdicts: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    model: Classifier | RecordedAnswers,
    proposer: Proposer | None,
    encoder: RegionEncoder | None,
    cache: Place,
    count: Callable[[str, int], None],
    skip: Callable[[str, str], None],
    progress: Callable[[int, int], None],
) -> dict[str, pa.Table]:
    """One row a (class, attribute). What a budget or a reply left out is reported as skipped."""
    if proposer is None:
        return {"attributes": table("attributes", judged(verdicts, classes, []))}
    by_image = dict(zip(captions["image_id"].to_pylist(), captions["caption"].to_pylist(), strict=True))
    said = affirmed(predictions, classes, says_yes_or_no(model)) > 0
    answers = {
        image_id: frozenset(name for name, yes in zip(classes, row, strict=True) if yes)
        for image_id, row in zip(predictions["image_id"].to_pylist(), said, strict=True)
    }
    others = other_labels(annotations)
    seen: list[Captioned] = []
    for image_id, label, split in zip(
        images["image_id"].to_pylist(), images["label"].to_pylist(), images["split"].to_pylist(), strict=True
    ):
        if image_id in by_image and (audit.no_split or split == "selection"):
            too = others.get(image_id, frozenset())
            seen.append(Captioned(label, too, answers[image_id], by_image[image_id]))
    texts = captions_for("", seen, classes, audit)
    if hasattr(proposer, "ahead"):
        proposer.ahead(list(texts), texts)
    found: dict[str, list[Attribute]] = {}
    unfinished: dict[str, list[str]] = {}  # why, and the classes
    for done, name in enumerate(classes):
        try:
            proposals = proposer.propose(audit.words(name), list(texts), captions_for(name, seen, classes, audit))
        except BudgetReached as stop:
            unfinished.setdefault(str(stop), []).extend(classes[done:])
            break
        count("dropped", proposals.dropped)
        if proposals.dropped:
            skip(f"{proposals.dropped} proposals for {name}", "the language model's reply could not be used")
        if proposals.stopped:
            unfinished.setdefault(proposals.stopped, []).append(name)
        contrast = getattr(proposer, "contrast", None)
        errors = of_errors(contrast, audit, name, classes, seen, proposals.attributes) if contrast else []
        found[name] = [*proposals.attributes, *errors]
        progress(done + 1, len(classes))
    for why, names in unfinished.items():
        skip(f"proposals for {', '.join(names)}", why)
    kind = audit.propose.kind if audit.propose else ""
    phrases.cache_clear()  # of captions that no later stage reads
    rows = merged(found, kind, encoder, cache, count)
    return {"attributes": table("attributes", rows + judged(verdicts, classes, rows))}


def judged(verdicts: pa.Table, classes: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for the named cues that people called spurious or core, where they aren't among `rows` already.

    They are followed, and recognised, whether or not anything proposes them this time. Measured properties are cues of
    every audit.
    """
    named = verdicts.filter(pa.compute.equal(verdicts["kind"], "named"))
    types = dict(zip(named["cue"].to_pylist(), named["cue_type"].to_pylist(), strict=True))
    known = {(row["label"], row["phrase"]) for row in rows}
    return [
        {
            "label": label,
            "phrase": name,
            "cue_type": types[name],
            "source": "labelers",
            "reason": f"labelers: {opinion}",
            "score": float("nan"),
        }
        for (label, name), opinion in sorted(opinions(row | {"name": row["cue"]} for row in named.to_pylist()).items())
        if opinion.verdict in ("spurious", "core")
        and label in classes
        and (label, name) not in known
        and name not in PROPERTY_CUES
    ]


def merged(
    found: Mapping[str, Sequence[Attribute]],
    kind: str,
    encoder: RegionEncoder | None,
    cache: Place,
    count: Callable[[str, int], None],
) -> list[dict[str, Any]]:
    """Rows of `attributes`, with one name and one type for what means the same, in whatever class it was found."""
    types: dict[str, str] = {}
    for attributes in found.values():
        for attribute in attributes:
            types.setdefault(attribute.phrase, attribute.cue_type)
    vectors = None
    if encoder is not None and encoder.has_text and types:
        vectors = text_embeddings(encoder, [PROMPT.format(phrase) for phrase in types], cache, count)
    stands = one_name_each(types, vectors)
    rows: list[dict[str, Any]] = []
    for name, attributes in found.items():
        mine: dict[str, dict[str, Any]] = {}
        for attribute in attributes:
            phrase, source = stands[attribute.phrase], attribute.source or kind
            if phrase in mine:
                mine[phrase]["source"] = also(mine[phrase]["source"], source)
                continue
            other = attribute.phrase
            reason = attribute.reason if phrase == other else f"as '{other}': {attribute.reason}".removesuffix(": ")
            mine[phrase] = {
                "label": name,
                "phrase": phrase,
                "cue_type": types[phrase],
                "source": source,
                "reason": reason,
                "score": attribute.score,
            }
        rows += mine.values()
    return rows


@dataclass(frozen=True)
class Captioned:
    """A picture of the selection half: its label, the classes that it is of too, those that the model says are there,
    and its caption."""

    label: str
    also: Collection[str]
    said: Collection[str]
    caption: str


def captions_for(name: str, seen: Sequence[Captioned], classes: Sequence[str], audit: Audit) -> dict[str, list[str]]:
    """The captions by each class's words; among other classes' none of a picture that is of the class `name` too."""
    texts: dict[str, list[str]] = {audit.words(other): [] for other in classes}
    for one in seen:
        if name not in one.also:
            texts[audit.words(one.label)].append(one.caption)
    return texts


OTHERS = "other pictures"


def of_errors(
    proposer: Proposer,
    audit: Audit,
    name: str,
    classes: Sequence[str],
    seen: Sequence[Captioned],
    known: Sequence[Attribute],
) -> list[Attribute]:
    """What the captions of other classes' pictures that the model takes for this class have in common, and new.

    Args:
        seen: the pictures of the selection half; to take one for a class that it is of too is no error.
        known: attributes that are proposed already. A class's own name is no cue but a confusion of classes.
    """
    words = audit.words(name)
    strangers = [one for one in seen if one.label != name and name not in one.also]
    taken = [one.caption for one in strangers if name in one.said]
    others = [one.caption for one in strangers if name not in one.said]
    if not taken or not others:
        return []
    found = proposer.propose(words, [audit.words(c) for c in classes], {words: taken, OTHERS: others})
    old = {attribute.phrase for attribute in known}
    return [
        replace(a, reason=f"of pictures wrongly taken for the class: {a.reason}")
        for a in found.attributes
        if a.phrase not in old and not any(names_class(a.phrase, audit.words(c)) for c in classes)
    ]
