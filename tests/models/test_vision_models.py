"""Multimodal LLMs under test: behind an endpoint that gives log-probabilities or doesn't, on this machine, and as a
file of answers."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BudgetReached, UserError
from pipeline.models import registry
from pipeline.models.answers_file import AnswersFile, answers_file
from pipeline.models.ledger import Ledger
from pipeline.models.openai_client import Budget
from pipeline.models.openai_vision import openai_vision, yes_of_tokens
from pipeline.models.protocols import Answers, RecordedAnswers, YesNoModel
from pipeline.models.questions import SPURLENS, Prompt, YesNoClassifier, log_odds
from pipeline.models.transformers_vision import transformers_vision
from tests.conftest import ROOT
from tests.llm_server import HANG, Server, completion

CLASSES = ("dog", "umbrella")


def picture(level: int) -> np.ndarray:
    return np.full((20, 30, 3), level, np.uint8)


def shown(request: dict) -> np.ndarray | None:
    """The picture of a request."""
    for part in request["messages"][0]["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            return np.asarray(Image.open(io.BytesIO(data)))
    return None


def question(request: dict) -> str:
    return next(part["text"] for part in request["messages"][0]["content"] if part["type"] == "text")


def tokens(**chances: float) -> dict:
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in chances.items()]
    return {"logprobs": {"content": [{**top[0], "top_logprobs": top}]}}


def bright_dogs(request: dict) -> Any:
    """The brighter a picture the surer a dog; never an umbrella; without a picture 30 %."""
    image = shown(request)
    yes = 0.3 if image is None else float(image.mean()) / 255
    yes = float(np.clip(yes if "a dog" in question(request) else 0.02, 0.01, 0.99))
    return 200, completion("Yes" if yes > 0.5 else "No", **tokens(Yes=yes * 0.9, No=(1 - yes) * 0.9, The=0.1))


def words_only(request: dict) -> Any:
    if "logprobs" in request:
        return 400, {"error": {"message": "logprobs are not supported with reasoning models"}}
    image = shown(request)
    return "Yes." if image is not None and image.mean() / 255 > request["seed"] / 5 else "No, I don't."


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Callable[..., YesNoClassifier]:
    def make(classes: tuple[str, ...] = CLASSES, **options: Any) -> YesNoClassifier:
        checked = registry.check_options("model", "openai_vision", {"model": "m", "base_url": server.url, **options})
        return openai_vision(classes, "cpu", tmp_path, Ledger(tmp_path / "llm.jsonl"), **checked)

    return make


def test_log_odds_of_yes_from_the_first_tokens_probabilities(server: Server, make: Callable) -> None:
    server.always = bright_dogs
    model = make()
    assert isinstance(model, YesNoModel) and not isinstance(model, RecordedAnswers)
    logits = model.logits([picture(51), picture(204)])
    assert logits == pytest.approx(np.array([[-1.386, -3.892], [1.386, -3.892]]), abs=0.05)
    assert len(server.requests) == 2 * 2 * 3 and {question(r) for r in server.requests} == {
        prompt.replace("{}", name) for prompt in SPURLENS.values() for name in ("a dog", "an umbrella")
    }
    assert all(r["max_completion_tokens"] == 1 and r["temperature"] == 0 for r in server.requests)
    assert model.logits([picture(204)])[0] == pytest.approx(logits[1]) and len(server.requests) == 12, "cached"


def test_a_server_without_log_probabilities_is_sampled(server: Server, make: Callable, tmp_path: Path) -> None:
    server.always = words_only
    model = make(("dog",), prompts={"is there": SPURLENS["is there"]})
    dark, middle, bright = model.answers([picture(0), picture(128), picture(255)]).yes[:, 0, 0]
    assert (dark, middle, bright) == pytest.approx((0.5 / 6, 3.5 / 6, 5.5 / 6))
    assert len(server.requests) == 1 + 3 * 5, "it is found out once"
    assert {r["temperature"] for r in server.requests[1:]} == {1.0}
    assert Ledger(tmp_path / "llm.jsonl").spent().calls == 16


def test_a_prompt_with_reasoning_is_read_from_its_words(server: Server, make: Callable) -> None:
    replies = ["I see fur and a leash. Answer: Yes", "Nothing. The answer is no.", "I can't tell from this."]
    server.replies = list(replies)
    model = make(("dog",), workers=1, prompts={"think": {"ask": "Is there {}? Think first.", "reasoning": True}})
    found = model.answers([picture(1), picture(2), picture(3)])
    assert found.yes[:2, 0, 0].tolist() == [1.0, 0.0] and np.isnan(found.yes[2, 0, 0])
    assert found.texts[:, 0, 0].tolist() == replies
    assert "logprobs" not in server.requests[0] and server.requests[0]["max_completion_tokens"] > 100
    logits = log_odds(found, model.counts)
    assert logits[2, 0] == logits[1, 0] < 0, "who says neither doesn't say Yes"


def test_a_prompt_that_does_not_count_is_asked_for_the_table_alone(server: Server, make: Callable) -> None:
    server.always = bright_dogs
    prompts = {"plain": "Is there {}?", "leading": {"ask": "Surely there is {}?", "counts": False}}
    model = make(prompts=prompts)
    assert model.answers([picture(10)]).prompts == ("plain", "leading") and model.counts == (True, False)
    before = len(server.requests)
    model.logits([picture(200)])
    assert len(server.requests) - before == 2


def test_a_question_without_a_picture(server: Server, make: Callable) -> None:
    server.always = bright_dogs
    assert make().answers([None]).yes[0, 0] == pytest.approx([0.3] * 3, abs=1e-3)


def test_a_picture_as_png_loses_nothing(server: Server, make: Callable) -> None:
    server.always = bright_dogs
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for options, same in (({"picture": "png"}, True), ({}, False)):
        make(("dog",), **options).logits([noise])
        assert np.array_equal(shown(server.requests[-1]), noise) == same
    make(("dog",), picture="png", side=16).logits([noise])
    assert shown(server.requests[-1]).shape == (11, 16, 3)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="picture"):
        make(picture="gif")


def test_a_budget_stops_and_what_was_answered_is_kept(server: Server, make: Callable) -> None:
    server.always = bright_dogs
    pictures = [picture(level) for level in range(0, 250, 10)]
    with pytest.raises(BudgetReached, match="20 calls"):
        make(budget={"calls": 20}).logits(pictures)
    assert len(server.requests) == 20
    make(budget={"calls": 200}).logits(pictures)
    assert len(server.requests) == 25 * 6, "no question is asked twice"


@pytest.mark.parametrize(
    "reply", [(200, "<html>"), (200, {"choices": []}), (200, completion(None, refusal="no")), "It depends."]
)
def test_a_reply_that_says_nothing_is_no_yes(server: Server, make: Callable, reply: Any) -> None:
    server.always = lambda request: reply
    model = make(("dog",), samples=2)
    assert np.isnan(model.answers([picture(3)]).yes).all() and model.logits([picture(3)])[0, 0] < 0


def test_a_server_that_hangs_or_refuses_gives_one_plain_line(server: Server, make: Callable) -> None:
    server.always = lambda request: HANG
    with pytest.raises(UserError, match=r"^model: .*gave no answer in 0.2 s"):
        make(timeout=0.2, retries=0, workers=1).logits([picture(3)])
    server.always = lambda request: (404, {})
    with pytest.raises(UserError, match=r"^model: .*doesn't know the model"):
        make().logits([picture(4)])


def test_after_one_failure_the_rest_is_not_tried(server: Server, make: Callable) -> None:
    server.always = lambda request: bright_dogs(request) if len(server.requests) < 4 else (500, "broken")
    with pytest.raises(UserError, match="status 500"):
        make(workers=2, retries=0).logits([picture(level) for level in range(0, 200, 5)])
    assert len(server.requests) < 12


def test_yes_and_no_by_spelling_never_by_substring() -> None:
    assert yes_of_tokens({"Yes": math.log(0.3), " yes": math.log(0.3), "NO": math.log(0.2)}) == pytest.approx(0.75)
    assert yes_of_tokens({"None": -0.1, "Not": -3.0, "Yesterday": -4.0}) is None
    assert yes_of_tokens({"Yes": math.log(0.9), "I": math.log(0.1)}) == pytest.approx(0.9), "No has no more than 'I'"
    assert yes_of_tokens({}) is None


def test_mistakes_and_fingerprints(make: Callable) -> None:
    with pytest.raises(UserError, match=r"needs one \{\}"):
        make(prompts={"bad": "Is there a dog?"})
    with pytest.raises(UserError, match="must count"):
        make(prompts={"a": {"ask": "{}?", "counts": False}})
    prints = [
        make().fingerprint,
        make(side=64).fingerprint,
        make(picture="png").fingerprint,
        make(prompts={"a": "{}?"}).fingerprint,
    ]
    prints.append(make(("dog",)).fingerprint)
    assert len(set(prints)) == 5
    assert make(timeout=3.0, workers=2, budget=Budget(calls=1).model_dump()).fingerprint == prints[0]


def test_the_estimate_counts_images_classes_and_prompts(server: Server, make: Callable) -> None:
    costly = make(price={"input": 1, "output": 1}).estimate(100)
    assert costly.calls == 600 and costly.usd == pytest.approx(costly.tokens / 1e6) and costly.tokens > 600 * 800
    assert server.requests == []


MLLM = ROOT / "data" / "models" / "mllm"


@pytest.fixture(scope="module")
def local() -> YesNoClassifier:
    prompts: dict[str, Any] = {"is there": SPURLENS["is there"], "determine": SPURLENS["determine"]}
    prompts["words"] = Prompt(ask="Is there {} in the image?", reasoning=True, counts=False)
    return transformers_vision(("bird", "clock"), "cpu", name=str(MLLM), prompts=prompts, max_new_tokens=4)


def test_a_local_model_tells_the_demos_objects(local: YesNoClassifier) -> None:
    from pipeline.images import load

    images = [load(ROOT / "data/demo/images" / c / f"{c}-00{n}.jpg") for c in ("bird", "clock") for n in range(3)]
    found = local.answers(images)
    said = found.yes.mean(axis=2) > 0.5
    assert (said[:3, 0].sum() + said[3:, 1].sum()) >= 5 and (said[:3, 1].sum() + said[3:, 0].sum()) <= 1
    assert (found.yes[..., 2] == (found.yes[..., 0] > 0.5)).mean() >= 0.8, "words agree with probabilities"
    assert {text.lower() for text in found.texts[..., 2].flat} <= {"yes", "no"}
    assert local.logits(images) == pytest.approx(log_odds(found, local.counts), abs=1e-3)


def test_a_local_model_answers_without_a_picture(local: YesNoClassifier) -> None:
    blind = local.answers([None])
    assert blind.yes.shape == (1, 2, 3) and ((blind.yes[..., :2] > 0) & (blind.yes[..., :2] < 1)).all()


def test_a_local_models_mistakes_are_the_sections(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model: "):
        transformers_vision(CLASSES, "cpu", name=str(tmp_path))


ROWS = [
    {"image": "a/1.jpg", "class": "dog", "prompt": "p", "answer": "Yes, a dog."},
    {"image": "a/1.jpg", "class": "dog", "prompt": "q", "answer": "No"},
    {"image": "2.jpg", "class": "fire_truck", "prompt": "p", "answer": "0.25"},
    {"image": "2.jpg", "class": "dog", "prompt": "p", "answer": "cannot say"},
]


def write(folder: Path, rows: list[dict], suffix: str) -> Path:
    import pyarrow as pa
    from pyarrow import csv, parquet

    file = folder / f"answers{suffix}"
    if suffix == ".csv":
        csv.write_csv(pa.Table.from_pylist(rows), file)
    elif suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def recorded(model: AnswersFile, paths: list[str]) -> Answers:
    return model.recorded([f"id of {path}" for path in paths], paths, CLASSES)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_answers_is_read_by_path_or_name(tmp_path: Path, suffix: str) -> None:
    model = answers_file(("dog", "fire truck"), "cpu", path=str(write(tmp_path, ROWS, suffix)))
    assert isinstance(model, RecordedAnswers) and isinstance(model, YesNoModel) and model.prompts == ("p", "q")
    found = recorded(model, ["a/1.jpg", "b/2.jpg"])
    assert found.asked.sum() == 4 and found.yes[0, 0].tolist() == [1.0, 0.0]
    assert found.yes[1, 1, 0] == 0.25 and np.isnan(found.yes[1, 0, 0])
    logits = log_odds(found, model.counts)
    assert logits[0, 0] == pytest.approx(0) and logits[1, 1] < 0 and logits[1, 0] < 0
    assert np.isnan(logits[0, 1]), "what wasn't asked is unknown"
    with pytest.raises(UserError, match=r"no answer about c/3\.jpg"):
        recorded(model, ["a/1.jpg", "c/3.jpg"])


@pytest.mark.parametrize(
    "rows, said",
    [
        ([{**ROWS[0], "class": "dgo"}], "row 1: .*Did you mean 'dog'"),
        ([{"image": "a", "class": "dog"}], "row 1 lacks 'answer'"),
        ([{**ROWS[0], "answer": "7"}], "no probability"),
        ([ROWS[0], ROWS[0]], "row 2: a second answer"),
        ([{**ROWS[0], "image": "x.jpg"}], "names none of these images: a/1.jpg"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, rows: list[dict], said: str) -> None:
    with pytest.raises(UserError, match=said):
        recorded(answers_file(CLASSES, "cpu", path=str(write(tmp_path, rows, ".jsonl"))), ["a/1.jpg"])


def test_no_file_and_no_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file of answers"):
        answers_file(CLASSES, "cpu", path=str(tmp_path / "none.csv"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no kind of file that is known"):
        answers_file(CLASSES, "cpu", path=str(tmp_path / "a.txt"))
