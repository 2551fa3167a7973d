"""What goes wrong under Prefect, said as the command line says it: in one line, without a stack trace."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import httpx

from pipeline.errors import UserError

PLAIN = (UserError, httpx.TransportError)
EVENTS = tuple(logging.getLogger(name) for name in ("prefect.events.clients", "prefect._internal.concurrency"))
_lost: set[str] = set()  # the loggers that said already that events are lost


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Run flows so that their faults are the user's errors, which Prefect doesn't log with a stack trace first.

    Raises:
        UserError: the flow's own; or Prefect's server can't be reached, or is gone.
    """
    loggers = [logging.getLogger(f"prefect.{runs}") for runs in ("flow_runs", "task_runs")]
    for logger in loggers:
        logger.addFilter(_is_news)
    # these stay: what is left of the events is sent when the process ends, after the flow's own last words
    _lost.clear()
    for logger in EVENTS:
        logger.addFilter(_is_first_loss)
    try:
        yield
    except (httpx.TransportError, RuntimeError) as error:
        # how Prefect says that its temporary server didn't start in time
        if isinstance(error, RuntimeError) and "Prefect API server" not in str(error):
            raise
        from prefect.settings import get_current_settings

        where = get_current_settings().api.url or "its temporary one"
        raise UserError(
            f"Prefect's server ({where}) does not answer: {error}. What was computed is kept: start the server and "
            "give the same command again, or run without Prefect (--no-prefect)."
        ) from None
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record says more than the error that the command line is about to say."""
    fault: Any = record.exc_info[1] if record.exc_info else None
    return not isinstance(fault, PLAIN) and not any(f"{kind.__name__}(" in record.getMessage() for kind in PLAIN)


def _is_first_loss(record: logging.LogRecord) -> bool:
    """Whether a record is other than one more lost event: each is logged twice, with its whole content."""
    if "EventsWorker" in record.getMessage():
        return False
    if "Unable to connect" not in record.getMessage():
        return True
    first = record.name not in _lost
    _lost.add(record.name)
    return first
