"""The command line in scripts and CI: JSON that any reader takes, no colours in a pipe, plain progress, completion."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.json_text import json_text
from tests.conftest import ROOT
from tests.test_cli import configuration, cuescope

ESCAPE = "\x1b"


def strictly(text: str) -> Any:
    """JSON as the standard has it: NaN and Infinity are errors."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def made(patched_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess]:
    """A configuration, its audit's folder, and what the command that made it said."""
    folder = tmp_path_factory.mktemp("scripting")
    config = configuration(folder, patched_set)
    done = cuescope("discover", config, "--out", folder / "A", "--no-prefect", "--json")
    assert done.returncode == 0, done.stderr
    return config, folder / "A", done


def test_unmeasured_numbers_are_null() -> None:
    assert strictly(json_text({"a": [float("nan"), 1.5, (float("inf"),)]})) == {"a": [None, 1.5, [None]]}


def test_json_is_all_there_is_on_standard_output(made: tuple) -> None:
    config, audit, done = made
    assert {row["class"] for row in strictly(done.stdout)} == {"a", "b", "c"}
    shown = cuescope("show", audit, "--json")
    assert strictly(shown.stdout) == strictly(done.stdout) and shown.stderr == ""
    assert strictly(cuescope("diff", audit, audit, "--json").stdout)["counts"]["new"] == 0
    plan = strictly(cuescope("discover", config, "--dry-run", "--json").stdout)
    assert {line["stage"] for line in plan["stages"]} >= {"predict", "ablate"} and plan["together"]["calls"] == 0


def test_doctor_says_what_is_wrong_as_json_too(made: tuple, patched_set: Path, tmp_path: Path) -> None:
    good = cuescope("doctor", made[0], "--json")
    found = strictly(good.stdout)
    assert good.returncode == 0 and found["wrong"] == [] and found["configuration"]["classes"] == 3
    assert {row["name"]: row["version"] for row in found["packages"]}["torch"]
    bad = cuescope("doctor", configuration(tmp_path, patched_set, data={"source": "folder", "path": "no"}), "--json")
    assert bad.returncode == 2 and "no" in strictly(bad.stdout)["wrong"][0]


def test_history_is_json(made: tuple, tmp_path: Path) -> None:
    config = shutil.copy(made[0], tmp_path / "audit.yaml")
    done = cuescope("audit", config, "--root", tmp_path / "R", "--no-prefect")
    assert done.returncode == 0, done.stderr
    (past,) = strictly(cuescope("history", config, "--root", tmp_path / "R", "--json").stdout)
    assert past["state"] == "finished" and past["images"] == 180


def test_a_pipe_gets_no_colours_and_a_log_no_carriage_returns(made: tuple) -> None:
    config, audit, done = made
    assert ESCAPE not in done.stdout + done.stderr and "\r" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert all(re.fullmatch(r"[\w, ]+: done \(\d+\.\d s\)", line) for line in lines), lines
    for command in (["show", audit], ["doctor", config], ["--help"]):
        quiet = cuescope(*command)
        assert quiet.returncode == 0 and ESCAPE not in quiet.stdout + quiet.stderr


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "120", **environment},
    )  # fmt: skip
    os.close(theirs)

    def parts() -> Iterator[bytes]:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's end of a terminal
                return
            if not part:
                return
            yield part

    text = b"".join(parts()).decode()
    os.close(ours)
    assert process.wait(timeout=60) == 0, text
    return text


def colours(text: str) -> list[str]:
    return re.findall(r"\x1b\[(?:\d+;)*(?:3[0-9]|9[0-7]|38|48)(?:;\d+)*m", text)


def test_a_terminal_has_colours_unless_no_color_is_set(made: tuple) -> None:
    assert colours(on_a_terminal("show", str(made[1])))
    assert not colours(on_a_terminal("show", str(made[1]), NO_COLOR="1"))


def test_the_exit_codes_in_the_documentation_are_those_of_the_help() -> None:
    page = (ROOT / "docs" / "scripting.md").read_text("utf-8")
    for code in re.findall(r"^\| (\d+) \|", page, re.M):
        by_signal = code in ("130", "141")  # the shell's own for a signal
        assert by_signal or re.search(rf"\b{code}\b", cuescope("--help").stdout.partition("Exit codes")[2]), code


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def install(home: Path, shell: str) -> str:
    done = cuescope("--install-completion", "--shell", shell, HOME=str(home), XDG_DATA_HOME=str(home / ".local/share"))
    assert done.returncode == 0, done.stderr
    (script,) = [file for file in home.rglob("*cuescope*") if file.is_file()]
    assert str(script) in done.stdout.replace("\n", "")
    return script.read_text("utf-8")


def completions(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = f"""{script}
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE="{" ".join(words)}"; COMP_POINT=${{#COMP_LINE}}
_cuescope
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", line], capture_output=True, text=True, timeout=60)
    return [word.strip() for word in done.stdout.splitlines() if word.strip()]


def test_bash_completes_commands_options_and_choices(home: Path) -> None:
    script = install(home, "bash")
    assert completions(script, "cuescope", "dis") == ["discover"]
    assert "--dry-run" in completions(script, "cuescope", "discover", "--d")
    assert completions(script, "cuescope", "planted", "train", "det") == ["detector"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_command(home: Path, shell: str) -> None:
    script = install(home, shell)
    for command in ("discover", "audit", "import-verdicts", "doctor", "planted"):
        assert command in script
    if found := shutil.which(shell):
        checked = subprocess.run([found, "-n"], input=script, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stderr
