"""Structured questions to a language model behind any OpenAI-compatible endpoint: cached, logged, within a
budget."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
import math
import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import BudgetReached, UserError
from pipeline.models.words import clean

MOST_OUTPUT_TOKENS = 4096
Messages = list[dict[str, str]]


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
class Reply:
    """`data` is the JSON of the reply, or None; `outcome` is ok, refused, truncated, unusable or
    unsupported."""

    data: Any
    outcome: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


def estimate_tokens(text: str) -> int:
    """Four characters a token: the usual rule of thumb for English."""
    return math.ceil(len(text) / 4)


def is_loopback(url: str | None) -> bool:
    """Does a URL lead to this machine?"""
    host = urlsplit(url or "").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ChatClient:
    """Asks one model; `calls`, `tokens` and `usd` are what this client has spent."""

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
        cache: Path,
    ) -> None:
        self.model, self.budget, self.price, self.temperature = model, budget, price, temperature
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self.retries, self.timeout, self.api_key_env = retries, timeout, api_key_env
        self.folder, self.log = Path(cache) / "llm", Path(cache) / "llm.jsonl"
        self.calls, self.tokens, self.usd = 0, 0, 0.0
        if budget.usd is not None and price is None:
            raise UserError(
                "propose: budget.usd needs 'price: {input: ..., output: ...}' (US dollars a million tokens)."
            )
        if not os.environ.get(api_key_env) and not is_loopback(self.base_url):
            raise UserError(
                f"propose: no key for the language model '{model}': set the environment variable "
                f"{api_key_env}, or name a server on this machine in 'base_url'."
            )

    @functools.cached_property
    def _client(self) -> Any:
        from openai import OpenAI

        key = os.environ.get(self.api_key_env) or "none"
        return OpenAI(api_key=key, base_url=self.base_url, max_retries=self.retries, timeout=self.timeout)

    def ask(
        self,
        messages: Messages,
        schema: type[BaseModel],
        *,
        subject: str,
        purpose: str,
        expected: int,
        structured: bool = True,
    ) -> Reply:
        """One question. `structured` has the server hold the reply to `schema`; otherwise the words must do
        it.

        Args:
            subject, purpose: for the log only: the class, and what is asked of it.
            expected: tokens that the reply may take, for the budget.

        Raises:
            BudgetReached: the call would exceed the budget; nothing was asked.
            UserError: the server can't be reached, or refuses the key, the model or the request.
        """
        parameters: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_completion_tokens": MOST_OUTPUT_TOKENS,
        }
        if self.temperature is not None:
            parameters["temperature"] = self.temperature
        identity = [parameters, self.base_url, schema.model_json_schema() if structured else None]
        digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
        kept = self._kept(digest)
        if kept is not None:
            self._write_log(subject, purpose, kept, 0.0)
            return kept
        prompt = sum(estimate_tokens(message["content"]) for message in messages)
        self._check_budget(prompt, expected)
        started = time.monotonic()
        reply = self._call(parameters, schema if structured else None, prompt)
        self._write_log(subject, purpose, reply, time.monotonic() - started)
        if reply.outcome == "ok":
            self._keep(digest, reply)
        return reply

    def _check_budget(self, prompt: int, expected: int) -> None:
        budget = self.budget
        if budget.calls is not None and self.calls >= budget.calls:
            raise BudgetReached(f"the budget of {budget.calls} calls of the language model is spent")
        if budget.tokens is not None and self.tokens + prompt + expected > budget.tokens:
            raise BudgetReached(
                f"{self.tokens} of the budget of {budget.tokens} tokens are spent; the next call needs more"
            )
        if budget.usd is not None and self.price and self.usd + self.price.usd(prompt, expected) > budget.usd:
            raise BudgetReached(
                f"{self.usd:.4f} of the budget of {budget.usd} US dollars are spent; the next call needs more"
            )

    def _call(self, parameters: dict[str, Any], schema: type[BaseModel] | None, prompt: int) -> Reply:
        import openai

        completions = self._client.chat.completions.with_raw_response
        try:
            # the raw body, for a reply that doesn't fit the schema has been paid for too, and may be mended
            raw = (
                completions.create(**parameters)
                if schema is None
                else completions.parse(**parameters, response_format=schema)
            )
            body = json.loads(raw.text)
            choice = body["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            content = message.get("content") or ""
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if schema is not None and re.search(r"response_format|json_schema|schema|structured", str(error)):
                self.calls += 1
                return Reply(None, "unsupported")
            raise self._user_error(error) from None
        except openai.OpenAIError as error:
            raise self._user_error(error) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            self.calls += 1
            return Reply(None, "unusable")
        usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        n_prompt = counts[0] if isinstance(counts[0], int) else prompt
        n_completion = counts[1] if isinstance(counts[1], int) else estimate_tokens(str(content))
        self.calls += 1
        self.tokens += n_prompt + n_completion
        self.usd += self.price.usd(n_prompt, n_completion) if self.price else 0.0
        data, outcome = None, "truncated" if reason == "length" else "unusable"
        if message.get("refusal") or reason == "content_filter":
            outcome = "refused"
        elif outcome == "unusable":
            data = read_json(str(content))
            outcome = "ok" if data is not None else "unusable"
        return Reply(data, outcome, n_prompt, n_completion)

    def _user_error(self, error: Exception) -> UserError:
        import openai

        where = self.base_url or "the OpenAI API"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return UserError(f"propose: {where} refuses the key: check the environment variable {self.api_key_env}.")
        if isinstance(error, openai.APITimeoutError):
            return UserError(
                f"propose: {where} gave no answer in {self.timeout:g} s: raise 'timeout', or try again later."
            )
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return UserError(
                f"propose: {where} can't be reached ({clean(str(cause))}): is the server running, is 'base_url' right?"
            )
        if isinstance(error, openai.NotFoundError):
            return UserError(f"propose: {where} doesn't know the model '{self.model}' (or 'base_url' lacks its '/v1').")
        if isinstance(error, openai.RateLimitError):
            return UserError(
                f"propose: {where} allows no more calls now: wait, or check the account. What is answered is kept."
            )
        status = getattr(error, "status_code", None)
        said = "" if status is None else f" (status {status})"
        body = getattr(error, "body", None)
        detail = body.get("message") if isinstance(body, dict) else None
        detail = str(detail or "no reason given").replace(os.environ.get(self.api_key_env) or "\0", "***")
        return UserError(
            f"propose: {where} failed{said}: {clean(detail)}. What is answered is kept: run it again later."
        )

    def _kept(self, digest: str) -> Reply | None:
        try:
            kept = json.loads((self.folder / f"{digest}.json").read_text(encoding="utf-8"))
            return Reply(kept["data"], "ok", kept["prompt_tokens"], kept["completion_tokens"], cached=True)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, digest: str, reply: Reply) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{digest}.json"
        content = {
            "data": reply.data,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        part.replace(file)

    def _write_log(self, subject: str, purpose: str, reply: Reply, seconds: float) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self.model,
            "class": subject,
            "purpose": purpose,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "cached": reply.cached,
            "outcome": reply.outcome,
            "seconds": round(seconds, 3),
        }
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


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
