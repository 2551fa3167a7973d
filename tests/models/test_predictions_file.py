"""A file of predictions as the model under test: what may stand in it, what is at fault, and a whole audit of it."""

from __future__ import annotations

import csv
import html
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import Audit, discover
from pipeline.errors import UserError
from pipeline.models.predictions_file import predictions_file
from pipeline.models.protocols import RecordedAnswers
from pipeline.report import sentences
from tests.fakes import PatchLover

CLASSES = ("boat", "dog_2")
PATHS, IDS = ["a/1.png", "b/2.png"], ["id1", "id2"]
SCORES = [[0.9, 0.1], [0.25, 0.75]]


def rows_of(form: str) -> list[dict]:
    rows = []
    for path, (boat, dog) in zip(PATHS, SCORES, strict=True):
        label = "boat" if boat > dog else "dog_2"
        rows.append(
            {
                "list": {"path": path, "predicted": label, "scores": [boat, dog]},
                "mapping": {"path": path, "scores": {"dog_2": dog, "boat": boat}},
                "columns": {"path": path, "scores.dog_2": dog, "scores.boat": boat},
                "logits": {"path": path, "logits": {"dog_2": float(np.log(dog)) + 3, "boat": float(np.log(boat)) + 3}},
            }[form]
        )
    return rows


def write(file: Path, rows: list[dict]) -> str:
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with open(file, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows
            )
    return str(file)


def made(path: str, **options):
    return predictions_file(CLASSES, "cpu", path=path, **options)


def shares(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("form", ["list", "mapping", "columns", "logits"])
def test_every_form_in_every_kind_of_file_gives_the_scores(tmp_path, form, suffix) -> None:
    model = made(write(tmp_path / f"p.{suffix}", rows_of(form)))
    assert isinstance(model, RecordedAnswers)
    logits = model.recorded(IDS[::-1], PATHS[::-1], CLASSES)  # asked for in another order
    np.testing.assert_allclose(shares(logits), SCORES[::-1], atol=1e-6)
    if form != "list":  # whose order is the audit's
        turned = model.recorded(IDS, PATHS, CLASSES[::-1])
        np.testing.assert_allclose(shares(turned), np.array(SCORES)[:, ::-1], atol=1e-6)


def test_a_label_alone_is_a_score_of_one_even_if_it_looks_like_a_number(tmp_path) -> None:
    model = made(
        write(tmp_path / "p.csv", [{"image_id": i, "predicted": n} for i, n in zip(IDS, ["007", "1"], strict=True)])
    )
    np.testing.assert_allclose(shares(model.recorded(IDS, PATHS, ("007", "1"))), np.eye(2), atol=1e-9)


def test_paths_may_have_something_in_front(tmp_path) -> None:
    rows = [{"path": f".\\set\\{path}", "predicted": "boat"} for path in PATHS]
    assert made(write(tmp_path / "p.csv", rows), prefix="set").recorded(IDS, PATHS, CLASSES).shape == (2, 2)


def test_of_equal_scores_the_one_predicted_wins(tmp_path) -> None:
    rows = [{"path": path, "predicted": "dog_2", "scores": [0.5, 0.5]} for path in PATHS]
    assert made(write(tmp_path / "p.jsonl", rows)).recorded(IDS, PATHS, CLASSES).argmax(axis=1).tolist() == [1, 1]


def test_the_fingerprint_follows_the_content(tmp_path) -> None:
    first, second = write(tmp_path / "p.csv", rows_of("list")), write(tmp_path / "q.csv", rows_of("list"))
    assert made(first).fingerprint == made(second).fingerprint != made(first, labels=CLASSES[::-1]).fingerprint
    assert made(first).fingerprint != made(write(tmp_path / "r.csv", rows_of("logits"))).fingerprint


GOOD = {"path": "a/1.png", "predicted": "boat"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([GOOD], ["no prediction for b/2.png", "by path", "a/1.png"]),
        ([GOOD, {"path": "b/2.png", "predicted": "bote"}], ["row 2", "the label 'bote'", "Did you mean 'boat'"]),
        ([GOOD, {"path": "b/2.png"}], ["row 2", "neither a predicted label nor scores"]),
        ([GOOD, {**GOOD}], ["two rows for a/1.png: 1 and 2"]),
        ([{"path": "a/1.png", "scores": [0.1, 0.2, 0.7]}], ["3 scores", "audit's classes are 2"]),
        ([{"path": "a/1.png", "scores": {"boat": 1.0}}], ["scores for 1 of 2 classes", "'dog_2' has none"]),
        ([{"path": "a/1.png", "scores": {"boat": 0.5, "dog_2": 0.2, "dgo": 0.3}}], ["'dgo'", "Did you mean 'dog_2'"]),
        ([{"path": "a/1.png", "scores": [2.5, 1.0]}], ["0 to 1", "logits"]),
        ([{"path": "a/1.png", "logits": [1.0, None]}], ["finite"]),
        ([{**GOOD, "scores": [0.1, 0.9]}], ["predicted is 'boat'", "'dog_2'", "'labels'"]),
        ([{"pth": "a/1.png", "predicted": "boat"}], ["no column 'path' or 'image_id'", "Did you mean 'pth'"]),
        ([{"path": "a/1.png", "prediction": "boat"}], ["no column 'predicted'", "Did you mean 'prediction'"]),
        ([], ["no predictions"]),
    ],
)
def test_mistakes_are_said_plainly(tmp_path, rows, words) -> None:
    path = write(tmp_path / "p.jsonl", rows)
    asked = PATHS[:1] if len(rows) == 1 and rows[0] != GOOD else PATHS
    with pytest.raises(UserError) as caught:
        made(path).recorded(IDS[: len(asked)], asked, CLASSES)
    for word in words:
        assert word in str(caught.value)


def test_files_that_cannot_be_read_are_said_plainly(tmp_path) -> None:
    with pytest.raises(UserError, match="no file of predictions"):
        made(str(tmp_path / "none.csv"))
    (tmp_path / "p.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"Use \.csv, \.jsonl or \.parquet"):
        made(str(tmp_path / "p.xlsx"))
    for name, content in (("p.jsonl", b"{oops"), ("p.parquet", b"nothing"), ("p.csv", b"path,predicted\na,b,c\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="can't be read"):
            made(str(tmp_path / name)).recorded(IDS, PATHS, CLASSES)


@pytest.fixture(scope="module")
def predicted(patched_set: Path, tmp_path_factory) -> Path:
    """What a model that leans on a red patch said of each image."""
    model = PatchLover(("a", "b", "c"), "cpu")
    paths = sorted(patched_set.glob("*/*.png"))
    logits = model.logits([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    rows = [
        {"path": path.relative_to(patched_set).as_posix(), "logits": dict(zip("abc", map(float, row), strict=True))}
        for path, row in zip(paths, logits, strict=True)
    ]
    return Path(write(tmp_path_factory.mktemp("predicted") / "predictions.jsonl", rows))


def audit_of(images: Path, model: dict, cache: Path) -> Audit:
    return Audit.from_dict(
        {
            "data": {"source": "folder", "path": str(images)},
            "model": model,
            "embed": {"kind": "python", "factory": "tests.fakes:colors"},
            "cache": str(cache),
        }
    )


def test_an_audit_of_predictions_observes_and_says_so(patched_set: Path, predicted: Path, tmp_path: Path) -> None:
    recorded = {"kind": "predictions", "path": str(predicted)}
    result = discover(audit_of(patched_set, recorded, tmp_path / "cache"), tmp_path / "audit")
    assert result.run["finished"] and result.run["observational"]
    assert any(entry["what"] == "ablation" and "file of its answers" in entry["why"] for entry in result.run["skipped"])
    untested = result.table("untested").to_pylist()
    assert untested and all("file of its answers" in row["reason"] for row in untested)
    assert {row["direction"] for row in untested} == {"removal", "insertion"}
    assert not len(result.table("edits"))
    assert result.findings and not [row for row in result.findings if row["verdict"] == "confirmed"]
    top = min((row for row in result.findings if row["class"] == "a"), key=lambda row: row["rank"])
    assert top["pa_gap_lower"] > 0.2  # the patch's gap is seen in what was recorded
    assert sentences.OBSERVATIONAL in html.unescape(result.report.read_text(encoding="utf-8"))

    live = {"kind": "python", "factory": "tests.fakes:patch_lover"}
    asked = discover(audit_of(patched_set, live, tmp_path / "cache"), tmp_path / "live")
    assert not asked.run["observational"]
    for column in ("predicted", "logits"):
        assert result.table("predictions")[column].to_pylist() == asked.table("predictions")[column].to_pylist()


def test_an_answer_belongs_to_the_place_that_the_file_names(patched_set: Path, predicted: Path, tmp_path: Path) -> None:
    """Two pictures change places: the file's answers stay with the places, whatever the cache holds."""
    images = tmp_path / "images"
    shutil.copytree(patched_set, images)
    audit = audit_of(images, {"kind": "predictions", "path": str(predicted)}, tmp_path / "cache")
    audit = audit.model_copy(update={"ablate": audit.ablate.model_copy(update={"enabled": False})})
    before = discover(audit, tmp_path / "before")
    one, two = images / "a" / "000.png", images / "b" / "000.png"
    one.rename(tmp_path / "kept.png")
    two.rename(one)
    (tmp_path / "kept.png").rename(two)
    after = discover(audit, tmp_path / "after")

    def said(result) -> dict[str, list[float]]:
        ids = dict(zip(*(result.table("images")[name].to_pylist() for name in ("image_id", "path")), strict=True))
        rows = result.table("predictions").to_pylist()
        return {ids[row["image_id"]]: row["logits"] for row in rows}

    assert said(before) == said(after)
