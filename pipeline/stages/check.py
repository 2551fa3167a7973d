"""check: what in the data itself would explain a finding, or make it look surer than it is. No model is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.evidence import checks
from pipeline.models.protocols import Floats
from pipeline.records import matrix, table
from pipeline.stages.ingest import half
from pipeline.store import Parts, batches, length

VERSION = 1


def check(
    images: pa.Table,
    quarantine: pa.Table,
    embeddings: Parts,
    *,
    audit: Audit,
    classes: Sequence[str],
) -> dict[str, pa.Table]:
    """`checks`: order, copies, balance, properties; what asks embeddings is left out where there is no encoder."""
    level, split = audit.rank.q, not audit.no_split
    vectors = _vectors(embeddings) if length(embeddings) == len(images) and len(images) else None
    rows, distances = checks.order(images, vectors, classes, audit.seed) if vectors is not None else ([], [])
    rows += checks.copies(images, quarantine, vectors, distances, split)
    rows += checks.balance(images, classes, split)
    columns = (images[name].to_pylist() for name in ("group", "split"))
    given = any(half(group, audit.seed) != part for group, part in zip(*columns, strict=True))
    if split and given:
        rows += checks.halves(images, vectors, classes, audit.seed, level)
    rows += checks.properties(images, classes)
    rows = checks.settle_properties(checks.found_by_q(checks.with_q(rows), ("neighbours", "looks"), level), level)
    return {"checks": table("checks", rows)}


def _vectors(embeddings: Parts) -> Floats:
    """(images, d), filled part by part: with the table in memory beside it, it would take twice as much."""
    found, done = np.zeros((0, 0), np.float32), 0
    for part in batches(embeddings, ["embedding"]):
        vectors = matrix(part["embedding"])
        if not done:
            found = np.empty((length(embeddings), vectors.shape[1]), np.float32)
        found[done : (done := done + len(vectors))] = vectors
    return found
