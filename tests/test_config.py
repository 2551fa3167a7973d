from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Audit
from pipeline.errors import UserError

BASE = "data: {source: folder, path: images}\nmodel: {kind: open_clip, name: 'local-dir:model'}\n"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "audit.yaml"
    file.write_text(text)
    return file


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    audit = Audit.from_yaml(written(tmp_path, BASE + "caption: {kind: transformers, name: words}"))
    assert audit.data.options["path"] == str(tmp_path / "images")
    assert audit.model.options["name"] == f"local-dir:{tmp_path / 'model'}"
    assert audit.caption.options["name"] == str(tmp_path / "words")


def test_a_hub_name_stays_a_name(tmp_path: Path) -> None:
    text = BASE.replace("local-dir:model", "ViT-B-32")
    assert Audit.from_yaml(written(tmp_path, text)).model.options["name"] == "ViT-B-32"


def test_it_survives_the_round_trip_through_json(tmp_path: Path) -> None:
    audit = Audit.from_yaml(written(tmp_path, BASE + "rank: {q: 0.1}\nprompts: {a: an apple}"))
    again = Audit.from_dict(audit.to_dict())
    assert again == audit and again.digest() == audit.digest()
    assert again.words("a") == "an apple" and again.words("ice_cream") == "ice cream"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE + "abblate: {budget: 3}", ["abblate", "Did you mean 'ablate'"]),
        (BASE + "ablate: {bugdet: 3}", ["ablate.bugdet", "Did you mean 'budget'"]),
        (BASE + "ablate: {budget: many}", ["ablate.budget"]),
        (BASE + "ablate: {fills: [mena]}", ["mena", "Did you mean 'mean'"]),
        (BASE + "detect: {kind: yolo_word, name: x}", ["yolo_word", "Did you mean 'yolo_world'"]),
        (BASE.replace("name: 'local", "nmae: 'local"), ["nmae", "Did you mean 'name'"]),
        (BASE.replace("folder, path", "foldr, path"), ["foldr", "Did you mean 'folder'"]),
        ("model: {kind: open_clip, name: x}", ["data", "missing"]),
        ("data: [", ["not YAML"]),
        ("just words", ["no configuration"]),
    ],
)
def test_a_mistake_is_named_with_what_to_do(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        Audit.from_yaml(written(tmp_path, text))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_can_be_changed_from_the_command_line(tmp_path: Path) -> None:
    file = written(tmp_path, BASE)
    audit = Audit.from_yaml(file, ["ablate.budget=7", "detect=none", "ablate.fills=[blur]"])
    assert audit.ablate.budget == 7 and audit.detect is None and audit.ablate.fills == ["blur"]
    with pytest.raises(UserError, match="expected key=value"):
        Audit.from_yaml(file, ["ablate.budget"])


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cuescope init"):
        Audit.from_yaml(tmp_path / "none.yaml")
