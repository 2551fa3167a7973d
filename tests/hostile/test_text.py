"""Names as they reach terminals, pages, configurations and spreadsheets."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Audit
from pipeline.bench.report.synthetic import report
from pipeline.cells import cell
from pipeline.cli import main
from pipeline.errors import UserError, plain
from pipeline.export.csv_file import export_csv
from pipeline.export.data import ExportData
from pipeline.export.label_studio import export_label_studio, labeling_config
from pipeline.init import write_configuration
from pipeline.report.notebook import findings_html
from pipeline.report.render import render_report
from pipeline.sources.items import Item, as_text, is_text
from tests.conftest import write_patched_set
from tests.hostile.corpus import CLASSES, ESCAPE, SCRIPT, TURNED
from tests.hostile.test_corpus import is_plain
from tests.report.test_render import Elements

TEXT = st.text(st.characters(), max_size=40)  # with halves of surrogates


@given(TEXT)
def test_plain_text_is_plain_and_writable(text: str) -> None:
    shown = plain(text)
    assert is_plain(shown) and "\n" not in shown
    shown.encode("utf-8")
    assert plain(shown) == shown
    if text.isprintable():
        assert shown == text


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_text_that_can_be_seen_stays(text: str) -> None:
    assert is_text(text) and as_text(text) == text


@given(TEXT, TEXT, TEXT)
def test_an_item_can_always_be_written(path: str, label: str, caption: str) -> None:
    item = Item(path, (label,), caption=caption, boxes=((label, (0, 0, 1, 1)),))
    for text in (item.path, *item.labels, item.caption, item.fault):
        text.encode("utf-8")
    assert bool(item.fault) != bool(item.labels)


@pytest.mark.parametrize("bad", ["\r", "\n", "\x85", "\u2028", "\u2029"])
def test_a_class_writes_no_line_of_a_configuration(tmp_path: Path, bad: str) -> None:
    """A folder's name that ends the comment it is shown in would be read as configuration, and that may name code."""
    images = write_patched_set(tmp_path / "images", per_class=1)
    (images / "a").rename(images / f"a{bad}model: {{kind: python, factory: 'os:system'}}")
    write_configuration(images, tmp_path / "audit.yaml", False)
    audit = Audit.from_yaml(tmp_path / "audit.yaml", ["detect=none"])
    assert audit.model.kind == "open_clip" and Path(audit.data.options["path"]) == images.resolve()


def test_a_message_can_only_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    raw = {
        "data": {"source": "folder", "path": str(tmp_path / f"no{ESCAPE}{TURNED}\nwhere")},
        "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.setattr(sys, "argv", ["cuescope", "discover", str(tmp_path / "audit.yaml"), "--no-prefect"])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and is_plain(shown.err) and shown.err.count("\n") == 1


def test_the_doctor_reads_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    raw = {
        "data": {"source": "folder", "path": str(tmp_path / f"[/red][bold]{ESCAPE}")},
        "model": {"kind": "python", "factory": "tests.fakes:patch_lover"},
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.setattr(sys, "argv", ["cuescope", "doctor", str(tmp_path / "audit.yaml")])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and "[/red][bold]" in shown.out and is_plain(shown.out)


def hidden() -> str:
    """A report in which every name holds what acts on text."""
    data = report()
    bad = f"{SCRIPT}{ESCAPE}{TURNED}"
    rows = [{**row, "class": bad, "cue": bad, "why": bad, "source": bad} for row in data.findings]
    images = {key: {**row, "path": bad, "label": bad} for key, row in data.images.items()}
    return render_report(replace(data, findings=rows, images=images, quarantine=[{"path": bad, "reason": bad}]))


def test_nothing_hides_or_turns_in_the_report() -> None:
    html = hidden()
    assert is_plain(html.replace("\t", ""))
    words = Elements(html).words
    assert "\\x1b[31m" in words and "\\u202e" in words and SCRIPT in words
    rows = [{**row, "class": f"{SCRIPT}{TURNED}", "cue": f"{SCRIPT}{ESCAPE}"} for row in report().findings]
    table = findings_html(rows)
    assert is_plain(table) and "<img" not in table and "<svg" not in table


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "  =", "\u00a0=", "\t=", "＝", "＋", "－", "＠"]
)
def test_no_cell_begins_as_a_formula(start: str) -> None:
    assert cell(f"{start}cmd|' /C calc'!A0").startswith("'")


def data_of_export() -> ExportData:
    data = report()
    rows = [{**row, "class": CLASSES["b"], "cue": f"x;=1+1\t{SCRIPT}{ESCAPE}&<!--]]>"} for row in data.findings]
    return ExportData(run={**data.run, "digest": "d"}, findings=rows, images=list(data.images.values()))


def test_text_is_quoted_so_that_no_other_separator_finds_a_formula(tmp_path: Path) -> None:
    (file,) = export_csv(data_of_export(), tmp_path / "f.csv")
    text = file.read_text(encoding="utf-8")
    assert '"x;=1+1' in text
    with open(file, encoding="utf-8", newline="") as stream:
        header, first, *_ = csv.reader(stream)
    assert first[header.index("class")].startswith("'=HYPERLINK")


def test_labels_of_label_studio_stay_labels(tmp_path: Path) -> None:
    files = export_label_studio(data_of_export(), tmp_path / "t.json", image_prefix="https://x", least_verdict="core")
    view = ElementTree.fromstring(files[-1].read_text(encoding="utf-8"))
    assert {element.tag for element in view.iter()} == {
        "View", "Header", "Image", "RectangleLabels", "Label", "Choices", "Choice", "TextArea"
    }  # fmt: skip
    task = json.loads(files[0].read_text(encoding="utf-8"))[0]
    assert is_plain(task["data"]["question"])
    config = labeling_config([{"cue": '"/><Style>*{}</Style><Label value="$image'}])
    assert "<Style>" not in config and "$image" not in config.replace('value="$image" zoom', "")


@pytest.mark.parametrize("name", ["picture.png", "findings.parquet", "audit.yaml", "folder.csv", "annotations.xml"])
def test_an_export_replaces_nothing_but_an_export(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    if name == "folder.csv":
        place = tmp_path / "t.json"
        place.mkdir()
        (place / "tasks.json").write_bytes(b"mine")
        place = place / "tasks.json"
    else:
        place.write_bytes(b"mine")
    out = place.with_suffix(".json") if name == "annotations.xml" else place
    with pytest.raises(UserError, match="no earlier export"):
        export_label_studio(data_of_export(), out, image_prefix="https://x", least_verdict="core")
    assert place.read_bytes() == b"mine"
    if name != "annotations.xml":
        with pytest.raises(UserError, match="no earlier export"):
            export_csv(data_of_export(), place)
        assert place.read_bytes() == b"mine"


def test_an_export_is_made_again_at_its_own_place(tmp_path: Path) -> None:
    for _ in range(2):
        export_csv(data_of_export(), tmp_path / "f.csv")
        export_csv(data_of_export(), tmp_path / "i.csv", rows="images")
        export_label_studio(data_of_export(), tmp_path / "t.json", image_prefix="https://x", least_verdict="core")
