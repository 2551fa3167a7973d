"""Run the discovery flow from the command line, with its errors as the user's errors."""

from __future__ import annotations

from pathlib import Path

from pipeline.chain import prepare
from pipeline.config import Audit


def run_flow(audit: Audit, out: Path) -> None:
    """Run `flows.discover.discover` on Prefect's own server or on the one that PREFECT_API_URL names.

    Raises:
        UserError: the configuration's data or models are not there, checked before Prefect starts; or its server
            doesn't answer.
    """
    prepare(audit, out)  # a user's mistake should not cost the start of a server
    from flows.discover import discover
    from flows.faults import plainly

    with plainly():
        discover(audit.to_dict(), str(out.resolve()))
