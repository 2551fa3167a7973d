"""Audits whose stores lie on an S3-compatible server: the real s3fs and botocore over HTTP on loopback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import Audit, discover
from pipeline.chain import Context, gather, locked, prepare, run_once, run_shard, shards
from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.places import Place, place
from pipeline.store import AuditFolder
from tests.chaos.conftest import SMALL
from tests.conftest import ROOT, write_patched_set
from tests.object_store import BUCKET, s3_server
from tests.test_cli import configuration, cuescope

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patched_set(tmp_path_factory.mktemp("small") / "images", 24)


def config_of(folder: Path, pictures: Path, cache: str, **more) -> Path:
    folder.mkdir(exist_ok=True)
    return configuration(folder, pictures, **(SMALL | {"cache": cache} | more))


def tables(at: Place) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(at.iterdir(), key=str) if file.suffix == ".parquet"}


@pytest.fixture(scope="module")
def local(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of an audit on this machine's disk."""
    base = tmp_path_factory.mktemp("local")
    return tables(discover(Audit.from_yaml(config_of(base, pictures, str(base / "cache"))), base / "A").path)


@pytest.fixture
def root(server: dict[str, str], tmp_path: Path) -> str:
    """An address of this test alone."""
    return f"{BUCKET}/{tmp_path.name}"


def plain(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, and a last line that says these words; no stack trace."""
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("cuescope: ") and all(word in last for word in words), last


def inside(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in this process, which spares its start."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["cuescope", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(arguments, int(code or 0), out.getvalue(), err.getvalue())


@pytest.mark.parametrize("scheme", ["file", pytest.param("memory", marks=pytest.mark.release)])
def test_any_scheme_gives_the_same_tables(scheme: str, local: dict[str, bytes], pictures: Path, tmp_path: Path) -> None:
    base = f"{scheme}://{tmp_path}"
    result = discover(Audit.from_yaml(config_of(tmp_path, pictures, f"{base}/cache")), f"{base}/audits/A")
    assert tables(result.path) == local
    assert "Cuescope" in result.report.read_text(encoding="utf-8")


def test_the_commands_on_a_bucket(local: dict[str, bytes], pictures: Path, tmp_path: Path, root: str) -> None:
    config = config_of(tmp_path, pictures, f"{root}/cache")
    done = cuescope("audit", config, "--root", f"{root}/R", "--no-prefect")
    assert done.returncode == 0, done.stderr[-3000:]
    (first,) = json.loads(inside("history", f"{root}/R", "--json").stdout)
    assert first["path"].startswith(f"{root}/R/") and first["state"] == "finished" and first["images"] == 72
    assert tables(place(first["path"])) == local
    assert f"Report: {first['path']}/report.html" in done.stdout
    shown = inside("show", first["path"], "--json")
    assert json.loads(shown.stdout)[0]["class"] == "a"
    here = inside("export", first["path"], "--to", "csv", "--out", tmp_path / "f.csv")
    there = inside("export", first["path"], "--to", "csv", "--out", f"{root}/f.csv")
    assert here.stdout.strip() == str(tmp_path / "f.csv") and there.stdout.strip() == f"{root}/f.csv", there.stderr
    assert place(f"{root}/f.csv").read_bytes() == (tmp_path / "f.csv").read_bytes()
    (tmp_path / "answers.csv").write_text(
        f"finding_id,image_id,present,verdict,annotator\n{json.loads(shown.stdout)[0]['finding_id']},,,spurious,ann\n"
    )
    taken = inside("import-verdicts", first["path"], tmp_path / "answers.csv")
    assert taken.returncode == 0 and f"kept in {root}/R/verdicts/" in taken.stdout, taken.stderr
    again = cuescope("audit", config, "--root", f"{root}/R", PREFECT_HOME=str(tmp_path / "prefect"))
    assert again.returncode == 0, again.stderr[-3000:]
    _, second = json.loads(inside("history", f"{root}/R", "--json").stdout)
    run = AuditFolder.open(second["path"]).run()
    assert sum(run["forwards"].values()) == 0 and run["previous"] == first["path"]
    assert AuditFolder.open(second["path"]).read("verdicts")["annotator"].to_pylist() == ["ann"]
    changed = inside("diff", first["path"], second["path"], "--json")
    assert changed.returncode == 0, changed.stderr[-3000:]
    kept = inside("history", f"{root}/R", "--keep", "1")
    assert kept.returncode == 0 and f"Deleted {first['path']}" in kept.stderr
    assert [one["path"] for one in json.loads(inside("history", f"{root}/R", "--json").stdout)] == [second["path"]]
    assert not place(first["path"]).exists()
    texts = [one.read_bytes() for one in place(second["path"]).iterdir() if one.is_file()]
    assert not any(b"SECRET" in text or b"AWS_" in text for text in texts)


@pytest.mark.release
def test_kill_9_and_the_same_command(local: dict[str, bytes], pictures: Path, tmp_path: Path, root: str) -> None:
    config = config_of(tmp_path, pictures, f"{root}/cache")
    for stage in ("predict", "cluster", "ablate"):  # each attempt is killed in the stage after it
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "discover", str(config), "--out", f"{root}/A", "--no-prefect"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        while process.poll() is None:
            try:
                if stage in AuditFolder(f"{root}/A").run()["seconds"]:
                    break
            except (UserError, KeyError):
                pass
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = cuescope("discover", config, "--out", f"{root}/A", "--no-prefect")
    assert done.returncode == 0, done.stderr[-3000:]
    assert tables(place(f"{root}/A")) == local
    assert AuditFolder(f"{root}/A").run()["forwards"]["predict"] == 0


def test_two_runs_at_once_are_told(pictures: Path, tmp_path: Path, root: str) -> None:
    config = config_of(tmp_path, pictures, f"{root}/cache")
    folder = prepare(Audit.from_yaml(config), place(f"{root}/A"))
    with locked(folder):
        done = cuescope("discover", config, "--out", f"{root}/A", "--no-prefect")
    plain(done, "Another run is writing", f"process {os.getpid()} on ", "last heard of")
    assert AuditFolder(f"{root}/A").run()["run"] == folder.begun


def test_what_cannot_be_used_is_one_plain_line(pictures: Path, tmp_path: Path, root: str) -> None:
    config = config_of(tmp_path, pictures, str(tmp_path / "cache"))

    def run(*more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        out = more or ("--out", f"{root}/A")
        return cuescope("discover", config, "--no-prefect", *out, **environment)

    plain(run("--out", "s3://nowhere/A"), "no bucket 'nowhere'", "Make it first")
    plain(run("--out", "s3://bucket"), "whole bucket")
    plain(run("--out", "https://example.org/A"), "nothing can be kept")
    plain(run("--out", "s3://me:s3cr3t@bucket/A"), "***@")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    plain(run(AWS_ENDPOINT_URL=closed), closed, "AWS_ENDPOINT_URL", "goes on")
    plain(cuescope("show", f"{root}/A"), "There is no audit folder")
    plain(cuescope("show", f"{root}/A", AWS_ENDPOINT_URL=closed), closed)

    def ask_for_keys(after: int) -> None:
        address = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
        kind = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(address, str(after).encode(), kind, method="POST")).close()

    ask_for_keys(0)
    try:
        secret = {"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "s3cr3t-k3y"}
        done = run(**secret)
        plain(done, f"{root}/A", "AWS_ACCESS_KEY_ID")
        assert "s3cr3t" not in done.stderr and "AKIAWRONG" not in done.stderr
    finally:
        ask_for_keys(10**9)


def test_results_on_another_disk_are_missed(pictures: Path, tmp_path: Path) -> None:
    """Workers whose cache is a folder of their own: nothing may be left out in silence."""
    audit = Audit.from_yaml(config_of(tmp_path, pictures, str(tmp_path / "cache")))
    folder = prepare(audit, tmp_path / "A")
    here = Context(audit.model_copy(update={"classes": folder.run()["classes"]}), folder)
    worker = Context(here.audit.model_copy(update={"cache": str(tmp_path / "elsewhere")}), folder)
    run_once("ingest", here)
    tallies = [run_shard("predict", worker, number) for number in range(len(shards(worker)))]
    with pytest.raises(UserError, match=r"stored the results of 72 images, and .* has those of 0"):
        gather("predict", here, tallies)
    gather("predict", worker, tallies)


@pytest.fixture
def cluster(tmp_path: Path, server: dict[str, str]) -> Iterator[tuple[str, list[Path]]]:
    """A Dask scheduler and two workers, each with an empty home, working and temporary folder of its own."""
    pytest.importorskip("prefect_dask", reason="needs the extra dask")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    homes = [tmp_path / name for name in ("scheduler", "one", "two")]
    processes = []
    for home in homes:
        (home / "tmp").mkdir(parents=True)
        (home / "work").mkdir()
        arguments = (
            ["scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"]
            if home.name == "scheduler"
            else ["worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(home / "tmp")]
        )
        own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PREFECT_HOME": str(home / "prefect")}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                cwd=home / "work",
                env={**os.environ, **own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    from distributed import Client

    with Client(address, timeout=120) as client:
        client.wait_for_workers(2, timeout=240)
    yield address, homes[1:]
    for process in reversed(processes):
        process.terminate()
        process.wait()


@pytest.mark.release
def test_workers_that_share_no_disk(
    local: dict[str, bytes], pictures: Path, tmp_path: Path, root: str, cluster: tuple[str, list[Path]]
) -> None:
    address, homes = cluster
    for file in pictures.rglob("*.png"):
        place(f"{root}/images/{file.relative_to(pictures).as_posix()}").write_bytes(file.read_bytes())  # type: ignore
    data = {"source": "folder", "path": f"{root}/images"}
    config = config_of(tmp_path / "here", pictures, f"{root}/cache", data=data)
    done = cuescope(
        "discover", config, "--out", f"{root}/A", "--runner", f"dask:{address}", PREFECT_HOME=str(tmp_path / "prefect")
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert tables(place(f"{root}/A")) == local
    left = [file for home in homes for file in home.rglob("*") if file.suffix in (".parquet", ".json", ".part")]
    assert not [file for file in left if "prefect" not in file.parts], left
