"""propose: candidate cues in words, for each class, from the captions of the selection half."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from pipeline.config import Audit
from pipeline.errors import BudgetReached
from pipeline.models.protocols import Proposer
from pipeline.records import table

VERSION = 1


def propose(
    images: pa.Table,
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
    texts: dict[str, list[str]] = {audit.words(name): [] for name in classes}
    for image_id, label, split in zip(
        images["image_id"].to_pylist(), images["label"].to_pylist(), images["split"].to_pylist(), strict=True
    ):
        if image_id in by_image and (audit.no_split or split == "selection"):
            texts[audit.words(label)].append(by_image[image_id])
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
            for attribute in proposals.attributes
        ]
        progress(done + 1, len(classes))
    return {"attributes": table("attributes", rows)}
