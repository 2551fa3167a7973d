"""A language model's server on this machine, over real sockets, that answers well, badly, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG, CUT = ("hang", None), ("cut the line", None)
"""Faults: no answer at all; a part of one, after which the line is cut."""


def completion(content: str | None, finish: str = "stop", refusal: str | None = None, **choice: Any) -> dict:
    """A chat completion as OpenAI writes it."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": message, **choice}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


class Server:
    """Answers each call with the next of `replies` (or with `always`): a text, a (status, body), a fault, or a
    function of the request that gives one of them. `in_batches` answers the questions of a batch, which is done after
    `polls` looks; without it there is no batch API."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.always: Callable[[dict], Any] | None = None
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.in_batches: Callable[[dict], Any] | None = None
        self.polls = 0
        self.batches: dict[str, list[dict]] = {}
        self.files: dict[str, str] = {}
        self.looks: dict[str, int] = {}
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.endswith("/files"):
                    return self.send(*outer.upload(self.headers["Content-Type"], body))
                request = json.loads(body)
                if self.path.endswith("/batches"):
                    return self.send(*outer.submit(request))
                outer.requests.append(request)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send(*outer.answer(request))

            def do_GET(self) -> None:
                *_, kind, name = self.path.removesuffix("/content").split("/")
                self.send(*(outer.look(name) if kind == "batches" else (200, outer.files[name])))

            def send(self, status: Any, body: Any) -> None:
                if (status, body) == HANG:
                    outer.closing.wait(20)
                    return
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                cut = (status, body) == CUT
                self.send_response(200 if cut else status)
                self.send_header("Content-Type", "application/json")
                self.send_header("retry-after-ms", "5")
                self.send_header("Content-Length", str(len(data) + 100 * cut))
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = cut

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> Server:
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request: dict) -> tuple[Any, Any]:
        reply = self.replies.pop(0) if self.replies or self.always is None else self.always
        return _complete(reply, request)

    def upload(self, content_type: str, body: bytes) -> tuple[int, Any]:
        if self.in_batches is None:
            return 404, {"error": {"message": "no such route"}}
        parts = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body).get_payload()
        name = f"file-{len(self.files)}"
        self.files[name] = next(
            part.get_payload(decode=True).decode()  # type: ignore[union-attr]
            for part in parts
            if part.get_filename()  # type: ignore[union-attr]
        )
        return 200, {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "q", "purpose": "batch"}

    def submit(self, request: dict) -> tuple[int, Any]:
        name = f"batch-{len(self.batches)}"
        self.batches[name] = [json.loads(line) for line in self.files[request["input_file_id"]].splitlines()]
        return 200, self._batch(name, "validating")

    def look(self, name: str) -> tuple[int, Any]:
        self.looks[name] = self.looks.get(name, 0) + 1
        if self.looks[name] <= self.polls:
            return 200, self._batch(name, "in_progress")
        assert self.in_batches is not None
        lines = []
        for line in reversed(self.batches[name]):  # in no order that could be counted on
            status, body = _complete(self.in_batches, line["body"])
            lines.append({"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}})
        self.files[f"out-{name}"] = "\n".join(json.dumps(line) for line in lines)
        return 200, {**self._batch(name, "completed"), "output_file_id": f"out-{name}"}

    def _batch(self, name: str, status: str) -> dict:
        return {"id": name, "object": "batch", "completion_window": "24h", "created_at": 0, "status": status,
                "endpoint": "/v1/chat/completions", "input_file_id": "f"}  # fmt: skip


def _complete(reply: Any, request: dict) -> tuple[Any, Any]:
    if callable(reply):
        reply = reply(request)
    return reply if isinstance(reply, tuple) else (200, completion(reply))
