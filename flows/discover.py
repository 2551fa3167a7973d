"""The discovery flow: pipeline.chain carried out as Prefect tasks.

A task is handed an audit folder's path, a stage's name and a shard's number, never images or arrays; Cuescope's own
cache decides what is computed, so Prefect's is off. Run it with no PREFECT_API_URL and Prefect starts a temporary
server; set one (`prefect server start`) and the runs show there.
"""

from __future__ import annotations

import logging
import time
from typing import Any, cast
from uuid import UUID

from pipeline.quiet import quieten

quieten()

from prefect import flow, task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402

from flows.runners import runner_of  # noqa: E402
from pipeline.chain import (  # noqa: E402
    STAGES,
    Tally,
    by_stage,
    chain,
    gather,
    locked,
    note,
    prepare,
    run_once,
    run_pass,
    shards,
)
from pipeline.config import Audit  # noqa: E402
from pipeline.context import Context  # noqa: E402
from pipeline.errors import UserError, plain  # noqa: E402
from pipeline.places import place  # noqa: E402
from pipeline.progress import LISTENER  # noqa: E402
from pipeline.store import AuditFolder  # noqa: E402


def _told_plainly(record: logging.LogRecord) -> bool:
    """Prefect's lines as a person can read them: no stack trace of a user's mistake, no control characters of names."""
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.exc_info = record.exc_text = None
    record.msg, record.args = plain(record.getMessage(), keep="\n"), ()
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_told_plainly)

RUNNER: Any = runner_of("threads")


def _worth_retrying(task: Any, run: Any, state: Any) -> bool:
    """A user's mistake stays one, however often it is tried."""
    try:
        state.result()
    except UserError:
        return False
    except Exception:
        return True
    return False


def context_of(out: str) -> Context:
    """The context of an audit that was prepared, from its folder alone."""
    folder = AuditFolder.open(out)
    run = folder.run()
    return Context(Audit.from_dict({**run["audit"], "classes": run["classes"]}), folder, LISTENER.get())


@task(name="stage", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(name: str, out: str) -> dict[str, Any]:
    """A stage on whole tables."""
    return run_once(name, context_of(out)).to_dict()


@task(
    name="shard",
    task_run_name="{names[0]}-{number}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_worth_retrying,
)
def run_one_shard(names: tuple[str, ...], ahead: tuple[str, ...], out: str, number: int) -> dict[str, dict[str, Any]]:
    """Per-image stages on one shard, in one pass over its pictures."""
    return {name: tally.to_dict() for name, tally in run_pass(names, ahead, context_of(out), number).items()}


@flow(
    name="discover",
    flow_run_name="discover-{out}",
    task_runner=RUNNER,
    validate_parameters=False,
)
def discover(config: dict[str, Any], out: str, previous: str = "") -> str:
    """Audit a data set and a model; returns the audit's folder. `previous`: the one it goes on from, if any."""
    return carry_out(config, out, previous)


def carry_out(config: dict[str, Any], out: str, previous: str) -> str:
    """What the flow does. It stands apart, as Prefect sends a flow to other processes by value, with all it names."""
    folder = prepare(Audit.from_dict(config), place(out), place(previous) if previous else None)
    listen = LISTENER.get()
    bar = cast(UUID, create_progress_artifact(0.0, key="cuescope-progress", description="Stages done"))
    finished: set[str] = set()

    def close(name: str, tallies: list[Tally], seconds: float) -> None:
        note(folder, name, tallies, seconds)
        finished.add(name)
        update_progress_artifact(bar, 100.0 * len(finished) / len(STAGES))

    def once(name: str) -> None:
        began = time.perf_counter()
        close(name, [Tally.from_dict(run_stage(name, out))], time.perf_counter() - began)

    def each(names: tuple[str, ...], ahead: tuple[str, ...]) -> None:
        began = time.perf_counter()
        total, stage = len(shards(context_of(out))), ", ".join(names)
        listen(stage, 0, total)
        futures = [run_one_shard.submit(names, ahead, out, number) for number in range(total)]
        passed = []
        for future in futures:
            passed.append({name: Tally.from_dict(given) for name, given in future.result().items()})
            listen(stage, len(passed), total)
        for name in names:
            gather(name, context_of(out), [tallies[name] for tallies in passed])
        for name, (tallies, seconds) in by_stage(passed, time.perf_counter() - began).items():
            if name in ahead:
                note(folder, name, tallies, seconds)
            else:
                close(name, tallies, seconds)

    with locked(folder):
        chain(once, each)
    publish(folder)
    return out


def publish(folder: AuditFolder) -> None:
    """The top findings as a table artifact, and a link to the report."""
    columns = ("class", "rank", "cue", "verdict", "harm", "removal_effect", "insertion_effect", "q")
    rows = [{name: _plain(row[name]) for name in columns} for row in folder.read("findings").to_pylist()]
    create_table_artifact(rows[:50], key="cuescope-findings", description=f"Findings of {folder.path.name}")
    create_link_artifact((folder.path / "report.html").resolve().as_uri(), key="cuescope-report", link_text="Report")


def _plain(value: Any) -> Any:
    """NaN has no place in JSON, nor a control character of a name on a page."""
    if isinstance(value, float):
        return None if value != value else round(value, 4)
    return plain(value) if isinstance(value, str) else value
