"""One writer at a time, on disks and on object stores."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import locks
from pipeline.chain import locked, note
from pipeline.errors import Busy
from pipeline.locks import alone, is_held
from pipeline.places import Place, Remote, place
from pipeline.store import AuditFolder
from tests.object_store import BUCKET, s3_server

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture(params=["s3", "memory"])
def at(request: pytest.FixtureRequest, server: dict[str, str], tmp_path: Path) -> Remote:
    """A lock on an object store."""
    base = {"s3": BUCKET, "memory": "memory://bucket"}[request.param]
    found = place(f"{base}/{tmp_path.name}/.lock")
    assert isinstance(found, Remote)
    return found


def state(**changes: object) -> bytes:
    """What a holder on another machine would have written."""
    other = {"owner": "other", "here": "elsewhere", "machine": "far", "process": 1}
    return json.dumps(json.loads(locks._state("", False)) | other | changes).encode()


def ago(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)).isoformat()


def test_a_lock_is_held_by_one_and_then_by_the_next(at: Remote) -> None:
    assert not is_held(at)
    for _ in range(3):
        with alone(at, "Taken."):
            assert is_held(at)
            with pytest.raises(Busy, match=r"Taken\. It is process \d+ on "), alone(at, "Taken."):
                raise AssertionError
        assert not is_held(at)
    assert [one.name for one in at.iterdir()] == ["00000003.json"]


def test_of_many_at_once_one_gets_it(at: Remote) -> None:
    inside: list[int] = []
    most: list[int] = []
    gate = threading.Barrier(6)

    def go(number: int) -> int:
        got = 0
        gate.wait()
        for _ in range(4):
            try:
                with alone(at, "Taken."):
                    inside.append(number)
                    most.append(len(inside))
                    time.sleep(0.02)
                    inside.remove(number)
                    got += 1
            except Busy:
                time.sleep(0.01)
        return got

    with ThreadPoolExecutor(6) as pool:
        taken = sum(pool.map(go, range(6)))
    assert taken >= 1 and set(most) == {1}


def test_who_waits_gets_it(at: Remote) -> None:
    order: list[str] = []

    def late() -> None:
        with alone(at, "Taken.", patience=20):
            order.append("late")

    thread = threading.Thread(target=late)
    with alone(at, "Taken."):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "late"]


def test_the_lock_of_a_process_that_is_gone_is_taken_at_once(at: Remote) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    at.__truediv__("00000004.json").write_bytes(state(here=locks._here(), process=gone.pid))
    assert not is_held(at)
    began = time.monotonic()
    with alone(at, "Taken."):
        assert [one.name for one in at.iterdir()] == ["00000005.json"]
    assert time.monotonic() - began < 10


def test_a_run_of_another_machine_is_believed_for_a_while(at: Remote) -> None:
    (at / "00000001.json").write_bytes(state(time=ago(30)))
    with pytest.raises(Busy, match=r"process 1 on far, last heard of 3\d s ago.*delete .*00000001\.json"):
        alone(at, "Taken.").__enter__()
    assert is_held(at)


def test_the_lock_of_a_dead_machine_is_taken_after_it_was_watched(at: Remote, monkeypatch, caplog) -> None:
    monkeypatch.setattr(locks, "WATCH", 0.1)
    (at / "00000001.json").write_bytes(state(time=ago(500)))
    with alone(at, "Taken."):
        assert is_held(at)
    assert "may have been killed" in caplog.text


def test_a_holder_whose_clock_is_slow_is_not_robbed(at: Remote, monkeypatch) -> None:
    monkeypatch.setattr(locks.time, "sleep", lambda _: (at / "00000001.json").write_bytes(state(time=ago(490))))
    (at / "00000001.json").write_bytes(state(time=ago(500)))
    with pytest.raises(Busy):
        alone(at, "Taken.").__enter__()


def test_the_holder_gives_signs_of_life(at: Remote, monkeypatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.05)
    with alone(at, "Taken."):
        seen = set()
        for _ in range(100):
            seen.add((at / "00000001.json").read_bytes())
            if len(seen) > 2:
                break
            time.sleep(0.05)
    assert len(seen) > 2


def test_who_looked_long_ago_does_not_take_a_number_that_is_over(at: Remote, monkeypatch) -> None:
    """Between a look and the next number others have come and gone: that number is free again, and means nothing."""
    (at / "00000008.json").write_bytes(state(let_go=True))
    create = Remote.create

    def late(self: Remote, data: bytes) -> None:
        (at / "00000010.json").write_bytes(state())
        (at / "00000008.json").unlink()
        create(self, data)

    monkeypatch.setattr(Remote, "create", late)
    with pytest.raises(Busy):
        alone(at, "Taken.").__enter__()


def test_a_run_that_was_overtaken_stops_at_the_end_of_a_stage(at: Remote) -> None:
    folder: Place = at.parent
    mine = AuditFolder(folder)
    mine.begun = "mine"
    mine.write_run({"run": "mine"})
    with locked(mine):
        mine.write_run({"run": "another"})
        with pytest.raises(Busy, match="Another run is writing"):
            note(mine, "predict", [], 0.0)
