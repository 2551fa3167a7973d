"""propose: candidate cues in words, for each class, from the captions of the selection half.

Two contrasts: the class's images against the others, and, among the others' images, those that the model wrongly takes
for the class against those that it doesn't. The second finds what the model leans on where the data don't (in the
manner of Bias-to-Text, arXiv 2301.11104); only a proposer that costs nothing is asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from pipeline.config import Audit
from pipeline.errors import BudgetReached
from pipeline.models.protocols import Attribute, Proposer
from pipeline.models.words import names_class
from pipeline.records import table

VERSION = 2


def propose(
    images: pa.Table,
    predictions: pa.Table,
    captions: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    proposer: Proposer | None,
    count: Callable[[str, int], None],
    skip: Callable[[str, str], None],
    progress: Callable[[int, int], None],
) -> dict[str, pa.Table]:
    """One row a (class, attribute). A budget that is reached ends the proposing, and is reported as skipped."""
    if proposer is None:
        return {"attributes": table("attributes", [])}
    by_image = dict(zip(captions["image_id"].to_pylist(), captions["caption"].to_pylist(), strict=True))
    answers = dict(zip(predictions["image_id"].to_pylist(), predictions["predicted"].to_pylist(), strict=True))
    texts: dict[str, list[str]] = {audit.words(name): [] for name in classes}
    seen: list[tuple[str, str, str]] = []  # label, answer, caption
    for image_id, label, split in zip(
        images["image_id"].to_pylist(), images["label"].to_pylist(), images["split"].to_pylist(), strict=True
    ):
        if image_id in by_image and (audit.no_split or split == "selection"):
            texts[audit.words(label)].append(by_image[image_id])
            seen.append((label, answers[image_id], by_image[image_id]))
    rows = []
    for done, name in enumerate(classes):
        try:
            proposals = proposer.propose(audit.words(name), list(texts), texts)
        except BudgetReached as stop:
            skip(f"proposals for {', '.join(classes[done:])}", str(stop))
            break
        count("calls", proposals.calls)
        count("tokens", proposals.tokens)
        if proposals.dropped:
            skip(f"{proposals.dropped} proposals for {name}", "the language model's reply could not be used")
        rows += [
            {
                "label": name,
                "phrase": attribute.phrase,
                "cue_type": attribute.cue_type,
                "source": audit.propose.kind if audit.propose else "",
                "reason": attribute.reason,
                "score": attribute.score,
            }
            for attribute in [
                *proposals.attributes,
                *(() if proposals.calls else of_errors(proposer, audit, name, classes, seen, proposals.attributes)),
            ]
        ]
        progress(done + 1, len(classes))
    return {"attributes": table("attributes", rows)}


OTHERS = "other pictures"


def of_errors(
    proposer: Proposer,
    audit: Audit,
    name: str,
    classes: Sequence[str],
    seen: Sequence[tuple[str, str, str]],
    known: Sequence[Attribute],
) -> list[Attribute]:
    """What the captions of other classes' pictures that the model takes for this class have in common, and new.

    Args:
        seen: (label, answer, caption) of the selection half.
        known: attributes that are proposed already. A class's own name is no cue but a confusion of classes.
    """
    words = audit.words(name)
    taken = [caption for label, answer, caption in seen if label != name and answer == name]
    others = [caption for label, answer, caption in seen if label != name and answer != name]
    if not taken or not others:
        return []
    found = proposer.propose(words, [audit.words(c) for c in classes], {words: taken, OTHERS: others})
    old = {attribute.phrase for attribute in known}
    return [
        replace(a, reason=f"of pictures wrongly taken for the class: {a.reason}")
        for a in found.attributes
        if a.phrase not in old and not any(names_class(a.phrase, audit.words(c)) for c in classes)
    ]
