"""What a user gets wrong is told in one plain line: what, where, and what to do next; exit code 2, no stack trace."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import main
from tests.conftest import write_patched_set

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Told = Callable[..., str]
ENDPOINT = {"kind": "openai", "model": "gpt-4o-mini"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patched_set(tmp_path_factory.mktemp("data") / "images", per_class=5)


@pytest.fixture
def cuescope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """The command line, in this process, on a mistake: the line that it prints."""

    def told(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["cuescope", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        shown = capsys.readouterr().err
        assert stopped.value.code == 2, shown
        assert "Traceback" not in shown
        lines = [line for line in shown.splitlines() if line.startswith("cuescope: ")]
        assert len(lines) == 1, shown
        return lines[0]

    return told


@pytest.fixture
def audit(images: Path, tmp_path: Path, cuescope: Told) -> Told:
    """What is told of an audit of three classes with these sections changed."""

    def told(**sections: Any) -> str:
        raw = {
            "data": {"source": "folder", "path": str(images)},
            "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
            "ablate": {"enabled": False},
            "cache": str(tmp_path / "cache"),
            **sections,
        }
        (tmp_path / "audit.yaml").write_text(yaml.safe_dump(raw))
        return cuescope("discover", tmp_path / "audit.yaml", "--out", tmp_path / "out", "--no-prefect")

    return told


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is in a cache, and the network is switched off."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


def holds(line: str, *words: str) -> None:
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"kind": "open_clp", "name": "x"}, ["no back end 'open_clp'", "Did you mean 'open_clip'"]),
        ({"kind": "open_clip", "name": "ViT-B-23", "pretrained": "x"}, ["'ViT-B-23'", "Did you mean", "'ViT-B-32'"]),
        ({"kind": "timm", "name": "resnet500"}, ["'resnet500'", "Did you mean", "'resnet50'"]),
        ({"kind": "torchvision", "name": "resnet51"}, ["'resnet51'", "Did you mean", "'resnet50'"]),
        ({"kind": "torchvision", "name": "resnet50", "weights": "IMAGENET1K"}, ["IMAGENET1K_V1", "IMAGENET1K_V2"]),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_an_unknown_model_is_told_with_the_nearest_names(audit: Told, model: dict, words: list[str]) -> None:
    holds(audit(model=model), "model", *words)


CLASSES = {"mapping": {"a": 1, "b": 2, "c": 3}}
FETCH = ("hf download", "--local-dir FOLDER", "bring that folder here")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"model": {"kind": "open_clip", "name": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}},
            ["laion/CLIP-ViT-B-32-laion2B-s34B-b79K", *FETCH, "name: local-dir:FOLDER"],
        ),
        (
            {"model": {"kind": "transformers_zero_shot", "name": "google/siglip-base-patch16-244"}},
            ["model:", "google/siglip-base-patch16-244", *FETCH, "similar name: google/siglip-base-patch16-224"],
        ),
        (
            {"model": {"kind": "timm", "name": "resnet50.a1_in1k", **CLASSES}},
            ["model:", "timm/resnet50.a1_in1k", *FETCH],
        ),
        (
            {"model": {"kind": "torchvision", "name": "resnet50", **CLASSES}},
            ["model:", "download.pytorch.org/models/resnet50", "put it at", "checkpoints"],
        ),
        (
            {"caption": {"kind": "transformers", "name": "HuggingFaceTB/SmolVLM-265M-Instruct"}},
            ["caption:", *FETCH, "HuggingFaceTB/SmolVLM-256M-Instruct"],
        ),
        (
            {"detect": {"kind": "yolo_world", "name": "yolov8s-worldv2.pt", "text_model": "ViT-B-32"}},
            ["detect:", "yolov8s-worldv2.pt", "releases of ultralytics/assets", "Give the path"],
        ),
        (
            {"data": {"source": "huggingface", "name": "somebody/photos"}},
            ["data:", "somebody/photos", "--repo-type dataset", "bring that folder here"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("no_network")
def test_missing_weights_are_told_with_what_to_fetch_and_where_to_put_it(
    audit: Told, sections: dict, words: list[str]
) -> None:
    holds(audit(**sections), *words)


@pytest.mark.parametrize("section", ["model", "caption", "propose"])
def test_a_missing_key_is_told(audit: Told, section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    chosen = {**ENDPOINT, "kind": "openai_vision"} if section == "model" else ENDPOINT
    line = audit(**{section: chosen})
    holds(line, f"{section}:", "no key", "set the environment variable OPENAI_API_KEY", "'base_url'")


def test_a_class_without_images_is_told(audit: Told) -> None:
    holds(audit(classes=["a", "b", "zebra"]), "data:", "the class 'zebra' has no images", "Known: a, b, c")


def test_a_class_whose_images_are_all_damaged_is_told(audit: Told, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    for file in (tmp_path / "images" / "b").iterdir():
        file.write_bytes(b"no picture")
    line = audit(data={"source": "folder", "path": str(tmp_path / "images")})
    holds(line, "data:", "the class 'b' has no images", "All its files (5) were quarantined", "Most often:")


def test_a_class_folder_without_images_is_in_the_quarantine(images: Path, tmp_path: Path) -> None:
    from pipeline.sources.folder import folder

    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "0 empty").mkdir()
    first, *others = folder(path=str(tmp_path / "images"))
    assert first.path == "0 empty" and first.fault and not first.labels
    assert not any(item.fault for item in others)


def test_a_single_class_is_told(audit: Told, cuescope: Told, images: Path, tmp_path: Path) -> None:
    holds(audit(classes=["a"]), "data:", "only one class, 'a'", "images of another one, and name it in classes")
    shutil.copytree(images / "a", tmp_path / "images" / "a")
    only = {"source": "folder", "path": str(tmp_path / "images")}
    holds(audit(data=only), "data:", "only one class, 'a'", "give images of another one")
    holds(cuescope("init", tmp_path / "images", "--out", tmp_path / "new.yaml"), "one class, 'a'", "add images")


def predictions(images: Path, file: Path, leave: int = 0, **labels: str) -> dict[str, str]:
    """A model that is a file of predictions: each image as its own class, or as `labels` say; some left out."""
    paths = sorted(images.rglob("*.png"))
    rows = [
        {"path": path.relative_to(images).as_posix(), "predicted": labels.get(path.parent.name, path.parent.name)}
        for path in paths[: len(paths) - leave]
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "predictions", "path": str(file)}


def test_a_predicted_label_that_the_data_lack_is_told(audit: Told, images: Path, tmp_path: Path) -> None:
    line = audit(model=predictions(images, tmp_path / "p.jsonl", c="zebra"))
    holds(line, "model:", "p.jsonl, row 11", "the label 'zebra'", "Known: a, b, c", "Write labels as the data do")


def test_fewer_predictions_than_images_are_told(audit: Told, images: Path, tmp_path: Path) -> None:
    line = audit(model=predictions(images, tmp_path / "p.jsonl", leave=3))
    holds(line, "model:", "p.jsonl, of 12 rows", "for c/002.png and 2 more of the 15 images", "Add the rows")


def test_fewer_scores_than_classes_are_told(audit: Told, images: Path, tmp_path: Path) -> None:
    rows = [{"path": path.relative_to(images).as_posix(), "scores": [0.5, 0.5]} for path in images.rglob("*.png")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = audit(model={"kind": "predictions", "path": str(tmp_path / "p.jsonl")})
    holds(line, "model:", "p.jsonl, row ", "2 scores, but the audit's classes are 3")


def answers(images: Path, file: Path, keep: Callable[[str], bool], word: str = "b") -> dict[str, str]:
    """A model that is a file of answers about the images whose paths are kept, for each of the classes."""
    paths = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.png"))]
    rows = [f"{path},{name},yes" for path in paths if keep(path) for name in ("a", word)]
    file.write_text("\n".join(["image,class,answer", *rows]) + "\n")
    return {"kind": "answers_file", "path": str(file)}


def test_answers_that_leave_images_out_are_told(audit: Told, images: Path, tmp_path: Path) -> None:
    line = audit(model=answers(images, tmp_path / "answers.csv", lambda path: not path.startswith("c/00")))
    holds(line, "model:", "answers.csv, of 10 images", "no answer about c/000.png and 4 more of the 15", "Add a row")
    line = audit(model=answers(images, tmp_path / "others.csv", lambda path: True, word="bb"))
    holds(line, "model:", "others.csv, row 2", "no class 'bb' in the data")
