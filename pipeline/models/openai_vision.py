"""A multimodal LLM under test behind any OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, llama-server)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline.images import RGB
from pipeline.metrics.spurlens import parse_answer
from pipeline.models.fingerprints import of_options
from pipeline.models.ledger import Ledger
from pipeline.models.openai_client import Budget, ChatClient, Estimate, Price, Question, text_of
from pipeline.models.questions import SPURLENS, Answer, Asked, Prompts, YesNoClassifier, check_prompts
from pipeline.places import Place

VERSION = 1
REASONING_TOKENS = 1024
ANSWER_TOKENS = 16
TOP = 5
Format = Literal["jpeg", "png"]


def openai_vision(
    classes: tuple[str, ...],
    device: str,
    cache: Place,
    ledger: Ledger | None = None,
    *,
    model: str,
    base_url: str | None = None,
    api_key_env: str = "OPENAI_API_KEY",
    prompts: Prompts = SPURLENS,  # type: ignore[assignment]
    samples: Annotated[int, Field(ge=1)] = 5,
    side: Annotated[int, Field(ge=16)] = 768,
    picture: Format = "jpeg",
    workers: Annotated[int, Field(ge=1)] = 8,
    budget: Budget = Budget(),
    price: Price | None = None,
    temperature: float | None = 0.0,
    retries: int = 5,
    timeout: float = 60.0,
) -> YesNoClassifier:
    """A multimodal LLM behind an endpoint: yes-probabilities from token log-probabilities, else from sampled answers.

    Args:
        classes: the words of each class.
        device: unused.
        cache: answers are kept in its folder `llm`.
        ledger: where every call is noted.
        model, base_url, api_key_env, budget, price, retries, timeout: as of the proposer `openai`.
        prompts: name to question with `{}` for the class, or `{ask: ..., reasoning: true, counts: false}`.
        samples: answers to each question where there are no log-probabilities.
        side: most pixels of the longer side of a picture as it is sent.
        picture: jpeg (quality 95), or png, which changes no pixel and takes several times as many bytes.
        workers: calls at once.
        temperature: null for models that refuse one.

    Raises:
        UserError: no key, or a prompt without a place for the class.
    """
    client = ChatClient(
        model=model,
        base_url=base_url,
        api_key_env=api_key_env,
        budget=Budget.model_validate(budget),
        price=None if price is None else Price.model_validate(price),
        temperature=temperature,
        retries=retries,
        timeout=timeout,
        cache=cache,
        ledger=ledger,
        section="model",
    )
    asker = Endpoint(client, samples, side, workers, picture)
    return YesNoClassifier(classes, check_prompts(prompts), asker.ask, lambda: asker.fingerprint, asker.cost)


class Endpoint:
    """Asks through a client; see `openai_vision`."""

    def __init__(self, client: ChatClient, samples: int, side: int, workers: int, picture: Format = "jpeg") -> None:
        self.client, self.samples, self.side, self.workers, self.picture = client, samples, side, workers, picture
        options = {"model": client.model, "base_url": client.base_url, "temperature": client.temperature}
        sent = {"side": side, **({} if picture == "jpeg" else {"picture": picture})}
        self.fingerprint = of_options("openai_vision", {**options, "v": VERSION, "samples": samples, **sent})

    def ask(self, asked: Sequence[Asked]) -> list[Answer]:
        """An answer each, in order.

        Raises:
            BudgetReached: some could not be asked; the others' answers are kept.
        """
        pictures: dict[int, str] = {}
        for one in asked:
            if one.image is not None and id(one.image) not in pictures:
                pictures[id(one.image)] = data_uri(one.image, self.side, self.picture)
        if not asked:
            return []
        first = self._answer(asked[0], pictures)  # alone: it may find out what the server doesn't know
        pool = ThreadPoolExecutor(self.workers)
        try:
            return [first, *pool.map(lambda one: self._answer(one, pictures), asked[1:])]
        finally:
            pool.shutdown(cancel_futures=True)  # after one failure the others aren't tried

    def _answer(self, asked: Asked, pictures: dict[int, str]) -> Answer:
        if asked.prompt.reasoning:
            said = self.client.ask(self._question(asked, pictures, REASONING_TOKENS)).data
            return _of_words([said] if said else [])
        if "logprobs" not in self.client.unsupported:
            said = self.client.ask(self._question(asked, pictures, 1)).data
            if said and said["yes"] is not None:
                return Answer(float(said["yes"]), said["text"])
            if said is not None and said["listed"]:  # log-probabilities, but of other words
                return _of_words([said])
        many = [self.client.ask(self._question(asked, pictures, ANSWER_TOKENS, k)).data for k in range(self.samples)]
        return _of_words([said for said in many if said])

    def _question(self, asked: Asked, pictures: dict[int, str], tokens: int, sample: int | None = None) -> Question:
        text = {"type": "text", "text": asked.text}
        image = [] if asked.image is None else [picture_part(pictures[id(asked.image)])]
        parameters: dict[str, Any] = {
            "messages": [{"role": "user", "content": [*image, text]}],
            "max_completion_tokens": tokens,
        }
        if tokens == 1:
            parameters |= {"logprobs": True, "top_logprobs": TOP}
        elif sample is not None and self.client.temperature is not None:
            parameters |= {"temperature": 1.0, "seed": sample}
        elif sample is not None:
            parameters |= {"seed": sample}
        purpose = asked.name + (f", sample {sample + 1}" if sample is not None else "")
        return Question(parameters, _read, asked.class_name, purpose, tokens)

    def cost(self, asked: Sequence[Asked]) -> Estimate:
        """With log-probabilities; without them, `samples` times as much."""
        pictures = {id(one.image): "" for one in asked if one.image is not None}
        questions = [self._question(one, pictures, REASONING_TOKENS if one.prompt.reasoning else 1) for one in asked]
        prompt, reply = (sum(getattr(q, name) for q in questions) for name in ("prompt_tokens", "expected"))
        return Estimate(len(asked), prompt + reply, self.client.price.usd(prompt, reply) if self.client.price else None)


def _read(choice: dict[str, Any]) -> dict[str, Any]:
    """The words, and the probability of Yes where the first token's are listed (None: neither Yes nor No is)."""
    text = text_of(choice)
    try:
        listed = {str(t["token"]): float(t["logprob"]) for t in choice["logprobs"]["content"][0]["top_logprobs"]}
    except (KeyError, IndexError, TypeError, ValueError):
        listed = {}
    return {"text": text[:4000], "yes": yes_of_tokens(listed), "listed": bool(listed)}


def yes_of_tokens(listed: dict[str, float]) -> float | None:
    """Probability of Yes against No from log-probabilities of the first token; None where neither is listed.

    Spellings are summed. Where only one of the two is listed, the other gets the least of the listed: it has no more.
    """
    sums = {"yes": 0.0, "no": 0.0}
    for token, logprob in listed.items():
        word = token.strip(" ▁Ġ\n\"'*.").lower()
        if word in sums and not math.isnan(logprob):
            sums[word] += math.exp(min(logprob, 0.0))
    if not any(sums.values()):
        return None
    least = math.exp(min(min(listed.values()), 0.0))
    yes, no = (value or least for value in (sums["yes"], sums["no"]))
    return yes / (yes + no)


def _of_words(said: Sequence[dict[str, Any]]) -> Answer:
    """The share of Yes among sampled answers, drawn to a half by half an answer of each, but for a single one."""
    found = [parse_answer(one["text"]) for one in said]
    yes, no = found.count("yes"), found.count("no")
    text = said[0]["text"] if said else ""
    if not yes + no:
        return Answer(float("nan"), text)
    return Answer(yes / (yes + no) if yes + no == 1 else (yes + 0.5) / (yes + no + 1), text)


def picture_part(uri: str) -> dict[str, Any]:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": uri}}


def data_uri(image: RGB, side: int, kind: Format = "jpeg") -> str:
    """A picture, reduced to at most `side` pixels, as a data URI."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    how: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "jpeg" else {"compress_level": 1}
    picture.save(buffer, kind.upper(), **how)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
