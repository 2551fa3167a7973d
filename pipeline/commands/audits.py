"""Commands for audits that are run again and again: audit, schedule, history, diff."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.errors import UserError
from pipeline.places import place

RUNNER = Parameter(help="who carries out the shards: threads (this process), dask, dask:N, dask:tcp://HOST:PORT")
ROOT = Parameter(
    help="folder of this configuration's audits, or an address such as s3://BUCKET/FOLDER; default audits/<name of the "
    "configuration>"
)
FOLDER = "an audit's folder, or its address"


def audit(
    config: Annotated[Path, Parameter(help="the configuration (YAML); paths in it are relative to its folder")],
    *,
    root: Annotated[str | None, ROOT] = None,
    set: Annotated[tuple[str, ...], Parameter(help="change a line of the configuration: --set renew=0")] = (),
    prefect: Annotated[bool, Parameter(negative="--no-prefect", help="run as a Prefect flow")] = True,
    runner: Annotated[str, RUNNER] = "threads",
) -> None:
    """Audit once more: into a new dated folder, compared with the audit before. Exit code 3 if something got worse.

    Nothing that the audit before computed is computed again. What `operate` in the configuration says is done: people
    are told, old audits deleted.
    """
    from pipeline.cli import show
    from pipeline.history import name_of
    from pipeline.operate import Outcome, audit_once, say
    from pipeline.progress import terminal
    from pipeline.store import AuditFolder

    at = place(root) if root else Path("audits") / name_of(config)
    with terminal() as progress:
        if prefect:
            from flows.run import run_audit_flow

            outcome = Outcome(AuditFolder(run_audit_flow(config, at, set, runner)))
        else:
            from pipeline.chain import run_audit
            from pipeline.config import Audit

            outcome = audit_once(
                Audit.from_yaml(config, list(set)),
                at,
                lambda audit, out, before: run_audit(audit, out, progress, before),
            )
    show(str(outcome.folder.path))
    if outcome.comparison:
        from rich.console import Console

        from pipeline.report.changes import print_changes

        print(f"Since {outcome.comparison['before']}:")
        print_changes(Console(), outcome.comparison, outcome.changes)
    for line in say(outcome):
        print(line, file=sys.stderr)
    if outcome.got_worse:
        raise SystemExit(3)


def schedule(
    config: Annotated[Path, Parameter(help="the configuration (YAML)")],
    *,
    cron: Annotated[str, Parameter(help='when, as five fields: "0 3 * * 1" is Mondays at three')] = "",
    every: Annotated[float, Parameter(help="or so many seconds from one audit to the next")] = 0,
    timezone: Annotated[str, Parameter(help="of the cron's hours, such as Europe/Berlin; default UTC")] = "",
    root: Annotated[str | None, ROOT] = None,
    set: Annotated[tuple[str, ...], Parameter(help="change a line of the configuration")] = (),
    runner: Annotated[str, RUNNER] = "threads",
) -> None:
    """Audit by the clock, with a Prefect server, until stopped. The schedule outlives this process and the server."""
    if bool(cron) == (every > 0):
        raise UserError('Say when: --cron "0 3 * * 1" or --every 86400.')
    from flows.run import serve_audits
    from pipeline.history import name_of

    at = place(root) if root else Path("audits") / name_of(config)
    serve_audits(config, at, set, cron, every, timezone, runner)


def history(
    config: Annotated[str, Parameter(help="the configuration, or the folder of its audits (or its address)")],
    *,
    root: Annotated[str | None, ROOT] = None,
    keep: Annotated[int, Parameter(help="delete all but so many finished audits, and say which; 0: none")] = 0,
    json: Annotated[bool, Parameter(negative="", help="as JSON")] = False,
) -> None:
    """List the audits of a configuration: date, state, images, confirmed findings, the worst, what changed."""
    from pipeline import history as past

    given = place(config)
    if root:
        given = place(root)
    elif isinstance(given, Path) and not given.is_dir():
        given = Path("audits") / past.name_of(given)
    pasts = past.history(given)
    if not pasts:
        raise UserError(f"{given} holds no audits. Make one with: cuescope audit CONFIG")
    gone = past.to_retire(pasts, keep)
    if gone:
        from pipeline.chain import locked
        from pipeline.store import AuditFolder

        with locked(AuditFolder(given)):
            past.retire(gone)
        for one in gone:
            print(f"Deleted {one.path}", file=sys.stderr)
    left = [one for one in pasts if one not in gone]
    if json:
        from pipeline.json_text import json_text

        print(json_text([one.to_dict() for one in left]))
    else:
        past.print_history(left)


def diff(
    before: Annotated[str, Parameter(help=FOLDER)],
    after: Annotated[str, Parameter(help="the folder of a later audit of the same data set, or its address")],
    *,
    json: Annotated[bool, Parameter(negative="", help="everything as JSON, every finding in it")] = False,
) -> None:
    """Say what changed between two audits: findings, images, models and settings. Exit code 3 if something got worse.

    Each finding's change is tested, with false discoveries controlled; see docs/scheduled-audits.md.
    """
    from pipeline.evidence.change import compare
    from pipeline.store import AuditFolder

    found = compare(AuditFolder.open(before), AuditFolder.open(after))
    if json:
        from pipeline.report.changes import as_json

        print(as_json(found.summary(), found.changes.to_pylist()))
    else:
        from rich.console import Console

        from pipeline.report.changes import print_changes

        print_changes(Console(), found.summary(), found.changes.to_pylist())
    if found.got_worse:
        raise SystemExit(3)
