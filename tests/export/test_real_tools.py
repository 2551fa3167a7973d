"""Exports in the real tools, each in an environment of its own: a Label Studio server on loopback, and FiftyOne.

Run by `pytest -m tools` alone: the first run installs them (about 2 GB). Set CUESCOPE_TOOLS to a folder to keep them
elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import discover
from pipeline.api import Result
from pipeline.records import ANSWERS
from pipeline.store import AuditFolder
from tests.chromium import browser
from tests.test_chain import audit_of
from tests.test_cli import cuescope
from tests.tools import environment

pytestmark = [pytest.mark.tools, pytest.mark.slow, pytest.mark.timeout(4000)]

TOKEN = "5f1c7d0a9b8e4c3d2a1b0c9d8e7f6a5b4c3d2e1f"
MAIL, PASSWORD = "labeler@example.org", "a-long-password-1"


@pytest.fixture(scope="module")
def audited(patched_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    base = tmp_path_factory.mktemp("tools")
    return discover(audit_of(patched_set, base / "cache", ablate={"fills": ["mean"], "images": 16}), base / "audit")


class Server:
    """A Label Studio server, spoken to as its own clients do."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer of an API call, or the bytes of another."""
        request = urllib.request.Request(
            f"{self.address}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                data = answer.read()
                return json.loads(data) if "json" in answer.headers.get("Content-Type", "") else data
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()[:2000]!r}") from None


@pytest.fixture(scope="module")
def server(patched_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    python = environment("label-studio", "label-studio==1.23.2")
    home = tmp_path_factory.mktemp("label-studio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(home),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(patched_set.parent),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_HOST": f"http://127.0.0.1:{port}",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    outer = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DJANGO_SETTINGS_MODULE")}
    log = home / "server.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [str(python.parent / "label-studio"), "start", "--no-browser", "--port", str(port),
             "--internal-host", "127.0.0.1", "--username", MAIL, "--password", PASSWORD, "--user-token", TOKEN],
            env=outer | settings, cwd=home, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    made = Server(f"http://127.0.0.1:{port}")
    try:
        until = time.monotonic() + 600
        while True:
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the server didn't start: {log.read_text()[-3000:]}")
            with contextlib.suppress(OSError, AssertionError):
                made.call("GET", "/api/projects")
                break
            time.sleep(2)
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def project(server: Server, audited: Result, patched_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project made from the export: its id, the tasks that were written, the tasks as the server has them."""
    out = tmp_path_factory.mktemp("export") / "tasks.json"
    done = cuescope("export", audited.path, "--to", "label-studio", "--out", out)
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text("utf-8"))
    made = server.call(
        "POST", "/api/projects", {"title": "Cues", "label_config": out.with_suffix(".xml").read_text("utf-8")}
    )
    server.call(
        "POST",
        "/api/storages/localfiles",
        {"project": made["id"], "path": str(patched_set), "use_blob_urls": True, "title": "pictures"},
    )
    taken = server.call("POST", f"/api/projects/{made['id']}/import", written)
    assert taken["task_count"] == len(written) and taken["prediction_count"] == len(written)
    tasks = server.call("GET", f"/api/tasks?project={made['id']}&page_size={len(written)}&fields=all")["tasks"]
    return made["id"], written, tasks


def test_every_task_arrives_with_its_boxes_and_ids(project: Any) -> None:
    _, written, tasks = project
    assert len(tasks) == len(written)
    sent = {(t["data"]["finding_id"], t["data"]["image_id"]): t for t in written}
    boxes = 0
    for task in tasks:
        mine = sent[task["data"]["finding_id"], task["data"]["image_id"]]
        assert task["data"] == mine["data"]
        (prediction,) = task["predictions"]
        assert [part["value"] for part in prediction["result"]] == [
            part["value"] for part in mine["predictions"][0]["result"]
        ]
        boxes += len(prediction["result"])
    assert boxes > 20


def test_the_server_finds_each_picture(server: Server, project: Any, audited: Result, patched_set: Path) -> None:
    _, _, tasks = project
    paths = {row["image_id"]: row["path"] for row in audited.table("images").to_pylist()}
    for task in tasks[:10]:
        shown = server.call("GET", task["data"]["image"])
        assert shown == (patched_set / paths[task["data"]["image_id"]]).read_bytes()


def test_an_annotation_made_on_the_server_comes_back_as_a_verdict(
    server: Server, project: Any, audited: Result, tmp_path: Path
) -> None:
    number, _, tasks = project
    finding = next(row for row in audited.findings if row["class"] == "a" and row["rank"] == 1)
    mine = [task for task in tasks if task["data"]["finding_id"] == finding["finding_id"]]
    with_cue = [task for task in mine if task["data"]["expected"] == "present"][:3]
    (without, *_) = [task for task in mine if task["data"]["expected"] == "absent"]
    for task, verdict in [*((task, "core") for task in with_cue), (without, "not present")]:
        drawn = [part for part in task["predictions"][0]["result"] if part["type"] == "rectanglelabels"]
        choice = {"type": "choices", "from_name": "verdict", "to_name": "image", "value": {"choices": [verdict]}}
        server.call("POST", f"/api/tasks/{task['id']}/annotations", {"result": [*drawn, choice], "lead_time": 3.0})
    exported = tmp_path / "export.json"
    exported.write_text(
        json.dumps(server.call("GET", f"/api/projects/{number}/export?exportType=JSON&download_all_tasks=true")),
        "utf-8",
    )
    done = cuescope("import-verdicts", audited.path, exported)
    assert done.returncode == 0, done.stderr
    assert "4 answers kept" in done.stdout and "core (1 core)" in done.stdout
    rows = {row["image_id"]: row for row in AuditFolder.open(audited.path).read("verdicts").to_pylist()}
    assert {rows[task["data"]["image_id"]]["verdict"] for task in with_cue} == {"core"}
    assert rows[without["data"]["image_id"]]["present"] is False
    for task in with_cue:
        assert len(rows[task["data"]["image_id"]]["boxes"]) == len(task["predictions"][0]["result"])
    (after,) = [row for row in audited.findings if row["finding_id"] == finding["finding_id"]]
    assert (after["verdict"], after["labelers"]) == ("core", "core")


def test_the_other_format_of_the_server_is_refused(
    server: Server, project: Any, audited: Result, tmp_path: Path
) -> None:
    number, _, _ = project
    path = tmp_path / "min.json"
    content = server.call("GET", f"/api/projects/{number}/export?exportType=JSON_MIN&download_all_tasks=true")
    path.write_text(json.dumps(content), "utf-8")
    done = cuescope("import-verdicts", audited.path, path)
    assert done.returncode == 2 and "JSON-MIN" in done.stderr and "Traceback" not in done.stderr


def test_the_page_shows_the_picture_with_its_boxes(server: Server, project: Any, tmp_path: Path) -> None:
    number, _, tasks = project
    task = next(task for task in tasks if task["predictions"][0]["result"])
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{server.address}/user/login/")
        page.fill("input[name=email]", MAIL)
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "/user/login" not in url, timeout=120_000)
        page.goto(f"{server.address}/projects/{number}/data?task={task['id']}", wait_until="domcontentloaded")
        page.get_by_text(task["data"]["question"]).wait_for(timeout=120_000)
        # the picture that is labelled, not its thumbnail in the list of tasks
        picture = page.wait_for_selector("img[alt='image']", state="attached", timeout=120_000)
        page.wait_for_function("element => element.naturalWidth > 0", arg=picture, timeout=120_000)
        for choice in ANSWERS:
            assert page.get_by_text(choice, exact=False).count() > 0
        # once as a label to draw with, once as the region that is drawn
        label = page.get_by_text(task["data"]["box_label"], exact=True)
        page.wait_for_function("n => document.body.innerText.split(n).length > 3", arg=task["data"]["box_label"])
        assert label.count() >= 2
        page.screenshot(path=str(tmp_path / "label-studio.png"))


LOAD = """
import json, sys
import fiftyone.utils.coco as coco
folder, labels = sys.argv[1:]
images, boxes = 0, []
# what fo.Dataset.from_dir reads with; a data set itself would need a MongoDB
with coco.COCODetectionDatasetImporter(data_path=folder, labels_path=labels, label_types="detections") as importer:
    for path, metadata, found in importer:
        images += open(path, "rb").read(1) != b"" and (metadata.width, metadata.height) == (48, 48)
        boxes += found.detections if found else []
fields = sorted({name for box in boxes for name, _ in box.iter_fields()})
print(json.dumps({"images": images, "labels": sorted(box.label for box in boxes), "fields": fields,
                  "inside": all(0 <= v <= 1 for box in boxes for v in box.bounding_box)}))
"""


def test_fiftyone_loads_the_coco_file(audited: Result, patched_set: Path, tmp_path: Path) -> None:
    python = environment("fiftyone", "fiftyone==1.22.1", "pycocotools")
    labels = tmp_path / "instances.json"
    done = cuescope("export", audited.path, "--to", "coco", "--out", labels)
    assert done.returncode == 0, done.stderr
    made = json.loads(labels.read_text("utf-8"))
    outer = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    home = {"FIFTYONE_DO_NOT_TRACK": "true", "HOME": str(tmp_path)}
    command = [str(python), "-c", LOAD, str(patched_set), str(labels)]
    read = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=outer | home)
    assert read.returncode == 0, read.stderr[-3000:]
    found = json.loads(read.stdout.strip().splitlines()[-1])
    names = {category["id"]: category["name"] for category in made["categories"]}
    assert found["images"] == len(made["images"]) and found["inside"]
    assert found["labels"] == sorted(names[annotation["category_id"]] for annotation in made["annotations"])
    assert {"finding_ids", "verdicts", "presence", "whole_image"} <= set(found["fields"])


def test_datasets_loads_the_imagefolder(audited: Result, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    done = cuescope("export", audited.path, "--to", "imagefolder", "--out", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert any(row["objects"]["bbox"] for row in loaded["train"]) and loaded["train"][0]["image"].size == (48, 48)
