"""Labelers' files as they are and as they go wrong; several people's answers as one; answers that are kept."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.export.label_studio import export_label_studio
from pipeline.records import ANSWERS, DISAGREED, table
from pipeline.verdicts import kept
from pipeline.verdicts.answers import Answer
from pipeline.verdicts.label_studio import read_label_studio
from pipeline.verdicts.settled import agreement, called, conflicts, known_again, opinions, presence_of
from pipeline.verdicts.table_file import read_table
from tests.export.test_label_studio import BOX, audit

WHEN = "2026-01-01T00:00:00+00:00"


def row(who: str, verdict: str = "", image: str = "", present: bool | None = None, **more: Any) -> dict[str, Any]:
    made = {"class": "boat", "cue_id": "thing:buoy", "cue": "buoy", "cue_type": "Co-occurring Objects", "kind": "named",
            "image_id": image, "verdict": verdict, "present": present, "boxes": [], "annotator": who, "given": WHEN,
            "source": "csv", "note": "", "called": "", "center": [], "encoder": ""}  # fmt: skip
    return made | more


def known(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return known_again(table("verdicts", list(rows)), table("clusters", []), "")[0]


# several people


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["spurious"], "spurious"),
        (["spurious", "spurious", "core"], "spurious"),
        (["spurious", "core"], DISAGREED),
        (["spurious", "core", "not present"], DISAGREED),
        (["core", "unsure", "unsure"], "core"),
        (["unsure"], "unsure"),
    ],
)
def test_a_verdict_has_more_than_half_of_those_who_are_sure(said: list[str], expected: str) -> None:
    (opinion,) = opinions(known(*(row(f"p{i}", verdict) for i, verdict in enumerate(said)))).values()
    assert opinion.verdict == expected


def test_of_a_persons_answers_the_one_on_the_whole_finding_counts_then_most_of_the_pictures() -> None:
    pictures = [row("anna", v, f"i{i}", v != "not present") for i, v in enumerate(["core", "core", "spurious"])]
    (opinion,) = opinions(known(*pictures, row("anna", "not present", "i9", False))).values()
    assert opinion.by == {"anna": "core"}
    (opinion,) = opinions(known(*pictures, row("anna", "spurious"))).values()
    assert opinion.by == {"anna": "spurious"}


def test_a_cue_that_is_not_in_some_pictures_is_no_verdict_on_the_finding() -> None:
    rows = known(*(row("anna", "not present", f"i{i}", False) for i in range(4)))
    assert opinions(rows) == {} and presence_of(rows) == {"buoy": {f"i{i}": False for i in range(4)}}


def test_presence_is_what_most_people_see_and_nothing_where_they_are_even() -> None:
    rows = known(
        *(row(who, image="i1", present=yes) for who, yes in (("a", True), ("b", True), ("c", False))),
        *(row(who, image="i2", present=yes) for who, yes in (("a", True), ("b", False))),
    )
    assert presence_of(rows) == {"buoy": {"i1": True}}
    assert agreement(rows)["presence"].units == 2
    assert [line for line in conflicts(rows) if "i2" in line] == ["buoy in image i2: 1 see it, 1 don't"]


def test_conflicts_name_who_says_what() -> None:
    assert conflicts(known(row("anna", "core"), row("ben", "spurious"))) == [
        "boat, buoy: anna says core, ben says spurious"
    ]
    assert conflicts(known(row("anna", "core"), row("ben", "unsure"))) == []


# kept


def test_a_later_answer_of_the_same_person_replaces_an_earlier_one_whatever_the_order_of_imports() -> None:
    early, late = row("anna", "core"), row("anna", "spurious", given="2026-02-01T00:00:00+00:00")
    for first, second in ((early, late), (late, early)):
        merged = kept.merge(table("verdicts", [first]), table("verdicts", [second]))
        assert merged["verdict"].to_pylist() == ["spurious"]
    both = kept.merge(table("verdicts", [early]), table("verdicts", [row("ben", "core"), row("anna", "core", "i1")]))
    assert len(both) == 3


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(ANSWERS), st.sampled_from(["", "i1", "i2"])), max_size=8)
)
def test_importing_twice_changes_nothing(answers: list[tuple[str, str, str]]) -> None:
    new = table("verdicts", [row(who, verdict, image) for who, verdict, image in answers])
    once = kept.merge(table("verdicts", []), new)
    assert kept.merge(once, new) == once


def test_reviewers_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "verdicts" / "set.parquet"
    people = [
        threading.Thread(target=kept.add, args=(path, table("verdicts", [row(f"p{i}", "core")]))) for i in range(12)
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(kept.read(path)) == 12


def test_each_data_set_has_its_file(tmp_path: Path) -> None:
    def file(**options: Any) -> Path:
        return kept.file_of(tmp_path, "folder", options)

    assert file(path="/a/boats") != file(path="/b/boats") != file(path="s3://bucket/boats")
    assert file(path="/a/boats", allow_http=True) == file(path="/a/boats")
    assert file(path="/a/boats").parent == tmp_path / "verdicts" and file(path="/a/boats").name.startswith("boats-")


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="can't be read"):
        kept.read(tmp_path / "x.parquet")
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "y.parquet")
    with pytest.raises(UserError, match="other columns"):
        kept.read(tmp_path / "y.parquet")


# unnamed cues


def clusters(*centers: list[float]) -> pa.Table:
    rows = [
        {"cluster": n, "size": 1, "images": 1, "medoid": "", "name": "", "name_score": 0.0, "threshold": 0.5,
         "centroid": center}
        for n, center in enumerate(centers)
    ]  # fmt: skip
    return table("clusters", rows)


def test_a_cluster_is_known_again_by_its_centre_not_its_number() -> None:
    said = table("verdicts", [row("anna", "core", kind="unnamed", cue="cluster 0", center=[1.0, 0.0], encoder="e")])
    found, lost = known_again(said, clusters([0.0, 1.0], [0.98, 0.1]), "e")
    assert [one["name"] for one in found] == ["cluster:1"] and lost == 0
    for others, encoder in ((clusters([0.0, 1.0]), "e"), (clusters([1.0, 0.0]), "another"), (clusters(), "e")):
        assert known_again(said, others, encoder) == ([], 1)


# Label Studio


def exported(tmp_path: Path, *annotations: dict[str, Any], change: Callable[[Any], Any] = lambda tasks: tasks) -> Path:
    """What Label Studio exports of our own tasks: the first one annotated, predictions as numbers."""
    out, _ = export_label_studio(audit(str(tmp_path / "set")), tmp_path / "tasks.json")
    tasks = json.loads(out.read_text("utf-8"))
    for number, task in enumerate(tasks):
        task |= {"id": number, "annotations": list(annotations) if not number else [], "predictions": [number]}
    path = tmp_path / "export.json"
    path.write_text(json.dumps(change(tasks)), "utf-8")
    return path


def choice(verdict: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": "verdict", "to_name": "image", "value": {"choices": [verdict]}}


def box(label: str = "buoy", x: float = 10.0) -> dict[str, Any]:
    value = {"x": x, "y": 20.0, "width": 30.0, "height": 25.0, "rotation": 0, "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "from_name": "cue", "to_name": "image", "value": value}


def annotation(*result: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"completed_by": 7, "result": list(result), "was_cancelled": False,
            "created_at": "2026-03-01T10:00:00.123456Z"} | more  # fmt: skip


def test_an_annotation_comes_back_with_our_ids(tmp_path: Path) -> None:
    note = {"type": "textarea", "from_name": "note", "to_name": "image", "value": {"text": ["a mooring"]}}
    path = exported(tmp_path, annotation(choice("spurious"), box(), box("gull"), note))
    found = read_label_studio(path, WHEN)
    assert found.unusable == []
    assert found.answers == [
        Answer(
            finding_id="boat-buoy", label="boat", cue="buoy", image="i0", verdict="spurious", present=True,
            boxes=[pytest.approx(BOX)], annotator="user 7", given="2026-03-01T10:00:00+00:00", note="a mooring",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "verdict", "present"),
    [
        ([choice("core")], "core", True),
        ([choice("not present"), box()], "not present", False),
        ([choice("unsure")], "unsure", None),
        ([box()], "", True),
    ],
)
def test_what_an_annotation_says_of_presence(tmp_path: Path, result: list, verdict: str, present: bool | None) -> None:
    (answer,) = read_label_studio(exported(tmp_path, annotation(*result)), WHEN).answers
    assert (answer.verdict, answer.present) == (verdict, present)
    assert not (present is False and answer.boxes)


def test_people_are_told_by_mail_address_where_the_export_has_it(tmp_path: Path) -> None:
    path = exported(
        tmp_path,
        annotation(choice("core"), completed_by={"id": 3, "email": "anna@example.org"}),
        annotation(choice("core"), completed_by=4),
    )
    assert [answer.annotator for answer in read_label_studio(path, WHEN).answers] == ["anna@example.org", "user 4"]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (annotation(choice("core"), was_cancelled=True), "skipped by the labeler"),
        (annotation(), "without a verdict or a box"),
        (annotation(choice("maybe")), "'maybe' is none of"),
        (annotation(box(x=float("inf"))), "isn't a number"),
        (annotation(choice("core"), created_at="yesterday"), "no time"),
        ({"result": None}, "can't be read"),
    ],
)
def test_annotations_that_say_nothing_are_left_out_with_the_reason(tmp_path: Path, made: dict, why: str) -> None:
    found = read_label_studio(exported(tmp_path, made, annotation(choice("core"))), WHEN)
    assert len(found.answers) == 1 and len(found.unusable) == 1 and why in found.unusable[0]


def min_of(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**task["data"], "id": task["id"], "annotator": 1, "verdict": "core"} for task in tasks]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (min_of, "JSON-MIN"),
        (lambda tasks: {"tasks": tasks}, "no list of tasks"),
        (lambda tasks: [{"data": task["data"]} for task in tasks], "without annotations"),
    ],
)
def test_other_formats_are_refused_with_what_to_do(tmp_path: Path, change: Callable, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_label_studio(exported(tmp_path, change=change), WHEN)


def test_tasks_of_others_are_counted(tmp_path: Path) -> None:
    path = exported(
        tmp_path, annotation(choice("core")), change=lambda tasks: [*tasks, {"data": {}, "annotations": []}]
    )
    assert read_label_studio(path, WHEN).unusable == ["a task without Cuescope's ids in its data"]


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["data", "annotations", "result", "value", "from_name", "finding_id",
                                         "choices", "rectanglelabels", "completed_by"]), inner, max_size=4),
                    max_leaves=12))  # fmt: skip
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.mktemp("ls") / "x.json"
    path.write_text(json.dumps(content), "utf-8")
    with contextlib.suppress(UserError):
        read_label_studio(path, WHEN)


# tables


def csv(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8-sig"))
    return path


def test_rows_of_a_spreadsheet(tmp_path: Path) -> None:
    text = (
        "finding_id;class;cue;image_id;present;verdict;annotator;note\r\n"
        'f1;boat;buoy;i1;Yes;Spurious;anna;"a; b"\r\n'
        "f1;boat;buoy;i2;no;;anna;\r\n"
        "f1;boat;buoy;i3;;not_present;;\r\n"
        "f1;boat;buoy;i4;;;;\r\n"
        "f1;boat;buoy;;;core;ben;\r\n"
    )
    found = read_table(csv(tmp_path, text), WHEN)
    assert [(a.image, a.present, a.verdict, a.annotator) for a in found.answers] == [
        ("i1", True, "spurious", "anna"),
        ("i2", False, "", "anna"),
        ("i3", False, "not present", "unnamed"),
        ("", None, "core", "ben"),
    ]
    assert found.unusable == [] and found.answers[0].note == "a; b"


def test_rows_of_jsonl(tmp_path: Path) -> None:
    lines = [
        {"class": "boat", "cue": "buoy", "path": "boat/1.png", "present": True, "given": "2026-05-01T02:00:00+02:00"},
        {"finding_id": "f1", "verdict": "unsure", "note": "x\u2028y"},
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    first, second = read_table(csv(tmp_path, text, "t.jsonl"), WHEN).answers
    assert (first.image, first.present, first.given) == ("boat/1.png", True, "2026-05-01T00:00:00+00:00")
    assert (second.verdict, second.given, second.note) == ("unsure", WHEN, "x\u2028y")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("f1,i1,maybe,", "neither yes nor no"),
        ("f1,i1,,good", "'good' is none of"),
        ("f1,i1,,confirmed", "rows=tasks"),
        ("f1,,yes,", "no picture"),
        (",i1,yes,", "neither a finding_id nor"),
    ],
)
def test_rows_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path, line: str, why: str) -> None:
    found = read_table(csv(tmp_path, f"finding_id,image_id,present,verdict\n{line}\nf1,i2,yes,\n"), WHEN)
    assert len(found.answers) == 1 and len(found.unusable) == 1 and why in found.unusable[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"image,label\n1,2\n", "finding_id"),
        ("t.csv", b"finding_id\xff\n", "UTF-8"),
        ("t.csv", b"", "none"),
        ("t.jsonl", b"{\n", "line 1"),
        ("t.jsonl", b"[1]\n", "expected an object"),
    ],
)
def test_files_that_are_no_table_are_told(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_table(tmp_path / name, WHEN)


def test_cues_of_one_name_are_one_cue() -> None:
    rows = [
        {**row("anna", "core", called="mooring"), "name": "cluster:3"},
        {**row("ben", "core", called="mooring"), "name": "buoy"},
        {**row("ben", "spurious"), "name": "sea"},
    ]
    assert called(rows) == {"cluster:3": "mooring", "buoy": "mooring"}
    found = opinions(rows)
    assert found["boat", "cluster:3"].by == found["boat", "buoy"].by == {"anna": "core", "ben": "core"}
    assert found["boat", "sea"].verdict == "spurious" and len(found) == 3


def test_a_cue_called_by_anothers_own_name_is_that_one() -> None:
    one = {**row("anna", "core", called="buoy"), "name": "cluster:3"}
    other = {**row("ben", "spurious"), "name": "buoy", "class": "car"}
    assert {finding: opinion.verdict for finding, opinion in opinions([one, other]).items()} == {
        ("boat", "cluster:3"): "core",
        ("boat", "buoy"): "core",
        ("car", "buoy"): "spurious",
        ("car", "cluster:3"): "spurious",
    }


def test_a_name_is_what_most_say_and_of_equals_the_latest() -> None:
    anna = {**row("anna", called="rope", given="2026-03-01"), "name": "cluster:3"}
    ben = {**row("ben", called="chain", given="2026-03-02"), "name": "cluster:3"}
    cem = {**row("cem", called="rope", given="2026-01-01"), "name": "cluster:3"}
    assert called([anna, ben]) == {"cluster:3": "chain"}
    assert called([anna, ben, cem]) == {"cluster:3": "rope"}
    assert called([anna, ben, {**ben, "called": "rope", "given": "2026-03-03"}]) == {"cluster:3": "rope"}
    assert called([{**anna, "called": ""}]) == {}


def test_verdicts_from_before_there_were_names_stay(tmp_path: Path) -> None:
    pq.write_table(table("verdicts", [row("anna")]).drop_columns(["called"]), tmp_path / "old.parquet")
    assert kept.read(tmp_path / "old.parquet").to_pylist() == [row("anna")]


def test_a_spreadsheet_may_name_a_cue(tmp_path: Path) -> None:
    file = tmp_path / "named.csv"
    file.write_text("finding_id,verdict,called,annotator\nf1,,mooring,anna\nf2,,,anna\n", "utf-8")
    (answer,) = read_table(file, WHEN).answers
    assert (answer.finding_id, answer.verdict, answer.called) == ("f1", "", "mooring")
