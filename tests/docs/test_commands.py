"""What README and docs tell a reader to type: every command is executed, page by page, in a sandbox of its own.

A page's commands and its Python run in order, in a folder with pictures, a configuration and a finished audit. What
can't run here is in NOT_RUN with its reason: its `cuescope` commands are still read by the program's own parser, and
their options and `--set` keys must exist. Configurations in YAML are validated by `pipeline.config`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import app, main
from pipeline.config import Audit, _override
from pipeline.models import registry
from tests.conftest import ROOT
from tests.test_cli import configuration
from tests.test_flow import running_server

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = ("bash", "sh", "console")

NOT_RUN = {
    r"^make (demo|test)\b": "sets up an environment or runs this suite: the first and last steps of .ci/run",
    r"^pip install ": "installs packages; that the extra exists is checked here",
    r"^#!/bin/bash": "needs Slurm",
    r"^cuescope bench ": "takes minutes: .ci/run runs the quick ones",
    r"s3://": "needs a bucket: tests/test_object_store.py runs these commands on one",
    r"^cuescope review ": "serves a page until it is stopped: tests/review does both",
    r"^ssh ": "goes to another machine",
    r"--runner dask": "starts worker processes: tests/test_dask.py does",
    r"cuescope schedule ": "runs until it is stopped: tests/test_schedule.py starts and stops it",
    r"^prefect ": "starts a server or a worker, or deploys to one: tests/test_schedule.py",
    r"^export PREFECT_API_URL=": "names the server of the line before it",
}
NOT_RUN_PYTHON = {
    "import fiftyone": "FiftyOne's needs don't go with ours: tests/export tries it in an environment of its own",
    "BackEnd(": "a line of the registry, which is no program",
}
NO_CONFIGURATION = {
    "apiVersion:": "Kubernetes",
    "runs-on:": "GitHub Actions",
    "kind: redness": "a back end of the page's own package: tests/test_your_own_back_end.py runs it",
}
MAY_BE_WORSE = ("diff", "audit")
"""Commands whose exit code 3 is an answer."""


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text[:60]!r}"


def blocks_of(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    return [Block(page, language, text) for language, text in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(text: str) -> Iterator[str]:
    """The commands of a block, each with its continued lines; a script with a first line of its own is one."""
    if text.startswith("#!"):
        yield text
        return
    held = ""
    for line in text.splitlines():
        line = line.removeprefix("$ ")
        held = f"{held}\n{line}" if held else line
        if held.endswith("\\"):
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quotation goes on
            continue
        if words:
            yield held.strip()
        held = ""
    assert not held, f"unfinished: {held}"


COMMANDS = [(b, command) for b in BLOCKS if b.language in SHELL for command in commands_of(b.text)]
STEPS = {
    page: [
        (block.language, step)
        for block in blocks_of(page)
        if block.language in (*SHELL, "python")
        for step in ([block.text] if block.language == "python" else commands_of(block.text))
    ]
    for page in PAGES
}


def reason(step: str, rules: dict[str, str] = NOT_RUN) -> str | None:
    return next((why for rule, why in rules.items() if re.search(rule, step)), None)


def calls_in(command: str) -> list[list[str]]:
    """The arguments of each `cuescope` in a command line, a pipe's or a redirection's rest left off."""
    text = re.sub(r'"[^"$]*\$\(.*\)"', "dask", command.replace("\\\n", " "))  # what a substitution gives isn't known
    calls = re.finditer(r"(?:^|[\s;&|(])(?:\.venv/bin/)?cuescope\s+([^\n|;&>]*)", text)
    return [shlex.split(call[1], comments=True) for call in calls]


def check_call(words: list[str]) -> None:
    """The program's own parser takes it, and what it sets is there."""
    command, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    for assignment in bound.arguments.get("set", ()):
        if command.__name__ == "export":
            name, _, value = assignment.partition("=")
            registry.check_options("export", bound.arguments["to"], {name: yaml.safe_load(value)})
        else:
            raw: dict[str, Any] = minimal()
            _override(raw, assignment)
            Audit.from_dict(raw)


def minimal() -> dict[str, Any]:
    return {"data": {"source": "folder", "path": "."}, "model": {"kind": "torchvision", "name": "resnet50"}}


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 40 and len({block.page for block, _ in COMMANDS}) > 6


@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=[c.splitlines()[0][:70] for _, c in COMMANDS])
def test_every_cuescope_command_is_one(block: Block, command: str) -> None:
    for words in calls_in(command):
        check_call(words)
    assert subprocess.run(["bash", "-n"], input=command, text=True).returncode == 0, block.place
    if extras := re.search(r"cuescope\[([\w,]+)\]", command):
        known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        assert set(extras[1].split(",")) <= set(known)
    if make := re.match(r"make (\w+)", command):
        assert re.search(rf"^{make[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.M)


def test_commands_within_sentences_exist() -> None:
    """`cuescope ...` in a line of prose or a table: the command and each --option."""
    seen = 0
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
        for text in re.findall(r"`cuescope ([^`\n]+)`", prose):
            words = re.sub(r"[\[\]]", " ", text.replace("\\|", "|")).split()
            chain, apps, _ = app.parse_commands([word for word in words if "|" not in word])
            assert words[0].startswith("-") or chain or "|" in text, (page.name, text)
            names = {name for one in apps for a in _arguments(one) for name in a.names} | {
                "--help",
                "--install-completion",
            }
            for option in re.findall(r"(?<!\S)--[\w-]+", " ".join(words)):
                assert option in names | {"--shell"}, (page.name, text, option)
            seen += 1
    assert seen > 30


def _arguments(one: Any) -> list[Any]:
    return list(one.assemble_argument_collection()) if one.default_command else []


def test_what_is_not_run_is_still_there() -> None:
    for rule in NOT_RUN:
        assert any(re.search(rule, command) for _, command in COMMANDS), f"NOT_RUN has a stale entry: {rule}"
    python = [block.text for block in BLOCKS if block.language == "python"]
    for rule in NOT_RUN_PYTHON:
        assert any(rule in text for text in python), f"NOT_RUN_PYTHON has a stale entry: {rule}"
    for rule in NO_CONFIGURATION:
        assert any(rule in b.text for b in BLOCKS if b.language == "yaml"), (
            f"NO_CONFIGURATION has a stale entry: {rule}"
        )


# Configurations


def parts_of(text: str) -> list[dict[str, Any]]:
    """A block as configurations: where a key is there twice, each line is an alternative."""
    keys = re.findall(r"^(\w+):", text, re.M)
    if len(keys) == len(set(keys)):
        return [yaml.safe_load(text)]
    return [yaml.safe_load(line) for line in text.splitlines() if line and not line.startswith("#")]


CONFIGURATIONS = [b for b in BLOCKS if b.language == "yaml" and not any(rule in b.text for rule in NO_CONFIGURATION)]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.place)
def test_configurations_are_valid(block: Block, tmp_path: Path) -> None:
    for part in parts_of(block.text):
        Audit.from_dict({**minimal(), **part}, base=tmp_path)


def test_configurations_within_sentences_are_valid(tmp_path: Path) -> None:
    seen = 0
    for page in PAGES:
        for text in re.findall(r"`((?:\w+): \{[^`\n]*\})`", page.read_text("utf-8")):
            key = text.partition(":")[0]
            if "..." in text or key not in Audit.model_fields:
                continue
            raw = yaml.safe_load(text)
            if raw[key].get("kind", raw[key].get("source")) in ("brightness", None) and key in ("model", "data"):
                continue  # CONTRIBUTING's own example
            Audit.from_dict({**minimal(), **raw}, base=tmp_path)
            seen += 1
    assert seen > 40


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=lambda block: block.place)
def test_toml_reads(block: Block) -> None:
    tomllib.loads(block.text)


# Execution

SMALL = {
    "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
    "embed": {"kind": "python", "factory": "tests.fakes:colors"},
}


@pytest.fixture(scope="module")
def finished(patched_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a reader of any page may have: pictures, a configuration, a finished audit of it with its cache."""
    home = tmp_path_factory.mktemp("reader")
    shutil.copytree(patched_set, home / "images")
    config = yaml.safe_load(configuration(home, home / "images").read_text())
    config["data"]["path"] = "images"
    del config["cache"]
    (home / "audit.yaml").write_text(yaml.safe_dump(config))
    run_command("cuescope discover audit.yaml --out audits/mine --no-prefect", home, {})
    return home


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.fixture
def sandbox(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sandbox"
    shutil.copytree(finished, folder, symlinks=True)
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "images").symlink_to(folder / "images")
    (folder / "data").symlink_to(ROOT / "data")
    for date in ("2026-11-19-030000", "2026-11-26-030000"):
        shutil.copytree(folder / "audits" / "mine", folder / "audits" / "boats" / date)
    (folder / "review").mkdir()
    shim = folder / ".venv" / "bin" / "cuescope"
    shim.parent.mkdir(parents=True)
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline "$@"\n')
    shim.chmod(0o755)
    return folder


def run_command(command: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a command in a folder; one that is nothing but `cuescope ...` in this process, which spares its start."""
    words = shlex.split(command, comments=True)
    alone = words[0].endswith("cuescope") and not re.search(r"[|&;<>$]|^\w+=", command) and "--no-prefect" in words
    if words[0].endswith("cuescope") and words[1] in ("show", "diff", "history", "export", "init", "import-verdicts"):
        alone = not re.search(r"[|&;<>$]", command)
    if alone:
        with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["cuescope", *words[1:]])
            try:
                main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        told = ""
    else:
        path = f"{folder / '.venv' / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environment},
        )
        code, told = done.returncode, done.stderr[-2000:]
    allowed = (0, 3) if any(word in words[:3] for word in MAY_BE_WORSE) else (0,)
    assert code in allowed, f"{command}: exit code {code}\n{told}"


def is_flow(command: str) -> bool:
    """Whether Prefect runs it; one server for all pages spares each the start of its own."""
    return bool(re.search(r"cuescope (discover|audit|demo) ", command)) and not re.search("--no-prefect|--dry", command)


def prepare(step: str, folder: Path) -> None:
    """What a reader has or does between two commands."""
    if "import-verdicts audits/mine review/export.json" in step:
        tasks = json.loads((folder / "review" / "tasks.json").read_text("utf-8"))
        for number, task in enumerate(tasks):
            answer = {"type": "choices", "from_name": "verdict", "to_name": "image", "value": {"choices": ["spurious"]}}
            task["annotations"] = [{"id": number, "completed_by": 1, "result": [answer]}]
        (folder / "review" / "export.json").write_text(json.dumps(tasks))
    if "endpoint.yaml" in step:
        (block,) = [b.text for b in BLOCKS if "kind: openai_vision" in b.text and b.language == "yaml"]
        (folder / "endpoint.yaml").write_text(block.replace(OWL, "{kind: none}"))


OWL = "{kind: owlv2, name: google/owlv2-base-patch16-ensemble}"


def after(step: str, folder: Path) -> None:
    """`init` writes models of the hubs, which can't be had here: small ones stand in, all else stays as it wrote it."""
    if re.search(r"cuescope init ", step):
        config = yaml.safe_load((folder / "audit.yaml").read_text("utf-8"))
        assert config["model"]["pretrained"] and config["detect"]["kind"] == "yolo_world"
        small = {"caption": "none", "detect": "none", "ablate": {"fills": ["mean"], "images": 16}, "shard": 30}
        (folder / "audit.yaml").write_text(yaml.safe_dump({**config, **SMALL, **small}))


RUNNABLE = [
    page
    for page, steps in STEPS.items()
    if any(
        (reason(step) if language in SHELL else any(rule in step for rule in NOT_RUN_PYTHON)) in (None, False)
        for language, step in steps
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, id=p.stem, marks=[] if p.stem in ("README", "tutorial") else pytest.mark.release)
        for p in RUNNABLE
    ],
)
def test_a_page_can_be_followed(
    page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    environment = {"PREFECT_HOME": str(sandbox / "prefect"), "OPENAI_API_KEY": "none"}
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    if any(language in SHELL and reason(step) is None and is_flow(step) for language, step in STEPS[page]):
        environment["PREFECT_API_URL"] = request.getfixturevalue("server")
    warm = ROOT / "audits" / ".cuescope"  # what `make demo` left; the demo is then a matter of seconds
    if warm.is_dir() and any("cuescope demo" in step for _, step in STEPS[page]):
        shutil.rmtree(sandbox / "audits" / ".cuescope")
        (sandbox / "audits" / ".cuescope").symlink_to(warm)
    if any("cuescope init" in step for _, step in STEPS[page]):
        (sandbox / "audit.yaml").unlink()
        shutil.rmtree(sandbox / "audits" / "mine")
    for language, step in STEPS[page]:
        if language == "python":
            code = compile(f"{{{step}}}" if step.startswith('"') else step, str(page), "exec")
            if not any(rule in step for rule in NOT_RUN_PYTHON):
                with contextlib.chdir(sandbox):
                    exec(code, {"__name__": "page"})
        elif reason(step) is None:
            prepare(step, sandbox)
            run_command(step, sandbox, environment)
            after(step, sandbox)
