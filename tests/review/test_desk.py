"""Verdicts from the page of a review: kept at once, heeded by the findings, and by the next audit of the data set."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import discover
from pipeline.chain import locked
from pipeline.errors import UserError
from pipeline.review import desk as desks
from pipeline.review.desk import Desk, Said
from pipeline.review.server import Server
from pipeline.store import AuditFolder
from pipeline.verdicts import kept
from tests import chromium
from tests.chromium import Visit
from tests.conftest import ROOT
from tests.test_chain import audit_of

pytestmark = pytest.mark.slow


def quick(images: Path, base: Path) -> Any:
    return audit_of(images, base / "cache", ablate={"fills": ["mean"], "images": 16})


@pytest.fixture(scope="module")
def audit(patched_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("review")
    return discover(quick(patched_set, base), base / "first").path


@pytest.fixture
def desk(audit: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(desks, "QUIET", 0.05)
    monkeypatch.setattr(desks, "AGAIN", 0.1)
    desk = Desk(AuditFolder.open(audit))
    yield desk
    desk.close()


def of_class(path: Path, label: str) -> list[dict[str, Any]]:
    rows = AuditFolder(path).read("findings").to_pylist()
    return sorted((row for row in rows if row["class"] == label), key=lambda row: row["rank"])


def until(what: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    return AuditFolder(path).read("verdicts").to_pylist()


def test_a_verdict_is_in_the_table_at_once_and_in_the_findings_soon(desk: Desk, audit: Path) -> None:
    last = of_class(audit, "c")[-1]
    desk.say(Said(last["finding_id"], "anna", "spurious", note="a lamp", called="street lamp"))
    (row,) = [row for row in rows_of(audit) if row["cue_id"] == last["cue_id"] and row["class"] == "c"]
    assert (row["verdict"], row["annotator"], row["note"], row["called"]) == (
        "spurious",
        "anna",
        "a lamp",
        "street lamp",
    )
    assert row["source"] == "review" and row["image_id"] == ""
    assert row in kept.read(desk.context.verdicts).to_pylist(), "and with the data set, for later audits"
    first = until(lambda: (now := of_class(audit, "c")[0])["labelers"] and now)
    assert (first["finding_id"], first["called"]) == (last["finding_id"], "street lamp")
    until(lambda: "street lamp" in (audit / "report.html").read_text("utf-8"))
    assert desk.state()["trouble"] == []
    desk.say(Said(last["finding_id"], "anna"))  # taken back
    until(lambda: not any(row["labelers"] or row["called"] for row in of_class(audit, "c")))


def test_what_two_say_of_merged_cues_is_said_of_one(desk: Desk, audit: Path) -> None:
    one, other = (row["finding_id"] for row in of_class(audit, "b")[:2])
    desk.say(Said(other, "ben", "spurious"))
    desk.say(Said(one, "anna", "core", same_as=other))
    state = desk.state()["findings"]
    assert state[one]["verdict"] == state[other]["verdict"] == "disagreed"
    desk.say(Said(other, "cem", "core"))
    state = desk.state()["findings"]
    assert state[one]["verdict"] == state[other]["verdict"] == "core"
    assert {who["annotator"]: who["verdict"] for who in state[other]["people"]} == {
        "ben": "spurious",
        "anna": "",
        "cem": "core",
    }

    def both() -> Any:
        found = {row["finding_id"]: row for row in of_class(audit, "b")}
        return found if found[one]["verdict"] == found[other]["verdict"] == "core" else None

    found = until(both)
    assert found[one]["called"] == found[other]["called"]
    assert {bool(found[one]["same_as"]), bool(found[other]["same_as"])} == {True, False}, "the lower one says so"


def test_while_another_run_writes_verdicts_are_kept_and_wait(desk: Desk, audit: Path) -> None:
    finding = of_class(audit, "c")[-1]["finding_id"]
    with locked(AuditFolder(audit)):
        before = rows_of(audit)
        desk.say(Said(finding, "dora", "unsure"))
        assert rows_of(audit) == before
        assert any(row["annotator"] == "dora" for row in kept.read(desk.context.verdicts).to_pylist())
    until(lambda: any(row["annotator"] == "dora" for row in rows_of(audit)))


def test_reviewers_at_two_desks_see_each_other(desk: Desk, audit: Path) -> None:
    finding = of_class(audit, "c")[-1]["finding_id"]
    second = Desk(AuditFolder.open(audit))
    second.say(Said(finding, "emil", "core"))
    assert "emil" in {who["annotator"] for who in desk.state()["findings"][finding]["people"]}
    second.say(Said(finding, "emil"))
    second.close()


def test_what_the_audit_does_not_hold_is_refused(desk: Desk, audit: Path) -> None:
    before = rows_of(audit)
    finding = of_class(audit, "a")[0]["finding_id"]
    other = of_class(audit, "b")[0]["finding_id"]
    for said in (Said("nothing", "anna", "core"), Said(finding, "anna", image="nothing", present=True),
                 Said(finding, "anna", same_as=other), Said(finding, "anna", same_as=finding)):  # fmt: skip
        with pytest.raises(UserError):
            desk.say(said)
    assert rows_of(audit) == before


def test_pictures_are_made_anew_and_missing_ones_are_none(desk: Desk, audit: Path) -> None:
    image = of_class(audit, "a")[0]["evidence_ids"][0]
    for picture in (desk.picture("image", image), desk.picture("edit", next(iter(desk._edits)), "placebo")):
        assert picture is not None and picture[:4] == b"RIFF" and picture[8:12] == b"WEBP"
    for parts in (
        ("image", "nothing"),
        ("edit", "nothing", "edit"),
        ("regions", "../x"),
        ("edit", image),
        ("more", "x"),
    ):
        assert desk.picture(*parts) is None


def test_the_next_audit_heeds_it(audit: Path, patched_set: Path, desk: Desk) -> None:
    top = next(row for row in of_class(audit, "a") if row["verdict"] == "confirmed")
    desk.say(Said(top["finding_id"], "anna", "core"))
    desk.close()
    again = discover(quick(patched_set, audit.parent), audit.parent / "second")
    now = next(row for row in again.findings if row["finding_id"] == top["finding_id"])
    assert (now["verdict"], now["labelers"]) == ("core", "core")
    desk.say(Said(top["finding_id"], "anna"))


def test_a_reviewer_at_work(desk: Desk, audit: Path) -> None:
    import threading

    server = Server(desk)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True).start()
    with chromium.browser() as browser:
        visit = Visit(browser, server.address, color_scheme="light")
        page = visit.page
        page.keyboard.press("1")
        page.get_by_text("Say who you are first.").wait_for()
        page.fill("#who", "flora")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("j")
        item = page.locator("article.finding:focus")
        finding = item.get_attribute("data-finding")
        page.keyboard.press("1")
        item.locator("[data-say=spurious][aria-pressed=true]").wait_for()
        page.keyboard.press("n")
        page.fill("#ask-text", "by the shore")
        page.click("#ask-keep")
        item.get_by_text("by the shore").wait_for()
        own = [row for row in rows_of(audit) if row["annotator"] == "flora"]
        assert [(row["verdict"], row["note"]) for row in own] == [("spurious", "by the shore")]
        assert page.inner_text("#said").startswith("1 of ")
        figure = page.locator(f"[data-finding='{finding}'] figure[data-image]").first
        figure.hover()
        figure.get_by_role("button", name="not").click()
        figure.locator("[data-there=false][aria-pressed=true]").wait_for()
        until(
            lambda: (
                [row["present"] for row in rows_of(audit) if row["annotator"] == "flora" and row["image_id"]] == [False]
            )
        )
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("?")
        page.locator("#help").wait_for()
        visit.keep("review-keys")
        page.keyboard.press("Escape")
        visit.keep("review-light-1200")
        assert visit.violations(without="target-size") == []  # what scrolls below the bar is hidden for the moment
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 390, "height": 844})
        visit.keep("review-dark-390")
        assert visit.violations(without="target-size") == []  # what scrolls below the bar is hidden for the moment
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.select_option("#whose", "mine")
        assert page.locator("article.finding:visible").count() == 1
        page.locator("#anew").click(timeout=240_000)
        page.locator("article.finding").first.wait_for()
        assert page.locator("article.finding").first.get_attribute("data-finding") == finding, (
            "followed, so shown first"
        )
        assert visit.said == []
        assert {url.split("/")[2] for url in visit.asked if not url.startswith("data:")} == {
            server.address.split("/")[2]
        }
    server.shutdown()
    server.server_close()


def test_from_the_command_line(audit: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "review", str(audit), "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert started.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", started.stdout.readline())
        assert found is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=120)
        connection.request("GET", f"/{found[2]}/")
        page = connection.getresponse().read().decode()
        assert 'id="desk"' in page and "connect-src 'self'" in page
        body = json.dumps({"finding": of_class(audit, "c")[0]["finding_id"], "who": "gus", "verdict": "unsure"})
        headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{found[1]}"}
        connection.request("POST", f"/{found[2]}/say", body, headers)
        assert connection.getresponse().status == 200
        started.send_signal(signal.SIGINT)
        assert started.wait(240) == 0
    finally:
        started.kill()
    assert any(row["labelers"] == "unsure" for row in of_class(audit, "c")), "heeded before it ended"
    missing = subprocess.run(
        [sys.executable, "-m", "pipeline", "review", "nowhere"], capture_output=True, text=True, cwd=ROOT
    )
    assert missing.returncode == 2 and "no audit folder" in missing.stderr and "Traceback" not in missing.stderr
