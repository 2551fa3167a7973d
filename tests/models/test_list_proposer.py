"""A hand-written list: per class or for all, typed or guessed, and its mistakes told plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.models import registry
from pipeline.models.list_proposer import list_proposer


def listed(options: dict[str, Any], name: str = "dog") -> list[tuple[str, str]]:
    proposer = list_proposer(0, Path("unused"), **registry.check_options("propose", "list", options))
    return [(a.phrase, a.cue_type) for a in proposer.propose(name, ["dog", "cat"], {}).attributes]


def test_one_list_for_every_class_with_types_guessed_or_given() -> None:
    options = {"attributes": ["beach", "red tint", "tilted view", "leash", "snow | co-occurring objects"]}
    assert (
        listed(options)
        == listed(options, "cat")
        == [
            ("beach", "Background"),
            ("red tint", "Colorization"),
            ("tilted view", "Orientation"),
            ("leash", "Co-occurring Objects"),
            ("snow", "Co-occurring Objects"),
        ]
    )


def test_a_list_a_class_comes_before_the_list_for_all() -> None:
    options = {"attributes": {"*": ["grass", "Leash"], "dog": ["leash", "ball"]}}
    assert [phrase for phrase, _ in listed(options)] == ["leash", "ball", "grass"]
    assert [phrase for phrase, _ in listed(options, "cat")] == ["grass", "Leash"]


def test_files(tmp_path: Path) -> None:
    text, sheet = tmp_path / "list.txt", tmp_path / "list.yaml"
    text.write_text("# cues\nleash\n\nbeach  # sandy\n")
    sheet.write_text("dog: [leash, beach]\n")
    assert (
        listed({"path": str(text)})
        == listed({"path": str(sheet)})
        == [("leash", "Co-occurring Objects"), ("beach", "Background")]
    )
    assert listed({"path": str(sheet)}, "cat") == []


def test_the_fingerprint_is_the_content_and_not_the_path(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("leash\n")
    (tmp_path / "b.txt").write_text("# other\nleash")
    prints = [list_proposer(0, tmp_path, path=str(tmp_path / name)).fingerprint for name in ("a.txt", "b.txt")]
    assert prints[0] == prints[1] != list_proposer(0, tmp_path, attributes=["ball"]).fingerprint


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "needs one of"),
        ({"attributes": ["a"], "path": "b"}, "needs one of"),
        ({"path": "missing.txt"}, "missing.txt can't be read"),
        ({"attributes": ["snow | Backgroud"]}, "Did you mean 'Background'"),
        ({"attributes": [" | Background"]}, "is no attribute"),
        ({"attributes": {"dgo": ["leash"]}}, "Did you mean 'dog'"),
    ],
)
def test_mistakes_are_told(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        listed(options)


def test_a_yaml_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for content in ("7", "dog: leash", "- {a: b}", "a: [\n"):
        path = tmp_path / "list.yaml"
        path.write_text(content)
        with pytest.raises(UserError, match=r"list\.yaml"):
            listed({"path": str(path)})
