"""Keys planted where keys are: nothing that a run writes, prints or hands to the scheduler holds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import Audit
from pipeline.errors import UserError
from tests.conftest import ROOT, write_patched_set
from tests.llm_server import Server

KEY = "sk-planted0123456789abcdefghij"
SIGNATURE, PASSWORD, CLOUD = "planted-signature-5f3a", "planted-password-77b1", "planted-cloud-secret-0c9d"
PLANTED = (KEY, SIGNATURE, PASSWORD, CLOUD)
ENVIRONMENT = {
    "OPENAI_API_KEY": KEY,
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED000000000",
    "AWS_SECRET_ACCESS_KEY": CLOUD,
    "HF_TOKEN": CLOUD,
}


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Pictures behind signed addresses; the URL of each with its label. Some are refused, lost or led elsewhere."""
    images = write_patched_set(tmp_path_factory.mktemp("signed") / "images", per_class=24)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            status = 403 if SIGNATURE not in query else 404 if "none" in path else 500 if "broken" in path else 200
            self.send_response(302 if "away" in path else status)
            if "away" in path:
                self.send_header("Location", f"http://u:{PASSWORD}@127.0.0.1:1/x?sig={SIGNATURE}")
            self.end_headers()
            if status == 200 and "away" not in path:
                self.wfile.write((images / path.lstrip("/")).read_bytes())
            else:
                self.wfile.write(self.path.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    rows = [
        (f"{base}/{f.relative_to(images)}?X-Amz-Signature={SIGNATURE}", f.parent.name) for f in images.rglob("*.png")
    ]
    rows.sort()
    for odd in ("none.png", "broken.png", "away.png"):
        rows.append((f"{base}/{odd}?X-Amz-Signature={SIGNATURE}", "a"))
    rows.append((f"http://user:{PASSWORD}@127.0.0.1:{server.server_port}/a/000.png", "a"))
    rows.append((f"ftp://user:{PASSWORD}@host/x.png?sig={SIGNATURE}", "a"))
    rows.append((f"filecache::https://user:{PASSWORD}@host/x.png?sig={SIGNATURE}", "a"))
    rows.append((f"http://user:{PASSWORD}@host name/x.png?sig={SIGNATURE}", "a"))
    rows.append((f"https://host name/x.png?sig={SIGNATURE}", "a"))
    yield rows
    server.shutdown()


def cuescope(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect")}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=500,
        env={**environment, "PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_LOGGING_TO_API_ENABLED": "true"},
    )


def configured(folder: Path, rows: list[tuple[str, str]], server: Server) -> Path:
    (folder / "in").mkdir()
    (folder / "in" / "list.csv").write_text("image,label\n" + "\n".join(f'"{url}",{label}' for url, label in rows))
    audit = {
        "data": {"source": "manifest", "path": "in/list.csv", "allow_http": True, "allow_private": True},
        "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
        "embed": {"kind": "python", "factory": "tests.fakes:colors"},
        "propose": {"kind": "openai", "model": "m", "base_url": server.url},
        "ablate": {"fills": ["mean"], "images": 4},
        "cache": "cache",
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(audit))
    return folder / "audit.yaml"


def written(folder: Path) -> dict[str, str]:
    """Every file below a folder as text, tables by their cells; what was handed in is left out."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and file.parent.name != "in":
            text = file.read_bytes().decode("utf-8", errors="replace")
            if file.suffix == ".parquet":
                text += str(pq.read_table(file).to_pylist())
            found[str(file.relative_to(folder))] = text
    return found


def assert_clean(folder: Path, *runs: subprocess.CompletedProcess[str]) -> None:
    texts = written(folder) | {f"run {i}": run.stdout + run.stderr for i, run in enumerate(runs)}
    for name, text in texts.items():
        for secret in PLANTED:
            assert secret not in text, f"{secret} is in {name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheduler",
    [pytest.param("--no-prefect", id="direct"), pytest.param("", id="prefect", marks=pytest.mark.release)],
)
def test_nothing_that_a_run_leaves_holds_a_key(signed: Any, tmp_path: Path, scheduler: str) -> None:
    echo = json.dumps({"attributes": [{"name": f"red patch {KEY}", "type": "Background", "reason": KEY}]})
    with Server() as server:
        server.replies = [(500, {"error": {"message": f"no capacity for {KEY}"}})]
        server.always = lambda request: echo
        config = configured(tmp_path, signed, server)
        done = cuescope(tmp_path, "discover", config, "--out", "out", *filter(None, [scheduler]))
        assert done.returncode == 0, done.stderr
        assert KEY in server.headers[-1]["authorization"], "the key was in use"
    shown = [cuescope(tmp_path, "show", "out"), cuescope(tmp_path, "show", "out", "--json")]
    made = cuescope(tmp_path, "export", "out", "--to", "csv", "--out", "images.csv", "--set", "rows=images")
    assert made.returncode == 0, made.stderr
    assert_clean(tmp_path, done, made, *shown)
    paths = pq.read_table(tmp_path / "out" / "images.parquet")["path"].to_pylist()
    assert len(paths) == 72 and all(path.startswith("list.csv#row=") for path in paths)
    assert (tmp_path / "out" / "llm.jsonl").is_file()


def test_a_refused_key_is_not_repeated(signed: Any, tmp_path: Path) -> None:
    with Server() as server:
        server.always = lambda request: (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
        done = cuescope(tmp_path, "discover", configured(tmp_path, signed, server), "--out", "out", "--no-prefect")
    assert done.returncode == 2 and "OPENAI_API_KEY" in done.stderr and "Traceback" not in done.stderr
    assert_clean(tmp_path, done)


PLACES: list[dict[str, Any]] = [
    {"data": {"source": "manifest", "path": f"https://user:{PASSWORD}@host/list.csv"}},
    {"data": {"source": "manifest", "path": f"https://host/list.csv?sig={SIGNATURE}"}},
    {"data": {"source": "manifest", "path": "list.csv", "root": f"https://user:{PASSWORD}@host/x"}},
    {"data": {"source": "folder", "path": f"s3://{PASSWORD}:{SIGNATURE}@bucket/x"}},
    {"data": {"source": "folder", "path": "s3://bucket/x", "storage": {"secret": CLOUD}}},
    {"data": {"source": "folder", "path": "s3://b/x", "storage": {"client_kwargs": {"aws_secret_access_key": CLOUD}}}},
    {"data": {"source": "folder", "path": "s3://b/x", "storage": {"endpoint_url": f"https://u:{PASSWORD}@host"}}},
    {"propose": {"kind": "openai", "model": "m", "api_key": KEY}},
    {"propose": {"kind": "openai", "model": "m", "api_key_env": KEY}},
    {"propose": {"kind": "openai", "model": "m", "base_url": f"https://host/v1?api-key={SIGNATURE}"}},
    {"propose": {"kind": "openai", "model": "m", "base_url": f"https://u:{PASSWORD}@host/v1"}},
    {"model": {"kind": "python", "factory": "tests.fakes:patch_lover", "options": {"token": CLOUD}}},
    {"model": {"kind": "python", "factory": "tests.fakes:patch_lover", "options": {"headers": {"Authorization": KEY}}}},
    {"model": {"kind": "python", "factory": "tests.fakes:patch_lover", "options": {"anything": KEY}}},
    {"caption": {"kind": "openai", "model": KEY}},
]


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
def test_a_secret_in_a_configuration_is_refused_and_not_repeated(tmp_path: Path, place: dict[str, Any]) -> None:
    raw = {
        "data": {"source": "folder", "path": "images"},
        "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
        **place,
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError) as caught:
        audit = Audit.from_yaml(tmp_path / "audit.yaml")
        from pipeline.chain import prepare

        prepare(audit, tmp_path / "out")
    assert not any(secret in str(caught.value) for secret in PLANTED), caught.value
    assert "environment" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", [f"propose: {{api_key: {KEY}: x", f"a: '{KEY}", f"\t{KEY}", f"a: &{KEY} *{KEY}x", f"a: !{KEY} b"]
)
def test_a_broken_configuration_is_not_repeated(tmp_path: Path, text: str) -> None:
    (tmp_path / "audit.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        Audit.from_yaml(tmp_path / "audit.yaml")
    assert KEY not in str(caught.value), caught.value


def test_words_of_the_user_are_no_secrets() -> None:
    raw = {
        "data": {
            "source": "folder",
            "path": "images",
            "storage": {"endpoint_url": "http://127.0.0.1:9000", "anon": True},
        },
        "model": {"kind": "python", "factory": "tests.fakes:patch_lover", "options": {"max_new_tokens": 3}},
        "propose": {"kind": "openai", "model": "m", "api_key_env": "MY_KEY", "base_url": "http://127.0.0.1:11434/v1"},
        "prompts": {"secret_door": "a secret door", "token": "a token"},
        "classes": ["secret_door", "token"],
    }
    assert Audit.from_dict(raw).prompts["secret_door"] == "a secret door"


def test_the_key_would_be_found_if_it_were_there(tmp_path: Path) -> None:
    """The search itself: in a table, in text."""
    import pyarrow as pa

    pq.write_table(pa.table({"a": [np.str_(KEY)] * 3}), tmp_path / "x.parquet", compression="zstd")
    with pytest.raises(AssertionError, match=r"x\.parquet"):
        assert_clean(tmp_path)
