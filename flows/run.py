"""Run and schedule flows from the command line, with their errors as the user's errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.chain import preflight, prepare
from pipeline.config import Audit
from pipeline.errors import Busy, UserError
from pipeline.places import Place, place


def run_flow(audit: Audit, out: Place, runner: str = "threads") -> None:
    """Run `flows.discover.discover` on Prefect's own server or on the one that PREFECT_API_URL names.

    `runner`: see flows/runners.py.

    Raises:
        UserError: the configuration's data or models are not there, checked before Prefect starts; or its server
            doesn't answer.
    """
    from flows.runners import runner_of

    chosen = runner_of(runner)
    prepare(audit, out)  # a user's mistake should not cost the start of a server
    from flows.discover import discover
    from flows.faults import plainly

    with plainly():
        discover.with_options(task_runner=chosen)(audit.to_dict(), str(out.resolve()))


def run_audit_flow(config: Path, root: Place, overrides: tuple[str, ...], runner: str = "threads") -> Place:
    """Run `flows.audit.audit`; returns the audit's folder.

    Raises:
        UserError: as `run_flow`.
        Busy: another run holds `root`.
    """
    from flows.runners import runner_of

    runner_of(runner)
    preflight(Audit.from_yaml(config, list(overrides)), root / "new")
    from flows.audit import audit
    from flows.faults import plainly

    with plainly():
        state: Any = audit(str(config.resolve()), str(root.resolve()), list(overrides), runner, return_state=True)
    if state.is_cancelled():
        raise Busy(str(state.message))
    return place(str(state.result()))


def serve_audits(
    config: Path,
    root: Place,
    overrides: tuple[str, ...],
    cron: str,
    every: float,
    timezone: str,
    runner: str = "threads",
) -> None:
    """Run `flows.audit.audit` by the clock until stopped; see flows.audit.serve.

    Raises:
        UserError: no server is named or it doesn't answer, the configuration is wrong, or the schedule isn't one.
    """
    preflight(Audit.from_yaml(config, list(overrides)), root / "new")
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.settings import get_current_settings

    if cron:
        try:
            CronSchedule(cron=cron, timezone=timezone or None)
        except ValueError:
            raise UserError(
                f"--cron '{cron}', timezone '{timezone or 'UTC'}': expected five fields (minute, hour, day of the "
                'month, month, day of the week), such as "0 3 * * 1", and a name such as Europe/Berlin.'
            ) from None
    url = get_current_settings().api.url
    if not url:
        raise UserError(
            "A schedule needs a Prefect server. Start one with 'prefect server start', and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            raise UserError(f"The Prefect server at {url} does not answer. Start it with 'prefect server start'.")
    from flows.audit import serve
    from flows.runners import runner_of

    runner_of(runner)  # said now rather than at three in the morning
    serve(config, root, overrides, cron, every, timezone, runner)
