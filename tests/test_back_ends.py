"""The table of back ends is what the registry says; another package's back end is used and hides no built-in one."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pipeline import back_ends
from pipeline.config import SEAMS, Audit
from pipeline.errors import UserError
from pipeline.models import registry
from tests.conftest import ROOT

LINES = [(seam, kind, line) for seam, kinds in registry.BUILT_IN.items() for kind, line in kinds.items()]


def named(line: tuple) -> str:
    return f"{line[0]}-{line[1]}"


def test_the_documents_table_is_the_registrys(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import doctor

    doctor(back_ends=True)
    written = (ROOT / "docs" / "back-ends.md").read_text(encoding="utf-8")
    assert written == capsys.readouterr().out, "write it again: cuescope doctor --back-ends > docs/back-ends.md"
    for seam, kind, _ in LINES:
        assert re.search(rf"^\| {seam} \| `{kind}`: [^|]{{10,}}\.", written, re.MULTILINE), (seam, kind)


def test_each_test_that_is_named_is_there() -> None:
    for path in re.findall(r"`(tests/[^`]+)`", back_ends.markdown()):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("line", LINES, ids=named)
def test_each_example_is_accepted(line: tuple) -> None:
    seam, kind, back_end = line
    text = back_ends.example(seam, kind, back_end)
    if seam == "export":
        assert registry.check_options("export", kind, {}) and f"--to {kind}" in text
        return
    raw = {"data": {"source": "folder", "path": "."}, "model": {"kind": "predictions", "path": "p.csv"}}
    section = yaml.safe_load(text)
    audit = Audit.from_dict({**raw, **section})
    if seam == "fill":
        assert audit.ablate.fills == [kind]
        return
    (name,) = section
    assert SEAMS[name] == seam and getattr(audit, name).kind == kind


def test_licences_are_those_of_the_packages_metadata() -> None:
    packages = {need.partition(" ")[0] for _, _, line in LINES for need in line.needs}
    for package in packages:
        licence = back_ends.licence(package)
        assert licence != "unknown", package
        try:
            about = importlib.metadata.metadata(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        theirs = " ".join(
            [about.get("License-Expression", ""), about.get("License", ""), *about.get_all("Classifier", [])]
        )
        short = {"LGPL-2.1": "LGPL", "BSD-2-Clause": "BSD", "BSD-3-Clause": "BSD", "Apache-2.0": "Apache"}
        first = licence.partition(",")[0]
        assert short.get(first, first) in theirs, (package, licence, theirs)


def test_what_a_back_end_needs_is_a_dependency_or_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[\[<>=~ ]", line)[0].replace("-", "_") for line in lines}

    for package in {need.partition(" ")[0] for _, _, line in LINES for need in line.needs}:
        extra = back_ends.EXTRAS.get(package)
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
        assert package in names(lines), package


def brought(folder: Path, group: str, name: str, value: str) -> None:
    """A package's entry point, as an installer leaves it."""
    info = folder / f"{name.replace('_', '')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")


def test_another_packages_name_hides_no_built_in_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    brought(tmp_path, "cuescope.caption", "data", "theirs:captioner")
    brought(tmp_path, "cuescope.caption", "theirs", "theirs:captioner")
    theirs = ModuleType("theirs")
    theirs.captioner = lambda device, *, loud=False: (device, loud)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "theirs", theirs)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.names("caption")["data"] == registry.BUILT_IN["caption"]["data"].where
    assert registry.factory("caption", "data").__module__ == "pipeline.models.data_captioner"
    assert registry.factory("caption", "theirs")("cpu") == ("cpu", False)
    assert registry.check_options("caption", "theirs", {}) == {"loud": False}  # an option without a type


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("broken_one:make", "raise RuntimeError('no driver')", ["fails at import", "no driver"]),
        ("broken_two:make", "made = 1", ["broken_two has no function 'make'"]),
        ("broken_three:make", "import nowhere_at_all", ["needs the package 'nowhere_at_all'"]),
        (
            "broken_four:make",
            "from __future__ import annotations\ndef make(device, *, cut: Absent = None): pass",
            ["can't be checked", "Absent"],
        ),
    ],
)
def test_a_faulty_back_end_of_another_package_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, code: str, words: list[str]
) -> None:
    brought(tmp_path, "cuescope.caption", "faulty", value)
    (tmp_path / f"{value.partition(':')[0]}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as caught:
        registry.check_options("caption", "faulty", {})
    for word in [*words, "faulty"]:
        assert word in str(caught.value)
