"""Progress in the terminal: a bar with an estimate on a screen, a line a stage in a log file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from pipeline.context import Progress


def silent(stage: str, done: int, total: int) -> None:
    """No progress."""


LISTENER: ContextVar[Progress] = ContextVar("cuescope_progress", default=silent)
"""Who hears of the progress of the audit that runs in this context (tasks of a flow inherit it)."""


@contextlib.contextmanager
def terminal() -> Iterator[Progress]:
    """Show progress on standard error while the block runs."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        with _listening(_lines(console)) as listener:
            yield listener
        return
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def listen(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=max(total, 1))
            bars.update(tasks[stage], completed=done if total else 1, total=max(total, 1))

        with _listening(listen) as listener:
            yield listener


def _lines(console: Any) -> Progress:
    began: dict[str, float] = {}

    def listen(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        first = began.setdefault(stage, now)
        if done >= total:
            console.print(f"{stage}: done ({now - first:.1f} s)", highlight=False)
            began[stage] = now

    return listen


@contextlib.contextmanager
def _listening(listener: Progress) -> Iterator[Progress]:
    token = LISTENER.set(listener)
    try:
        yield listener
    finally:
        LISTENER.reset(token)
