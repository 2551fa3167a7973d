"""Bad files of predictions, answers and attributes: one plain line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError, plain
from pipeline.models.answers_file import answers_file
from pipeline.models.list_proposer import list_proposer
from pipeline.models.predictions_file import predictions_file

CLASSES, IDS, PATHS = ("a", "b"), ["1", "2"], ["x.png", "y.png"]
GOOD = [{"path": "x.png", "scores": {"a": 0.9, "b": 0.1}}, {"path": "y.png", "scores": {"a": 0.2, "b": 0.8}}]
NAN = float("nan")


def predicted(file: Path) -> Any:
    return predictions_file(CLASSES, "cpu", path=str(file)).recorded(IDS, PATHS, CLASSES)


def answered(file: Path) -> Any:
    return answers_file(CLASSES, "cpu", path=str(file)).recorded(IDS, PATHS, CLASSES)


def written(tmp_path: Path, rows: list[Any], name: str = "f.jsonl") -> Path:
    (tmp_path / name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return tmp_path / name


def test_good_ones_are_read(tmp_path: Path) -> None:
    assert predicted(written(tmp_path, GOOD)).shape == (2, 2)
    (tmp_path / "bom.jsonl").write_text("\n".join(map(json.dumps, GOOD)), encoding="utf-8-sig")
    assert predicted(tmp_path / "bom.jsonl").shape == (2, 2)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"path": "x.png", "scores": {"a": NAN, "b": 0.1}}, "finite"),
        ({"path": "x.png", "logits": {"a": float("inf"), "b": 0.1}}, "finite"),
        ({"path": "x.png", "scores": {"a": "high", "b": 0.1}}, "finite"),
        ({"path": "x.png", "scores": {"a": 2, "b": 0.1}}, "0 to 1"),
        ({"path": "x.png", "scores": [0.1]}, "1 scores"),
        ({"path": "x.png", "scores": "[" * 100_000}, "neither a JSON list"),
        ({"path": "x.png", "scores": "[" + "9" * 5000 + "]"}, "neither a JSON list"),
        ({"path": "x.png", "scores": {"\x1b[31m": 1, "b": 0.1}}, "none of the audit's classes"),
        ({"path": "x.png", "predicted": "\u202ec"}, "none of the audit's classes"),
        ({"path": "y.png", "scores": {"a": 1, "b": 0}}, "two rows"),
        ({"path": "", "scores": {"a": 1, "b": 0}}, "no path"),
        ("{", "line 1 is not JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=range(14),
)
def test_a_bad_row_of_predictions(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        predicted(written(tmp_path, [row, GOOD[1]]))
    assert words in str(caught.value) and "\n" not in plain(str(caught.value)) and len(str(caught.value)) < 600


def test_nan_in_a_table_is_no_score(tmp_path: Path) -> None:
    table = pa.table({"path": PATHS, "scores.a": [0.5, NAN], "scores.b": [0.5, 0.5]})
    pq.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(UserError, match="finite"):
        predicted(tmp_path / "f.parquet")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\0", bytes(99), b"PAR1PAR1", "path,scores\r\n\xe9".encode("latin-1")]
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("read", [predicted, answered])
def test_a_file_that_is_none(tmp_path: Path, read: Any, suffix: str, content: bytes) -> None:
    (tmp_path / f"f.{suffix}").write_bytes(content)
    with pytest.raises(UserError):
        read(tmp_path / f"f.{suffix}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": NAN}, "no probability"),
        ({"answer": 7}, "no probability"),
        ({"class": "c"}, "no class"),
        ({"image": "y.png"}, "second answer"),
    ],
)
def test_a_bad_row_of_answers(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = [{"image": name, "class": "a", "answer": "Yes", "prompt": "p"} for name in PATHS]
    with pytest.raises(UserError, match=words):
        answered(written(tmp_path, [{**rows[0], **change}, rows[1]]))


@pytest.mark.parametrize(
    "content",
    [
        b"a: &a [x, x]\nb: *a\n",
        b"a: !!python/object/apply:os.system [true]\n",
        b"[" * 50_000,
        b"\xff\xfe",
        b"a: [1, 2]",
        b"just words: here: there",
    ],
    ids=["references", "an object", "nested", "no text", "numbers", "no YAML"],
)
def test_a_bad_list_of_attributes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        list_proposer(0, tmp_path, path=str(tmp_path / "list.yaml"))
    assert "list.yaml" in str(caught.value) and len(str(caught.value)) < 600
