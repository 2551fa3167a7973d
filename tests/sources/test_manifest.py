from __future__ import annotations

import base64
import csv
import json
import string
import tempfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.sources.items import Item
from pipeline.sources.manifest import manifest
from tests.sources.conftest import rows


def table_of(pictures: Path) -> list[dict]:
    files = sorted(pictures.glob("*/*.png"))
    return [{"image": file.relative_to(pictures).as_posix(), "label": file.parent.name} for file in files]


def write(path: Path, table: list[dict]) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(table), path, row_group_size=7)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_audit_of_a_manifest_is_that_of_the_folder(pictures: Path, audited, from_folder, tmp_path, suffix) -> None:
    path = write(tmp_path / f"set.{suffix}", table_of(pictures))
    result = audited({"source": "manifest", "path": str(path), "root": str(pictures)})
    for table in ("images", "predictions", "presence"):
        assert rows(result, table) == rows(from_folder, table)
    assert result.run["data"]["root"] == str(pictures)


def test_pictures_in_the_manifest_itself(pictures: Path, audited, from_folder, tmp_path: Path) -> None:
    inside = [{**row, "image": (pictures / row["image"]).read_bytes()} for row in table_of(pictures)]
    parquet = audited({"source": "manifest", "path": str(write(tmp_path / "set.parquet", inside))})
    coded = [{**row, "image": "data:image/png;base64," + base64.b64encode(row["image"]).decode()} for row in inside]
    jsonl = audited({"source": "manifest", "path": str(write(tmp_path / "set.jsonl", coded))})
    hub = [{**row, "image": {"bytes": row["image"], "path": None}} for row in inside]
    struct = audited({"source": "manifest", "path": str(write(tmp_path / "hub.parquet", hub))})
    for result in (parquet, jsonl, struct):
        assert rows(result, "images", "path") == rows(from_folder, "images", "path")
        assert rows(result, "predictions") == rows(from_folder, "predictions")


def test_a_manifest_in_another_file_system(pictures: Path, audited, from_folder, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for file in pictures.glob("*/*.png"):
        memory.pipe(f"/set/{file.relative_to(pictures).as_posix()}", file.read_bytes())
    memory.pipe("/set/list.csv", write(tmp_path / "list.csv", table_of(pictures)).read_bytes())
    try:
        table = audited({"source": "manifest", "path": "memory://set/list.csv"})
        folder = audited({"source": "folder", "path": "memory://set"})
    finally:
        memory.rm("/set", recursive=True)
    assert rows(table, "images") == rows(folder, "images") == rows(from_folder, "images")
    files = [(result.path / "images.parquet").read_bytes() for result in (folder, from_folder)]
    assert files[0] == files[1]  # in the folder's own order too


def test_splits_and_groups_of_the_data_are_honoured(pictures: Path, audited, tmp_path: Path) -> None:
    table = [
        {**row, "fold": "train" if number % 2 else "test", "patient": ""}
        for number, row in enumerate(table_of(pictures))
    ]
    for number, row in enumerate(table[:6]):  # given groups: one half each, though no split is given
        row.update(fold="", patient=f"p{number // 3}")
    columns = {"split": "fold", "group": "patient"}
    path = write(tmp_path / "set.csv", table)
    result = audited({"source": "manifest", "path": str(path), "root": str(pictures), "columns": columns})
    by_path = {row["path"]: row for row in result.table("images").to_pylist()}
    for row in table[6:]:
        assert by_path[row["image"]]["split"] == ("selection" if row["fold"] == "train" else "estimation")
    for start in (0, 3):
        mine = [by_path[row["image"]] for row in table[start : start + 3]]
        assert {row["group"] for row in mine} == {f"p{start // 3}"}
        assert len({row["split"] for row in mine}) == 1


def test_one_half_alone_is_a_mistake(pictures: Path, audited, tmp_path: Path) -> None:
    path = write(tmp_path / "set.csv", [{**row, "split": "train"} for row in table_of(pictures)])
    with pytest.raises(UserError, match="every image in the selection half"):
        audited({"source": "manifest", "path": str(path), "root": str(pictures)})


def test_faults_are_quarantined_with_reasons(pictures: Path, audited, tmp_path: Path) -> None:
    table = table_of(pictures)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    outside = tmp_path / "outside.png"
    outside.write_bytes((pictures / "a" / "000.png").read_bytes())
    shown = tmp_path / "images"
    shown.symlink_to(pictures)
    bad = [
        {"image": "none.png", "label": "a"},
        {"image": "broken.png", "label": "a"},
        {"image": table[1]["image"], "label": table[1]["label"]},
        {"image": table[2]["image"], "label": "c"},
        {"image": table[3]["image"], "label": "NaN"},
        {"image": table[4]["image"], "label": "zebra"},
        {"image": "../../etc/passwd", "label": "a"},
        {"image": "ftp://host/a.png", "label": "a"},
        {"image": "", "label": "a"},
        {"image": table[5]["image"], "label": "b", "boxes": "[[0, 0, 5, 5], [1, 1, 4, 4]]", "box_labels": '["x"]'},
        {"image": table[6]["image"], "label": "b", "boxes": "[[0, 0, NaN, 5]]"},
        {"image": table[7]["image"], "label": "b", "split": "holdout"},
    ]
    good = [{**row, "image": str(pictures / row["image"])} for row in table]
    for row in bad[2:6] + bad[9:]:
        row["image"] = str(pictures / row["image"])
    (pictures / "broken.png").write_bytes(b"\x89PNG nothing")
    blank = dict.fromkeys(("image", "label", "split", "boxes", "box_labels"), "")
    path = write(tmp_path / "set.csv", [{**blank, **row} for row in good + bad])
    path.write_text(path.read_text() + "one,field,too,many,for,this\n")
    data = {"source": "manifest", "path": str(path), "root": str(pictures), "class_names": ["a", "b", "c"]}
    try:
        result = audited(data)
    finally:
        (pictures / "broken.png").unlink()
    reasons = [row["reason"] for row in result.table("quarantine").to_pylist()]
    for words in (
        "No such file", "not an image", "the same picture as", "under another label", "no label", "'zebra'", "outside",
        "'ftp'", "names no image", "2 boxes and 1 names", "not finite", "'holdout'", "6 fields, and the header has 5",
    ):  # fmt: skip
        assert any(words in reason for reason in reasons), words
    assert result.run["data"]["quarantined"] == len(reasons) == len(bad) + 2  # a picture of two labels: both rows
    assert result.run["data"]["images"] == len(table) - 1


def test_boxes_and_captions_of_the_data_are_used(pictures: Path, audited, tmp_path: Path) -> None:
    table = []
    for number, row in enumerate(table_of(pictures)):
        with_thing = row["label"] == "a" or number % 5 == 0
        table.append(
            {
                **row,
                "caption": f"a {row['label']} beside a lamp" if with_thing else f"a {row['label']}",
                "boxes": [[12, 12, 24, 36]] if with_thing else [],
                "box_labels": ["Lamps"] if with_thing else [],
            }
        )
    table[-1].update(caption="", boxes=[[900, 900, 950, 950]], box_labels=["lamp"])
    path = write(tmp_path / "set.jsonl", table)
    result = audited(
        {"source": "manifest", "path": str(path), "root": str(pictures)},
        caption={"kind": "data"}, detect={"kind": "data"}, propose={"kind": "list", "attributes": ["lamp"]},
    )  # fmt: skip
    captions = {row["image_id"]: row["caption"] for row in result.table("captions").to_pylist()}
    by_path = {row["path"]: row["image_id"] for row in result.table("images").to_pylist()}
    assert {captions.get(by_path[row["image"]]) for row in table[:3]} == {"a a beside a lamp"}
    assert by_path[table[-1]["image"]] not in captions and len(captions) == len(table) - 1
    found = result.table("detections").to_pylist()
    assert {(row["phrase"], row["score"]) for row in found} == {("lamp", 1.0)}
    assert {tuple(row["box"]) for row in found} == {(0.25, 0.25, 0.5, 0.75)}
    assert {row["image_id"] for row in found} == {
        by_path[row["image"]] for row in table if len(row["boxes"][0:1]) and row is not table[-1]
    }
    lamp = [row for row in result.findings if row["cue"] == "lamp" and row["class"] == "a"]
    assert lamp and lamp[0]["log_odds_ratio"] > 0
    said = [f"{entry['what']}: {entry['why']}" for entry in result.run["skipped"]]
    assert any("captions of 1 images" in line for line in said) and any("1 boxes" in line for line in said)


def test_captions_that_are_not_there_are_one_plain_line(pictures: Path, audited, tmp_path: Path) -> None:
    path = write(tmp_path / "set.csv", table_of(pictures))
    with pytest.raises(UserError, match="takes captions from the data, and no image has any"):
        audited({"source": "manifest", "path": str(path), "root": str(pictures)}, caption={"kind": "data"})


def test_an_image_of_several_labels_is_audited_for_each(pictures: Path, audited, tmp_path: Path) -> None:
    table = table_of(pictures)
    table[0]["label"] = "a|b"
    path = write(tmp_path / "set.csv", table)
    result = audited({"source": "manifest", "path": str(path), "root": str(pictures), "separator": "|"})
    twice = [row for row in result.table("images").to_pylist() if row["path"] == table[0]["image"]]
    assert [row["label"] for row in twice] == ["a", "b"]
    assert len({row["image_id"] for row in twice}) == 2
    assert len({(row["group"], row["split"]) for row in twice}) == 1
    others = {row["image_id"]: row["other_labels"] for row in result.table("annotations").to_pylist()}
    assert [others[row["image_id"]] for row in twice] == [["b"], ["a"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": {"label": "klass"}}, ["no column 'klass'", "Did you mean 'class_of_it'"]),
        ({"columns": {"lable": "class_of_it"}}, ["'lable'", "Did you mean 'label'"]),
        ({}, ["no column for the label", "class_of_it"]),
        ({"columns": {"label": "class_of_it"}, "splits": {"train": "selektion"}}, ["Did you mean 'selection'"]),
        ({"path": "none.csv"}, ["none.csv", "No such file"]),
        ({"path": "set.txt"}, ["no manifest", ".parquet"]),
        ({"path": "no.parquet"}, ["no.parquet is not a .parquet file"]),
    ],
)
def test_a_mistake_is_one_plain_line(tmp_path: Path, change: dict, words: list[str]) -> None:
    write(tmp_path / "set.csv", [{"image": "a.png", "class_of_it": "a"}])
    (tmp_path / "no.parquet").write_text("image,label\n")
    options = {"path": "set.csv", **change}
    options["path"] = str(tmp_path / options["path"])
    with pytest.raises(UserError) as caught:
        manifest(**options)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


PLAIN = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff"), min_size=1, max_size=12)
LABELS = PLAIN.map(str.strip).filter(lambda text: text and text.lower() != "nan")
PATHS = st.text(string.ascii_letters + ' ,"|', min_size=1, max_size=9).map(lambda text: f"x{text}.png")
NUMBERS = st.floats(0, 500, width=32)
ROW = st.fixed_dictionaries(
    {
        "image": PATHS,
        "label": LABELS,
        "caption": LABELS.map(lambda text: " ".join(text.split())),
        "split": st.sampled_from(["selection", "estimation", ""]),
        "group": st.one_of(st.just(""), LABELS),
        "things": st.lists(st.tuples(LABELS, st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)), max_size=3),
    }
)


@settings(max_examples=25)
@given(st.lists(ROW, min_size=1, max_size=5), st.sampled_from(["csv", "jsonl", "parquet"]))
def test_what_is_written_is_what_is_read(table: list[dict], suffix: str) -> None:
    def cell(value: list) -> object:
        return json.dumps(value) if suffix == "csv" else value

    with tempfile.TemporaryDirectory() as folder:
        written = [
            {
                **{name: row[name] for name in ("image", "label", "caption", "split", "group")},
                "boxes": cell([list(box) for _, box in row["things"]]),
                "box_labels": cell([name for name, _ in row["things"]]),
            }
            for row in table
        ]
        source = manifest(path=str(write(Path(folder) / f"set.{suffix}", written)))
        expected = [
            Item(row["image"], (row["label"],), row["split"], row["group"], row["caption"], tuple(row["things"]))
            for row in table
        ]
        assert list(source) == expected
