"""The flow that a schedule runs: audit a data set, say what changed since the last time, tell people.

Its parameters are paths; what it finds lies in the audit's folder. `serve` (cuescope schedule) is a process that runs
it by the clock, prefect.yaml deploys it to a work pool. Two runs at once can't mix: the second is cancelled by the lock
that the first one holds, and a lock goes with its process, however that ends.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from pipeline.quiet import quieten

quieten()

from prefect import flow, get_run_logger  # noqa: E402
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.events import emit_event  # noqa: E402
from prefect.states import Cancelled, Completed, State  # noqa: E402

from flows.discover import RUNNER, discover  # noqa: E402
from flows.runners import runner_of  # noqa: E402
from pipeline.config import Audit  # noqa: E402
from pipeline.errors import Busy  # noqa: E402
from pipeline.operate import Outcome, audit_once, say  # noqa: E402
from pipeline.places import Place, place  # noqa: E402
from pipeline.report.changes import markdown, news, sentence, subject  # noqa: E402


@flow(name="audit", flow_run_name="audit-{root}", task_runner=RUNNER, validate_parameters=False)
def audit(config: str, root: str, overrides: list[str] | None = None, runner: str = "threads") -> State[Any]:
    """Audit once, into a new dated folder of `root`; returns that folder's path.

    Args:
        config: path of the configuration.
        root: folder of this configuration's audits and their cache.
        overrides: `key=value` strings that change lines of the configuration.
        runner: who carries out the shards; see flows/runners.py.
    """
    return carry_out(config, root, overrides, runner)


def carry_out(config: str, root: str, overrides: list[str] | None, runner: str) -> State[Any]:
    """What the flow does. It stands apart, as Prefect sends a flow to a new process by value, with all it names."""

    def run(audit: Audit, out: Place, previous: Place | None) -> None:
        chosen = discover.with_options(task_runner=runner_of(runner))
        chosen(audit.to_dict(), str(out.resolve()), str(previous.resolve()) if previous else "")

    try:
        outcome = audit_once(Audit.from_yaml(config, overrides), place(root), run)
    except Busy as busy:
        return Cancelled(message=f"The audit before is still running, so this one was left out. {busy}")
    publish(outcome)
    for line in say(outcome):
        get_run_logger().warning(line)
    return Completed(message=outcome.headline, data=str(outcome.folder.path))


def publish(outcome: Outcome) -> None:
    """What changed as artifacts, and as an event on which automations of Prefect can act."""
    path, comparison = outcome.folder.path, outcome.comparison
    counts = comparison["counts"] if comparison else {}
    emit_event(
        event="cuescope.audit.worse" if outcome.got_worse else "cuescope.audit.done",
        resource={"prefect.resource.id": f"cuescope.audits.{path.parent.name}", "prefect.resource.name": path.name},
        payload={"headline": outcome.headline, "counts": counts, "report": str((path / "report.html").resolve())},
    )
    if comparison is None:
        return
    description = f"{path.name} against {place(comparison['before']).name}"
    create_markdown_artifact(markdown(comparison, outcome.changes), key="cuescope-changes", description=description)
    rows = [
        {"change": row["change"], "finding": subject(row), "what": sentence(row), "q": _plain(row["q"])}
        for row in news(outcome.changes)
    ]
    create_table_artifact(rows, key="cuescope-changed-findings", description=description)
    create_link_artifact(
        (path / "report.html").resolve().as_uri(), key="cuescope-audit-report", link_text=f"Report of {path.name}"
    )


def _plain(value: float) -> float | None:
    """NaN has no place in JSON."""
    return None if value != value else round(value, 4)


def serve(
    config: Path,
    root: Place,
    overrides: tuple[str, ...],
    cron: str,
    every: float,
    timezone: str,
    runner: str = "threads",
) -> None:
    """Run the flow by the clock, in this process, until it is stopped; the schedule stays with the server.

    A schedule that somebody paused stays paused when this starts again.

    Args:
        cron: when, as five fields; or empty for `every`, in seconds.
    """
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Schedule

    when: dict[str, Any] = {"cron": cron} if cron else {"interval": timedelta(seconds=every)}
    watch_for_dead_runs()
    audit.serve(
        name=root.name,
        schedules=[Schedule(timezone=timezone or None, slug="cuescope", **when)],
        parameters={
            "config": str(config.resolve()),
            "root": str(root.resolve()),
            "overrides": list(overrides),
            "runner": runner,
        },
        pause_on_shutdown=False,  # otherwise they are still off after a restart
        print_starting_message=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


DEAD = "Cuescope: runs whose heartbeat stopped"


def watch_for_dead_runs() -> None:
    """Let the server mark a run as crashed whose machine or process is gone: three heartbeats without a sign of it.

    The automation is made once; one of this name that somebody changed is left as it is.
    """
    from prefect.automations import Automation
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.settings import get_current_settings
    from prefect.states import StateType

    beat = get_current_settings().flows.heartbeat_frequency
    if not beat:
        return
    try:
        cast(Any, Automation.read)(name=DEAD)
    except ValueError:
        ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
        trigger = EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ends},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": audit.name},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * beat),
        )
        crashed = ChangeFlowRunState(name=None, state=StateType.CRASHED, message="Its heartbeat stopped.", force=False)
        Automation(name=DEAD, trigger=trigger, actions=[crashed]).create()
