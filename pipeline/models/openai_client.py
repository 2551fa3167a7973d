"""Questions to a model behind any OpenAI-compatible endpoint: cached by content, logged, within a budget."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from pipeline import secrets
from pipeline.errors import BudgetReached, UserError
from pipeline.models.ledger import Ledger
from pipeline.models.words import clean
from pipeline.places import Place
from pipeline.store import write_text

MOST_OUTPUT_TOKENS = 4096
IMAGE_TOKENS = 800
"""What one picture is taken to cost before the server says: about OpenAI's figure for 1024 x 1024 pixels."""
Messages = list[dict[str, Any]]
Read = Callable[[dict[str, Any]], Any]
"""From a choice of the reply to what was asked for, or None where it can't be read."""


class Budget(BaseModel):
    """What a run may spend at most; None is no limit. Cached answers cost nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    calls: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0)


class Price(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (self.input * prompt_tokens + self.output * completion_tokens) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What work will cost without any cached answer; `usd` is None where no price is known."""

    calls: int
    tokens: int
    usd: float | None


@dataclass(frozen=True)
class Question:
    """One call: `parameters` are those of a chat completion beside the model and the temperature.

    `subject` and `purpose` are for the log only: the class, and what is asked of it. `expected` is how many tokens
    the reply may take, for the budget.
    """

    parameters: dict[str, Any]
    read: Read
    subject: str
    purpose: str
    expected: int

    @property
    def prompt_tokens(self) -> int:
        """An estimate of what the messages take."""
        return sum(_content_tokens(message["content"]) for message in self.parameters["messages"])


@dataclass(frozen=True)
class Reply:
    """`data` is what `Question.read` made of the reply, or None; `outcome` is ok, refused, truncated, unusable or
    unsupported."""

    data: Any
    outcome: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    retries: int = 0


def estimate_tokens(text: str) -> int:
    """Four characters a token: the usual rule of thumb for English."""
    return math.ceil(len(text) / 4)


def _content_tokens(content: str | list[dict[str, Any]]) -> int:
    if isinstance(content, str):
        return estimate_tokens(content)
    return sum(estimate_tokens(part["text"]) if part["type"] == "text" else IMAGE_TOKENS for part in content)


def in_schema(
    messages: Messages, schema: type[BaseModel], subject: str, purpose: str, expected: int, structured: bool = True
) -> Question:
    """A question that is answered in JSON. `structured` has the server hold the reply to `schema`; otherwise the words
    must do it."""
    parameters: dict[str, Any] = {"messages": messages, "max_completion_tokens": MOST_OUTPUT_TOKENS}
    if structured:
        form = {"name": schema.__name__, "strict": True, "schema": schema.model_json_schema()}
        parameters["response_format"] = {"type": "json_schema", "json_schema": form}
    return Question(parameters, lambda choice: read_json(text_of(choice)), subject, purpose, expected)


def text_of(choice: dict[str, Any]) -> str:
    """The words of a reply."""
    return str(choice["message"].get("content") or "")


def is_loopback(url: str | None) -> bool:
    """Does a URL lead to this machine?"""
    host = urlsplit(url or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class ChatClient:
    """Asks one model; `calls`, `tokens`, `usd` and `retries` are what this client has spent, and may be used by
    several threads."""

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None,
        api_key_env: str,
        budget: Budget,
        price: Price | None,
        temperature: float | None,
        retries: int,
        timeout: float,
        cache: Place,
        ledger: Ledger | None = None,
        section: str = "propose",
    ) -> None:
        self.model, self.budget, self.price, self.temperature = model, budget, price, temperature
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self.most_retries, self.timeout, self.api_key_env, self.section = retries, timeout, api_key_env, section
        self.folder = cache / "llm"
        self.ledger = ledger or Ledger(cache / "llm.jsonl")
        self.calls, self.tokens, self.usd, self.retries = 0, 0, 0.0, 0
        self.unsupported: set[str] = set()
        self._promised = [0, 0, 0.0]  # calls, tokens and dollars of questions that are under way
        self._lock = threading.Lock()
        if budget.usd is not None and price is None:
            raise UserError(
                f"{section}: budget.usd needs 'price: {{input: ..., output: ...}}' (US dollars a million tokens)."
            )
        if not re.fullmatch(r"[A-Za-z_]\w*", api_key_env):  # perhaps the key itself: it isn't repeated
            raise UserError(
                f"{section}: 'api_key_env' must be the name of an environment variable that holds the key, never the "
                "key itself."
            )
        if reason := secrets.in_url(self.base_url or ""):  # it may come from OPENAI_BASE_URL too
            raise UserError(f"{section}: base_url: {reason}; it stands in logs. Give the key by {api_key_env}.")
        if not os.environ.get(api_key_env) and not is_loopback(self.base_url):
            raise UserError(
                f"{section}: no key for the language model '{model}': set the environment variable "
                f"{api_key_env}, or name a server on this machine in 'base_url'."
            )

    @functools.cached_property
    def api(self) -> Any:
        """The OpenAI client."""
        from openai import OpenAI

        key = os.environ.get(self.api_key_env) or "none"
        return OpenAI(api_key=key, base_url=self.base_url, max_retries=self.most_retries, timeout=self.timeout)

    def ask(self, question: Question) -> Reply:
        """The reply to one question, from the cache where it was asked before.

        Raises:
            BudgetReached: the call would exceed the budget; nothing was asked.
            UserError: the server can't be reached, or refuses the key, the model or the request.
        """
        kept = self.kept(question)
        if kept is not None:
            self.note(question, kept, 0.0)
            return kept
        self.promise(question)
        started = time.monotonic()
        try:
            reply = self._call(question)
        except UserError as error:
            self.note(question, Reply(None, "failed", retries=self._retried(error)), time.monotonic() - started)
            raise
        finally:
            self.promise(question, -1)
        self.settle(question, reply, time.monotonic() - started)
        return reply

    def promise(self, question: Question, sign: int = 1) -> None:
        """Set aside what a question may cost; with sign -1 no longer.

        Raises:
            BudgetReached: there isn't so much left.
        """
        prompt, expected = question.prompt_tokens, question.expected
        usd = self.price.usd(prompt, expected) if self.price else 0.0
        with self._lock:
            if sign > 0:
                self._check_budget(prompt + expected, usd)
            for at, amount in enumerate((1, prompt + expected, usd)):
                self._promised[at] += sign * amount

    def _check_budget(self, tokens: int, usd: float) -> None:
        budget, (calls_due, tokens_due, usd_due) = self.budget, self._promised
        if budget.calls is not None and self.calls + calls_due >= budget.calls:
            raise BudgetReached(f"the budget of {budget.calls} calls of the language model is spent")
        if budget.tokens is not None and self.tokens + tokens_due + tokens > budget.tokens:
            raise BudgetReached(
                f"{self.tokens} of the budget of {budget.tokens} tokens are spent; the next call needs more"
            )
        if budget.usd is not None and self.usd + usd_due + usd > budget.usd:
            raise BudgetReached(
                f"{self.usd:.4f} of the budget of {budget.usd} US dollars are spent; the next call needs more"
            )

    def settle(self, question: Question, reply: Reply, seconds: float) -> None:
        """Count, note and keep the reply to a question that was asked."""
        with self._lock:
            self.calls += 1
            self.tokens += reply.prompt_tokens + reply.completion_tokens
            self.usd += self._usd(reply) or 0.0
            self.retries += reply.retries
        self.note(question, reply, seconds)
        if reply.outcome == "ok":
            self._keep(question, reply)

    def body(self, question: Question) -> dict[str, Any]:
        """What is sent."""
        sent = {"model": self.model, **question.parameters}
        if self.temperature is not None:
            sent.setdefault("temperature", self.temperature)
        return sent

    def _call(self, question: Question) -> Reply:
        import openai

        try:
            # the raw body: a reply of another form than expected has been paid for too, and may be mended
            raw = self.api.chat.completions.with_raw_response.create(**self.body(question))
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            for option in ("response_format", "logprobs"):
                words = r"response_format|json_schema|schema|structured" if option == "response_format" else "logprob"
                if option in question.parameters and re.search(words, str(error)):
                    self.unsupported.add(option)
                    return Reply(None, "unsupported")
            raise self.user_error(error) from None
        except openai.OpenAIError as error:
            raise self.user_error(error) from error
        return self.read(question, raw.text, raw.retries_taken)

    def read(self, question: Question, body: str, retries: int = 0) -> Reply:
        """A reply from the JSON text of a chat completion, whatever it is."""
        key = os.environ.get(self.api_key_env)
        try:
            completion = json.loads(body.replace(key, "***") if key else body)
            choice = completion["choices"][0]
            content, reason, refusal = text_of(choice), choice.get("finish_reason"), choice["message"].get("refusal")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return Reply(None, "unusable", retries=retries)
        usage = completion.get("usage") if isinstance(completion.get("usage"), dict) else {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        n_prompt = counts[0] if isinstance(counts[0], int) else question.prompt_tokens
        n_completion = counts[1] if isinstance(counts[1], int) else estimate_tokens(content)
        data = None
        if refusal or reason == "content_filter":
            outcome = "refused"
        elif reason == "length" and question.expected > 1:  # of one token nothing can be cut off
            outcome = "truncated"
        else:
            data = question.read(choice)
            outcome = "ok" if data is not None else "unusable"
        return Reply(data, outcome, n_prompt, n_completion, retries=retries)

    def user_error(self, error: Exception) -> UserError:
        """An error of the OpenAI client in one plain line without the key."""
        import openai

        where = f"{self.section}: {self.base_url or 'the OpenAI API'}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return UserError(f"{where} refuses the key: check the environment variable {self.api_key_env}.")
        if isinstance(error, openai.APITimeoutError):
            return UserError(f"{where} gave no answer in {self.timeout:g} s: raise 'timeout', or try again later.")
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return UserError(
                f"{where} can't be reached ({clean(str(cause))}): is the server running, is 'base_url' right?"
            )
        if isinstance(error, openai.NotFoundError):
            return UserError(f"{where} doesn't know the model '{self.model}' (or 'base_url' lacks its '/v1').")
        if isinstance(error, openai.RateLimitError):
            return UserError(f"{where} allows no more calls now: wait, or check the account. What is answered is kept.")
        status = getattr(error, "status_code", None)
        said = "" if status is None else f" (status {status})"
        body = getattr(error, "body", None)
        detail = body.get("message") if isinstance(body, dict) else None
        detail = str(detail or "no reason given").replace(os.environ.get(self.api_key_env) or "\0", "***")
        return UserError(f"{where} failed{said}: {clean(detail)}. What is answered is kept: run it again later.")

    def _retried(self, error: UserError) -> int:
        """How often a failed call was made again: the OpenAI client tries what may pass as often as it may."""
        import openai

        cause = error.__cause__
        passing = isinstance(cause, openai.APIConnectionError | openai.RateLimitError | openai.InternalServerError)
        return self.most_retries if passing else 0

    def digest(self, question: Question) -> str:
        """What makes two questions the same."""
        identity = json.dumps([self.base_url, self.body(question)], sort_keys=True)
        return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()

    def kept(self, question: Question) -> Reply | None:
        """The reply of an earlier time."""
        try:
            file = self.folder / f"{self.digest(question)}.json"
            kept = json.loads(file.read_text(encoding="utf-8"))
            return Reply(kept["data"], "ok", kept["prompt_tokens"], kept["completion_tokens"], cached=True)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, question: Question, reply: Reply) -> None:
        counts = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        content = json.dumps({"data": reply.data, **counts}, ensure_ascii=False)
        write_text(self.folder / f"{self.digest(question)}.json", content)

    def _usd(self, reply: Reply) -> float | None:
        return self.price.usd(reply.prompt_tokens, reply.completion_tokens) if self.price else None

    def note(self, question: Question, reply: Reply, seconds: float) -> None:
        """Write a call to the log; never what was asked or answered, nor the key."""
        self.ledger.write(
            {
                "section": self.section,
                "model": self.model,
                "class": question.subject,
                "purpose": question.purpose,
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "usd": None if reply.cached else self._usd(reply),
                "cached": reply.cached,
                "outcome": reply.outcome,
                "retries": reply.retries,
                "seconds": round(seconds, 3),
            }
        )


def read_json(text: str) -> Any:
    """The JSON object or list in a reply, without code fences or words round it; None if there is none."""
    text = re.sub(r"^\s*```[a-zA-Z]*\s*|\s*```\s*$", "", text.strip())
    starts = sorted((text.find(a), b) for a, b in ("{}", "[]") if a in text)
    for span in [text, *(text[start : text.rfind(end) + 1] for start, end in starts)]:
        try:
            data = json.loads(span)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict | list):
            return data
    return None
