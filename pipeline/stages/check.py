"""check: what in the data itself would explain a finding, or make it look surer than it is. No model is asked."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline.config import Audit
from pipeline.evidence import checks
from pipeline.records import matrix, table
from pipeline.stages.ingest import half

VERSION = 1


def check(
    images: pa.Table,
    quarantine: pa.Table,
    embeddings: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
) -> dict[str, pa.Table]:
    """`checks`: order, copies, balance, properties; what asks embeddings is left out where there is no encoder."""
    level, split = audit.rank.q, not audit.no_split
    vectors = matrix(embeddings["embedding"]) if len(embeddings) == len(images) and len(images) else None
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
