"""compare: what changed since the audit that this one goes on from; no rows where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.evidence.change import compare as compare_audits
from pipeline.records import table
from pipeline.store import AuditFolder

VERSION = 1


def compare(*, context: Context, skip: Callable[[str, str], None]) -> dict[str, pa.Table]:
    """`changes`, and the rest of the comparison in run.json. An earlier audit that is gone is reported as skipped."""
    run = context.folder.run()
    nothing = {"changes": table("changes", [])}
    if not run.get("previous"):
        return nothing
    try:
        found = compare_audits(AuditFolder.open(run["previous"]), context.folder)
    except UserError as fault:
        skip("comparison with the audit before", str(fault))
        return nothing
    context.folder.write_run(run | {"comparison": found.summary()})
    return {"changes": found.changes}
