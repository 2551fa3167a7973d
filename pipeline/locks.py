"""One writer at a time.

On this machine's disks a lock is `flock` on a file: it goes with its process, however that ends. An object store has
none, so there a lock is a folder of numbered objects, of which the highest says who holds it. To take it is to create
the next number, where there is none: of several who try at once one succeeds, on a store with conditional writes
(Amazon S3, Google Cloud Storage, recent MinIO; without them two that start within the same fraction of a second may
both believe they hold it). The holder writes the time into its object every BEAT seconds. A lock whose holder was
killed is taken over: at once, where it was a process of this machine; else STALE seconds after its last sign of life,
and if it gives none for WATCH seconds more, by which two clocks that differ do no harm. A holder that slept for so long
and goes on finds its lock taken at the end of a stage (see `chain.note`), and stops.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import Busy, UserError
from pipeline.places import Place, Remote
from pipeline.store import alive, explained, key_of

LOG = logging.getLogger(__name__)
BEAT, STALE, WATCH = 20.0, 120.0, 50.0
"""Seconds between two signs of life, without one until a lock is left behind, and that it is then watched."""


@contextmanager
def alone(at: Place, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock at `at` while the block runs.

    Args:
        busy: what is wrong where another holds it, in a sentence.
        patience: seconds to wait for it.

    Raises:
        Busy: another holds it.
    """
    deadline = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_file(at, busy) if isinstance(at, Path) else _objects(at, busy))
                break
            except Busy:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.5)
        yield


def is_held(at: Place) -> bool:
    """Whether somebody holds the lock."""
    if isinstance(at, Remote):
        found = _newest(at)
        return found is not None and not _is_over(found[1])
    try:
        with open(at) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def _file(at: Path, busy: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with explained(at.parent):
            handle = stack.enter_context(open(at, "w"))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(busy) from None
        yield


@contextmanager
def _objects(at: Remote, busy: str) -> Iterator[None]:
    owner = uuid.uuid4().hex
    mine = _take(at, busy, owner)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            with contextlib.suppress(UserError):  # the store is away: the next beat may reach it
                mine.write_bytes(_state(owner, False))

    thread = threading.Thread(target=beat, name="cuescope-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(UserError):  # the block's own error is the one to tell
            mine.write_bytes(_state(owner, True))


def _take(at: Remote, busy: str, owner: str) -> Remote:
    """The object by which this owner now holds the lock."""
    found = _newest(at)
    if found and not _is_over(found[1]):
        raise Busy(f"{busy} {_who(found)}")
    if found and not _let_go(found[1]) and not _is_dead(found[1]):
        LOG.warning("%s: the run that held it may have been killed; watching it for %.0f s.", found[0], WATCH)
        time.sleep(WATCH)
        if (again := _newest(at)) != found:
            raise Busy(f"{busy} {_who(again)}" if again else busy)
    mine = at / f"{int(found[0].stem) + 1 if found else 1:08d}.json"
    with contextlib.suppress(FileExistsError):  # it may still be ours, where an answer was lost on the way
        mine.create(_state(owner, False))
    newest = _newest(at)
    if newest is None or newest[0] != mine or newest[1]["owner"] != owner:
        raise Busy(busy)
    for old in at.iterdir():
        if old < mine:
            old.unlink(missing_ok=True)
    return mine


def _newest(at: Remote) -> tuple[Remote, dict[str, Any]] | None:
    """The object of the highest number, and what it says; None where nobody held the lock yet."""
    while objects := list(at.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # a newer one came in between
            return objects[-1], json.loads(objects[-1].read_bytes())
    return None


def _state(owner: str, let_go: bool) -> bytes:
    now = datetime.datetime.now(datetime.UTC).isoformat()
    said = {"owner": owner, "machine": platform.node(), "here": _here(), "process": os.getpid(), "time": now}
    return json.dumps(said | {"let_go": let_go}).encode()


def _let_go(said: dict[str, Any]) -> bool:
    return bool(said["let_go"])


def _age(said: dict[str, Any]) -> float:
    then = datetime.datetime.fromisoformat(said["time"])
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()


def _is_dead(said: dict[str, Any]) -> bool:
    """Whether it was a process of this machine that is gone."""
    return bool(said["here"]) and said["here"] == _here() and not alive(said["process"])


def _is_over(said: dict[str, Any]) -> bool:
    return _let_go(said) or _is_dead(said) or _age(said) > STALE


def _who(found: tuple[Remote, dict[str, Any]]) -> str:
    said = found[1]
    return (
        f"It is process {said['process']} on {said['machine']}, last heard of {max(_age(said), 0):.0f} s ago. If "
        f"it was killed, its lock goes {STALE:.0f} s after that; or delete {found[0]}."
    )


def _here() -> str:
    """A hash of where numbers of processes mean what they mean here; empty where that can't be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return key_of(platform.node(), os.readlink("/proc/self/ns/pid"), boot)[:16]
    except OSError:
        return ""
