"""OpenAI's batch API: many questions in one file, answered within a day at a lower price.

What comes back is put where single answers are kept, so that whoever asks afterwards finds it there. A batch that was
submitted is remembered beside them: a later run collects it instead of asking again.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import BudgetReached, UserError
from pipeline.models.openai_client import ChatClient, Question, Reply
from pipeline.places import Place
from pipeline.store import write_text

ENDED = ("completed", "failed", "expired", "cancelled")


class Batch(BaseModel):
    """How long a run waits for a batch; a later one goes on waiting."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    wait: float = Field(default=90_000.0, ge=0, description="seconds; OpenAI answers within a day")
    poll: float = Field(default=60.0, gt=0, description="seconds between two looks")


def ask_ahead(client: ChatClient, questions: Sequence[Question], batch: Batch) -> None:
    """Have the answers to these questions in the client's cache, as far as the budget reaches.

    Questions that are under way in a batch of an earlier run are collected, the others submitted. What a batch left
    unanswered is left to single calls.

    Raises:
        UserError: the batch isn't done in time (it is collected by the next run), or the server refuses it.
    """
    by_digest = {client.digest(question): question for question in questions}
    deadline = time.monotonic() + batch.wait
    batches = client.folder / "batches"
    found: Iterator[Place] = batches.iterdir() if batches.is_dir() else iter(())
    for state in sorted(found, key=str):
        _collect(client, state, by_digest, batch, deadline)
    missing = {digest: question for digest, question in by_digest.items() if client.kept(question) is None}
    with_means = _within_budget(client, missing)
    try:
        if with_means:
            _collect(client, _submit(client, with_means), with_means, batch, deadline)
    finally:
        for question in with_means.values():
            client.promise(question, -1)


def _within_budget(client: ChatClient, questions: dict[str, Question]) -> dict[str, Question]:
    promised: dict[str, Question] = {}
    for digest, question in questions.items():
        try:
            client.promise(question)
        except BudgetReached:
            break
        promised[digest] = question
    return promised


def _submit(client: ChatClient, questions: dict[str, Question]) -> Place:
    lines = [
        {"custom_id": digest, "method": "POST", "url": "/v1/chat/completions", "body": client.body(question)}
        for digest, question in questions.items()
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with _plainly(client):
        file = client.api.files.create(file=("questions.jsonl", io.BytesIO(content)), purpose="batch")
        made = client.api.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    state = client.folder / "batches" / f"{made.id.replace('/', '_')}.json"
    write_text(state, json.dumps({"id": made.id, "base_url": client.base_url, "questions": list(questions)}))
    return state


def _collect(client: ChatClient, state: Place, by_digest: dict[str, Question], batch: Batch, deadline: float) -> None:
    """Wait for a batch, keep its answers and forget it; one without a question of ours is left alone."""
    known = json.loads(state.read_text(encoding="utf-8"))
    mine = [digest for digest in known["questions"] if digest in by_digest]
    if known["base_url"] != client.base_url or not mine:
        return
    started = time.monotonic()
    while True:
        with _plainly(client):
            found = client.api.batches.retrieve(known["id"])
        if found.status in ENDED:
            break
        if time.monotonic() >= deadline:
            raise UserError(
                f"{client.section}: the batch {found.id} of {len(mine)} questions is still {found.status}. "
                "Run the same command later: it collects the answers and asks nothing twice."
            )
        time.sleep(min(batch.poll, max(deadline - time.monotonic(), 0.0)))
    if found.status == "failed":
        state.unlink(missing_ok=True)
        errors = getattr(found.errors, "data", None) or []
        reason = "; ".join(str(error.message) for error in errors[:2]) or "no reason given"
        raise UserError(f"{client.section}: the batch {found.id} failed: {reason}. Without 'batch' single calls go on.")
    answered = set()
    for digest, body in _answers(client, found):
        if digest in mine and digest not in answered:
            answered.add(digest)
            reply = client.read(by_digest[digest], body) if body else Reply(None, "failed")
            client.settle(by_digest[digest], reply, time.monotonic() - started)
    for digest in mine:
        if digest not in answered:
            client.note(by_digest[digest], Reply(None, "failed"), time.monotonic() - started)
    state.unlink(missing_ok=True)


def _answers(client: ChatClient, found: Any) -> Iterator[tuple[str, str]]:
    """(custom_id, JSON text of the chat completion, empty where the call failed), in any order."""
    for file_id in (found.output_file_id, found.error_file_id):
        if not file_id:
            continue
        with _plainly(client):
            text = client.api.files.content(file_id).text
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                response = entry.get("response") or {}
                ok = response.get("status_code") == 200
                yield str(entry["custom_id"]), json.dumps(response["body"]) if ok else ""
            except (ValueError, KeyError, AttributeError, TypeError):
                continue  # its question stays unanswered, and is noted as failed


@contextlib.contextmanager
def _plainly(client: ChatClient) -> Iterator[None]:
    """Errors of the OpenAI client become plain lines."""
    import openai

    try:
        yield
    except openai.NotFoundError:
        where = client.base_url or "the OpenAI API"
        raise UserError(f"{client.section}: {where} has no batch API, or lost the batch: leave 'batch' out.") from None
    except openai.OpenAIError as error:
        raise client.user_error(error) from None
