"""The report as a file: complete, closed, escaped, and honest about what is missing."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipeline.bench.report.synthetic import NAN, around, finding, report, run
from pipeline.records import ANSWERS, VERDICTS
from pipeline.report.data import ReportData
from pipeline.report.overview import LEVELS, level
from pipeline.report.render import render_report

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}'


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.found if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(report())


def test_every_finding_is_there_with_its_sentence_and_verdict(page: str) -> None:
    articles = [attrs for attrs in Elements(page).all("article") if "finding" in attrs["class"].split()]
    assert len(articles) == 30
    assert {attrs["data-verdict"] for attrs in articles} == set(VERDICTS)
    assert len({attrs["id"] for attrs in articles}) == 30
    assert Elements(page).words.count("Without the sea in the background the model misses") >= 1


def test_nothing_is_loaded_from_outside(page: str) -> None:
    elements = Elements(page)
    assert "http" not in re.sub(r'http-equiv="', "", page), "no address at all, whatever for"
    assert not elements.all("iframe") and not elements.all("object") and not elements.all("embed")
    assert [link["href"] for link in elements.all("link")] == ["data:,"]
    assert all("src" not in script for script in elements.all("script"))
    assert all("src" not in image for image in elements.all("img"))


def test_the_policy_allows_this_script_alone(page: str) -> None:
    policy = next(m["content"] for m in Elements(page).all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    for name, tag in (("script", "<script>"), ("style", "<style>")):
        text = page.rpartition(tag)[2].partition(tag.replace("<", "</"))[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy and "unsafe" not in policy
    assert not re.search(r"<[^>]+\sstyle=", page), "styles in attributes would not count under this policy"
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"<[^>]+\son\w+=", page), "handlers in attributes would not run under this policy"


def hostile_report() -> ReportData:
    data = report()
    rows = [
        finding(**{**row, "class": HOSTILE, "cue": HOSTILE, "why": HOSTILE, "source": HOSTILE}) for row in data.findings
    ]
    images = {key: {**row, "path": HOSTILE, "label": HOSTILE} for key, row in data.images.items()}
    summary = run([HOSTILE]) | {
        "skipped": [{"what": HOSTILE, "why": HOSTILE}],
        "versions": {HOSTILE: HOSTILE},
    }
    summary["audit"]["model"]["name"] = HOSTILE
    summary["data"]["root"] = HOSTILE
    return replace(
        data,
        run=summary,
        findings=rows,
        images=images,
        untested=[{"label": HOSTILE, "cue_id": HOSTILE, "direction": HOSTILE, "reason": HOSTILE}],
        quarantine=[{"path": HOSTILE, "reason": HOSTILE}],
        attributes=[{"label": HOSTILE, "phrase": HOSTILE, "source": HOSTILE, "reason": HOSTILE}],
        cues=[{"cue_id": row["cue_id"], "name": HOSTILE, "operator": HOSTILE} for row in data.findings],
        thumbs={**data.thumbs, "evil": "javascript:alert(3)"},
    )


def test_hostile_names_stay_text() -> None:
    page = render_report(hostile_report())
    elements = Elements(page)
    plain = Elements(render_report(report()))
    assert len(elements.all("script")) == len(plain.all("script")) == 2
    assert all("onerror" not in attrs for _, attrs in elements.found)
    assert all(image.get("data-picture") for image in elements.all("img"))
    assert "javascript:" not in page
    assert "49" not in Elements(render_report(replace(hostile_report(), findings=[]))).words, "no template is evaluated"
    assert "<img src=x onerror=alert(1)>" in elements.words, "what was given is shown as it was given"


def test_the_page_of_a_review_is_as_closed_but_for_its_server() -> None:
    data = hostile_report()
    data = replace(data, thumbs={key: f"image/{key}" for key in data.thumbs})
    page = render_report(data, review=True)
    elements = Elements(page)
    assert len(elements.all("script")) == 2 and "javascript:" not in page
    assert all("onerror" not in attrs for _, attrs in elements.found)
    policy = next(m["content"] for m in elements.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data: 'self'; connect-src 'self'; style-src 'sha256-")
    assert "unsafe" not in policy and "form-action 'none'" in policy
    buttons = [attrs["data-say"] for attrs in elements.all("button") if "data-say" in attrs]
    assert len(buttons) == 4 * 30 and set(buttons) == set(ANSWERS)
    assert {image["src"].partition("/")[0] for image in elements.all("img") if "src" in image} == {"image"}


def test_the_report_itself_takes_no_verdicts(page: str) -> None:
    assert not re.search(r"data-say=|connect-src|fetch\(|id=.desk", page)


def test_cues_by_peoples_names_say_what_they_were_found_as() -> None:
    row = finding(verdict="confirmed", called="mooring buoy", **around("removal_effect", 0.3, 0.1))
    words = Elements(render_report(ReportData(run=run(["boat"]), findings=[row]))).words
    assert "Without the mooring buoy the model misses 30 more of 100 boats" in words and "found as buoy" in words


def test_it_says_how_to_cite_it_and_what_came_out_clean(page: str) -> None:
    words = Elements(page).words
    assert "configuration 8c1f00aa12" in words and "@software{cuescope," in words and "2503.08884" in words
    assert re.search(r"Tested and found clean Cues that go with a class .* cactus cluster 7 \(fence\)", words)


def test_where_it_sits_what_it_holds_and_who_named_it(page: str) -> None:
    elements = Elements(page)
    assert any("around the middle" in image["alt"] for image in elements.all("img"))
    assert any("nearest to the middle of the cluster" in image["alt"] for image in elements.all("img"))
    assert "<mark>buoy</mark>" in page and "31 of 45 captions of" in elements.words


def test_pictures_are_stored_once_and_safe_inside_their_script(page: str) -> None:
    data = report()
    for uri in data.thumbs.values():
        assert page.count(uri) == 1


def test_no_findings_and_no_pictures_still_make_a_page() -> None:
    empty = render_report(ReportData(run={}, findings=[]))
    assert "No findings" in empty and "No classes" in empty
    bare = render_report(report(pictures=False))
    assert "No evidence picture to show" in bare and '<article class="finding' in bare


def test_a_class_without_a_confirmed_cue_says_what_was_tried(page: str) -> None:
    words = Elements(page).words
    assert "Tested and found clean" in words
    assert "4 cues tested, none with an effect. An effect of 14 of 100 would have been seen in each." in words
    assert "Nothing confirmed, 1 undecided" in words
    assert "No cue of this class could be put to the test" in words


def test_an_untested_finding_does_not_make_a_class_undecided() -> None:
    rows = [
        finding(verdict="associated only", **around("removal_effect", 0.0, 0.05)),
        finding(finding_id="b", cue_id="sea", cue="sea", verdict="inconclusive"),
    ]
    words = Elements(render_report(ReportData(run=run(["boat"]), findings=rows))).words
    assert "Tested and found clean" in words and "undecided" not in words


def test_what_was_not_tested_and_not_read_is_listed(page: str) -> None:
    words = Elements(page).words
    assert "fewer than 10 images with the cue (2 experiments)" in words
    assert "no region encoder is configured" in words
    assert "boat/broken.jpg damaged image: truncated" in words


def test_the_split_is_mentioned_when_it_is_off() -> None:
    data = report(findings=2)
    assert "One half for everything" not in render_report(data)
    assert "One half for everything" in render_report(replace(data, run=data.run | {"split": False}))


def test_unmeasured_numbers_are_dashes_not_zeros() -> None:
    words = Elements(render_report(ReportData(run=run(["boat"]), findings=[finding()]))).words
    assert "nan" not in words.lower().split() and "“buoy” was not put to the test on boats." in words
    assert "Removal effect – of 100 images" in words


def test_every_picture_has_words_and_its_boxes(page: str) -> None:
    elements = Elements(page)
    assert all(image["alt"] for image in elements.all("img"))
    rects = [attrs for attrs in elements.all("rect") if attrs.get("class") == "edge"]
    spans = [(float(r["x"].rstrip("%")), float(r["width"].rstrip("%"))) for r in rects]
    assert spans and all(0 <= x <= 100 and x + width <= 100.01 for x, width in spans)


@pytest.mark.parametrize(
    ("effect", "name"),
    [(NAN, "none"), (0.0, "p0"), (-0.01, "p0"), (LEVELS[0], "p1"), (-0.12, "n3"), (1.0, "p5"), (-1.0, "n5")],
)
def test_colour_levels(effect: float, name: str) -> None:
    assert level(effect) == name


def test_fills_are_dots_only_where_there_are_several() -> None:
    row = finding(verdict="confirmed", **around("removal_effect", 0.3, 0.1))
    effects = [
        {"finding_id": "boat-buoy", "fill": f, "direction": "removal", "estimate": 0.3, "n": 9}
        for f in ("blur", "mean")
    ]
    both = render_report(ReportData(run=run(["boat"]), findings=[row], effects=effects))
    assert "by fill blur: +30 of 100, mean: +30 of 100" in both
    alone = render_report(ReportData(run=run(["boat"]), findings=[row], effects=effects[:1]))
    assert "by fill" not in alone


@pytest.mark.slow
def test_a_thousand_findings_fit() -> None:
    page = render_report(report(classes=50, findings=1000))
    assert len(page.encode()) < 40_000_000
    assert page.count('<article class="finding') == 1000
