"""Audits that are run again and again, without Prefect: what new images cost, comparison, history, messages."""

from __future__ import annotations

import html
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.chain import locked, run_audit
from pipeline.config import Audit
from pipeline.errors import Busy, UserError
from pipeline.evidence.change import Comparison, compare
from pipeline.history import history, retire, to_retire
from pipeline.notify import send
from pipeline.operate import Outcome, audit_once, say
from pipeline.store import AuditFolder
from tests.conftest import add_patch, noisy_picture, write_patched_set
from tests.test_cli import configuration, cuescope

pytestmark = pytest.mark.slow
KEY = "s3cr3t-t0k3n-8471"


def add_pictures(root: Path, label: str, count: int, share: float, seed: int) -> None:
    """More random pictures of a class, of which a share shows the red patch."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        picture = noisy_picture(rng)
        if rng.random() < share:
            picture = add_patch(picture, rng)
        Image.fromarray(picture).save(root / label / f"new-{seed}-{number:03d}.png")


def folders(root: Path) -> list[Path]:
    return [past.path for past in history(root)]


def again(base: Path, *overrides: str) -> Outcome:
    """One more audit, in this process."""
    audit = Audit.from_yaml(base / "audit.yaml", list(overrides))
    return audit_once(audit, base / "R", lambda audit, out, before: run_audit(audit, out, previous=before))


def since(base: Path) -> Comparison:
    """The newest audit compared with the first."""
    found = folders(base / "R")
    return compare(AuditFolder(found[0]), AuditFolder(found[-1]))


def of_kind(found: Comparison, *kinds: str) -> list[dict[str, Any]]:
    return [row for row in found.changes.to_pylist() if row["change"] in kinds]


def with_operate(base: Path, **operate: Any) -> None:
    config = yaml.safe_load((base / "audit.yaml").read_text())
    (base / "audit.yaml").write_text(yaml.safe_dump(config | {"operate": operate}))


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of 300 pictures, its configuration and a first audit."""
    base = tmp_path_factory.mktemp("audits") / "base"
    base.mkdir()
    write_patched_set(base / "images", per_class=100, seed=3)
    configure(base)
    again(base)
    return base


def configure(base: Path) -> None:
    configuration(base, base / "images", measure={"max_per_class": 4}, shard=100)


@pytest.fixture
def copied(audited: Path, tmp_path: Path) -> Path:
    """The same, to be changed by one test."""
    shutil.copytree(audited, tmp_path / "base")
    configure(tmp_path / "base")
    return tmp_path / "base"


def test_new_images_like_the_old_ones_cost_themselves_and_change_nothing(copied: Path) -> None:
    add_pictures(copied / "images", "a", 1, 1.0, 1)
    add_pictures(copied / "images", "c", 2, 0.08, 2)
    outcome = again(copied)
    first = AuditFolder(folders(copied / "R")[0]).run()["forwards"]
    forwards = outcome.folder.run()["forwards"]
    assert forwards["predict"] == forwards["embed"] == 3
    # of the edits only those whose pictures gave way to new ones are made again: 1 % of the images are new
    assert forwards["ablate"] <= 0.02 * first["ablate"] + 2
    found = since(copied)
    assert found.images["added"] == 3 and found.images["added_by_class"] == {"a": 1, "c": 2}
    assert found.causes == [] and not found.got_worse and not of_kind(found, "better", "gone")
    assert found.drift == []
    assert outcome.comparison is not None and outcome.comparison["counts"] == found.counts


def test_a_cue_that_spreads_is_named_and_ends_with_exit_code_3(copied: Path) -> None:
    add_pictures(copied / "images", "a", 70, 1.0, 33)
    done = cuescope("audit", copied / "audit.yaml", "--root", copied / "R", "--no-prefect", "--set", "renew=0.8")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "what changed is the data" in done.stdout
    first, second = folders(copied / "R")
    page = html.unescape((second / "report.html").read_text())
    assert "Since the audit before" in page
    drift = compare(AuditFolder(first), AuditFolder(second)).drift
    assert ("added images", "mix of classes") in {(row["check"], row["what"]) for row in drift}  # 70 of one class alone
    assert all(row["verdict"] in page for row in drift)
    assert " ".join(drift[0]["verdict"].split()) in " ".join(done.stdout.split())
    shown = cuescope("diff", first, second, "--json")
    assert shown.returncode == 3
    worse = [row for row in json.loads(shown.stdout)["findings"] if row["change"] == "worse"]
    assert worse and {row["class"] for row in worse} == {"a"}
    for row in worse:
        assert row["q"] < 0.05 and row["prevalence_class_after"] > row["prevalence_class_before"] + 0.05
        assert row["data_part_lower"] > 0 and row["matched_by"]
    back = compare(AuditFolder(second), AuditFolder(first))  # the other way round it got better
    assert not back.got_worse and len(of_kind(back, "better")) == len(worse)


def test_another_model_is_named_and_no_change_is_put_down_to_the_data(copied: Path) -> None:
    outcome = again(copied, "model.options={love: 0.8}")  # it no longer sees the patch
    found = since(copied)
    assert {"the model under test", "configuration: model.options.love"} <= {row["what"] for row in found.causes}
    assert outcome.folder.run()["forwards"]["embed"] == 0  # only what depends on the model is computed again
    assert of_kind(found, "better", "gone")


def test_an_effect_that_was_not_tested_is_said_to_be(copied: Path) -> None:
    again(copied, "ablate.enabled=false")
    found = since(copied)
    lost = [row for row in found.changes.to_pylist() if row["verdict_before"] == "confirmed"]
    assert lost and all(row["change"] == "not compared" and np.isnan(row["p"]) and row["why"] for row in lost)
    assert found.counts["gone"] == 0


def test_history_lists_what_there_is_and_keeps_as_many_as_it_is_told(copied: Path) -> None:
    add_pictures(copied / "images", "b", 1, 0.0, 5)
    again(copied)
    torn = copied / "R" / "2026-01-01-000000"
    shutil.copytree(folders(copied / "R")[0], torn)
    run = json.loads((torn / "run.json").read_text())
    (torn / "run.json").write_text(json.dumps({**run, "finished": None}))
    (copied / "R" / "notes").mkdir()
    (copied / "R" / "2026-02-02-000000").mkdir()
    listed = json.loads(cuescope("history", copied / "R", "--json").stdout)
    assert [row["state"] for row in listed] == ["unfinished", "finished", "finished"]
    assert listed[2]["images"] == 301 and listed[2]["confirmed"] >= 1 and listed[2]["worst"].startswith("a: ")
    assert listed[2]["counts"]["unchanged"] >= 1 and listed[1]["counts"] is None
    kept = cuescope("history", copied / "R", "--keep", "1")
    assert kept.returncode == 0 and kept.stderr.count("Deleted") == 2
    assert len(folders(copied / "R")) == 1 and (copied / "R" / "notes").is_dir()
    # what was computed is still there
    assert sum(again(copied).folder.run()["forwards"].values()) == 0


def test_a_running_audit_is_never_deleted(audited: Path, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copytree(audited / "R", tmp_path, dirs_exist_ok=True)
        (tmp_path / folders(audited / "R")[0].name).rename(tmp_path / f"2026-01-0{number + 1}-000000")
    with locked(AuditFolder(tmp_path / "2026-01-01-000000")):
        run = json.loads((tmp_path / "2026-01-01-000000" / "run.json").read_text())
        (tmp_path / "2026-01-01-000000" / "run.json").write_text(json.dumps({**run, "finished": None}))
        pasts = history(tmp_path)
        assert [past.state for past in pasts] == ["running", "finished", "finished"]
        retire(to_retire(pasts, 1))
    assert [past.path.name for past in history(tmp_path)] == ["2026-01-01-000000", "2026-01-03-000000"]


def test_the_configuration_says_how_many_are_kept(copied: Path) -> None:
    with_operate(copied, keep=1)
    (first,) = folders(copied / "R")
    outcome = again(copied)
    assert say(outcome) == [f"Deleted by operate.keep: {first}"]
    assert not first.exists() and folders(copied / "R") == [outcome.folder.path]
    assert outcome.comparison is not None and outcome.comparison["before"] == str(first)


def test_a_second_run_at_once_is_told_so(copied: Path) -> None:
    with locked(AuditFolder(copied / "R")), pytest.raises(Busy, match="Another run"):
        again(copied)
    assert len(folders(copied / "R")) == 1


@pytest.fixture
def mailbox() -> Iterator[tuple[str, list[dict]]]:
    """A server on loopback that takes what apprise posts."""
    taken: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["content-length"]))) | {"at": self.path})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/{KEY}", taken
    server.shutdown()


def test_people_are_told_in_plain_words_and_the_address_is_written_nowhere(
    copied: Path, mailbox, monkeypatch, capfd, caplog
) -> None:
    address, taken = mailbox
    monkeypatch.setenv("NOTIFY_HERE", address)
    with_operate(copied, notify=["${NOTIFY_HERE}", "${NOWHERE}", "json://127.0.0.1:9/"])
    add_pictures(copied / "images", "a", 70, 1.0, 33)
    outcome = again(copied, "renew=0.8")  # a message that failed is no failure of the audit
    (message,) = taken
    assert message["at"].rstrip("/").endswith(KEY) and "worse" in message["title"]
    assert str(outcome.folder.path / "report.html") in message["message"] and "rose by" in message["message"]
    assert outcome.faults[0] == "notification 2 failed: the environment variable NOWHERE is not set"
    assert len(outcome.faults) == 2 and outcome.faults[1].startswith("notification 3 failed")
    said = capfd.readouterr()
    assert KEY not in said.out + said.err + caplog.text + "".join(outcome.faults)
    for file in copied.rglob("*"):
        if file.is_file() and file.name != "audit.yaml":
            data = file.read_bytes()
            assert KEY.encode() not in data and b"NOTIFY_HERE" not in data, file


def test_a_failed_audit_is_told_and_one_that_went_well_is_not(copied: Path, mailbox, monkeypatch) -> None:
    address, taken = mailbox
    monkeypatch.setenv("NOTIFY_HERE", address)
    with_operate(copied, notify=["${NOTIFY_HERE}"])
    again(copied)
    assert taken == []

    def breaks(audit: Audit, out: Path, before: Path | None) -> None:
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="full"):
        audit_once(Audit.from_yaml(copied / "audit.yaml"), copied / "R", breaks)
    assert len(taken) == 1 and "failed" in taken[0]["title"] and "the disk is full" in taken[0]["message"]


def test_a_service_that_fails_in_any_way_is_named_by_its_place_alone(monkeypatch) -> None:
    import apprise

    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"no route to {KEY}")

    monkeypatch.setattr(apprise.Apprise, "instantiate", explode)
    assert send([f"json://127.0.0.1/{KEY}"], "t", "b") == ["notification 1 failed: RuntimeError"]


@pytest.mark.parametrize(
    "address", [f"slack://T1234/A1234/{KEY}", f"json://me:{KEY}@example.org/", f"json://example.org/?:key={KEY}"]
)
def test_an_address_with_its_secret_written_out_is_refused_and_not_repeated(tmp_path: Path, address: str) -> None:
    configuration(tmp_path, tmp_path)
    with_operate(tmp_path, notify=[address])
    with pytest.raises(UserError, match="environment variable") as refused:
        Audit.from_yaml(tmp_path / "audit.yaml")
    assert KEY not in str(refused.value)


def test_choices_are_made_anew_when_the_selection_half_has_grown(copied: Path) -> None:
    add_pictures(copied / "images", "a", 15, 0.6, 7)
    add_pictures(copied / "images", "b", 15, 0.08, 8)
    kept = again(copied)
    assert 5 <= kept.folder.read("images")["split"].to_pylist().count("set aside") <= 25
    assert any("set" not in entry["why"] and "renew" in entry["why"] for entry in kept.folder.run()["skipped"])
    anew = again(copied, "renew=0.02")
    assert "set aside" not in anew.folder.read("images")["split"].to_pylist()
    assert anew.comparison is not None
    assert "the images that cues were chosen on" in {row["what"] for row in anew.comparison["causes"]}


def test_an_audit_that_did_not_finish_can_not_be_compared(copied: Path) -> None:
    (first,) = folders(copied / "R")
    torn = copied / "torn"
    shutil.copytree(first, torn)
    (torn / "findings.parquet").unlink()
    done = cuescope("diff", first, torn)
    assert done.returncode == 2 and "didn't finish" in done.stderr and "Traceback" not in done.stderr
