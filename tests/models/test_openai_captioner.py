"""Captions from a real server on this machine: what it is sent, and what happens when it answers badly or not."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BudgetReached, UserError
from pipeline.models.ledger import Ledger
from pipeline.models.openai_captioner import OpenAICaptioner, openai_captioner
from tests.llm_server import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as running:
        running.always = lambda request: json.dumps({"caption": "A  dog\non grass."})
        yield running


@pytest.fixture
def make(server, tmp_path):
    def of(**options: Any) -> OpenAICaptioner:
        ledger = Ledger(tmp_path / "llm.jsonl")
        return openai_captioner(
            "cpu", tmp_path, ledger, **{"model": "m", "base_url": server.url, "retries": 0, **options}
        )

    return of


def sent(request: dict) -> np.ndarray:
    (url,) = [part["image_url"]["url"] for part in request["messages"][-1]["content"] if part["type"] == "image_url"]
    kind, _, data = url.partition(";base64,")
    assert kind == "data:image/jpeg"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_each_image_is_sent_once_and_its_caption_kept(server, make, pictures, tmp_path):
    images = [*pictures(2, 60, 80), pictures(1, 400, 100)[0]]
    captioner = make(longest_side=200, prompt="What is seen?", price={"input": 1, "output": 2})
    assert captioner.captions(images) == ["A dog on grass."] * 3
    assert [sent(request).shape for request in server.requests] == [(60, 80, 3), (60, 80, 3), (200, 50, 3)]
    assert np.abs(sent(server.requests[0]).astype(int) - images[0].astype(int)).mean() < 4
    assert server.requests[0]["messages"][-1]["content"][0]["text"] == "What is seen?"
    assert server.requests[0]["response_format"]["json_schema"]["strict"]
    spent = Ledger(tmp_path / "llm.jsonl").spent()
    assert (spent.calls, spent.tokens) == (3, 360) and spent.usd == pytest.approx((300 + 2 * 60) / 1e6)
    assert captioner.estimate(10).calls == 10 and captioner.estimate(10).usd > 0
    again = make(longest_side=200, prompt="What is seen?")
    assert again.captions(images) == ["A dog on grass."] * 3 and len(server.requests) == 3
    assert Ledger(tmp_path / "llm.jsonl").spent().calls == 3
    assert "base64" not in (tmp_path / "llm.jsonl").read_text()


def test_a_server_that_knows_no_schema_is_told_in_words(server, make, pictures):
    def reply(request: dict) -> Any:
        if "response_format" in request:
            return 400, {"error": {"message": "response_format is not supported"}}
        return '```json\n{"caption": "A cat."}\n```'

    server.always = reply
    assert make().captions(pictures(3, 20, 20)) == ["A cat."] * 3
    assert ["response_format" in request for request in server.requests] == [True, False, False, False]
    assert "JSON schema" in server.requests[-1]["messages"][-1]["content"][0]["text"]


@pytest.mark.parametrize("reply", ["no JSON at all", '{"text": "x"}', '{"caption": 3}', "[1]"])
def test_what_cannot_be_read_gives_no_caption(server, make, pictures, reply):
    server.always = lambda request: reply
    assert make().captions(pictures(1, 20, 20)) == [""]
    assert len(server.requests) <= 2


def test_a_caption_has_no_end_of_lines_and_an_end(server, make, pictures):
    server.always = lambda request: json.dumps({"caption": "x\ny " * 5000})
    (caption,) = make().captions(pictures(1, 20, 20))
    assert len(caption) == 1000 and "\n" not in caption


def test_a_budget_stops_before_the_call_and_what_is_answered_is_kept(server, make, pictures):
    images = pictures(4, 20, 20)
    with pytest.raises(BudgetReached, match="budget of 2 calls") as stop:
        make(budget={"calls": 2}).captions(images)
    assert len(server.requests) == 2 and [text is None for text in stop.value.done] == [False, False, True, True]
    assert make().captions(images)[:2] == stop.value.done[:2] and len(server.requests) == 4
    with pytest.raises(BudgetReached, match="tokens are spent"):  # the picture counts: 768 x 768 pixels
        make(budget={"tokens": 700}, prompt="Another?").captions(pictures(1, 768, 768))
    assert len(server.requests) == 4


def test_mistakes_are_the_captioners_own(server, make, pictures, monkeypatch):
    server.always = lambda request: (404, {"error": {"message": "no such model"}})
    with pytest.raises(UserError, match=r"^caption: .*doesn't know the model 'm'"):
        make().captions(pictures(1, 20, 20))
    with pytest.raises(UserError, match=r"^caption: .*OPENAI_API_KEY"):
        make(base_url="https://api.example.org/v1")
    with pytest.raises(UserError, match=r"^caption: budget.usd needs"):
        make(budget={"usd": 1.0})


def test_fingerprint_follows_everything_that_changes_answers(make):
    options = [
        {},
        {"model": "n"},
        {"prompt": "?"},
        {"longest_side": 99},
        {"temperature": None},
        {"base_url": "http://localhost/v1"},
    ]
    different = [make(**given).fingerprint for given in options]
    assert len(set(different)) == len(different) and make(retries=3, budget={"calls": 1}).fingerprint == different[0]
