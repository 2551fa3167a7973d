"""A real multimodal LLM behind OpenAI's chat completions on this machine: transformers' own classes and sockets.

None of the product's code is in it, so that what it answers is another's word on the same model.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

NAME = "tiny"


class MllmServer:
    """Serves the model of a folder under the name "tiny"; `pictures` holds the media types of what it was sent."""

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.one_at_a_time = threading.Lock()
        self.calls = 0
        self.pictures: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # the connection stays open
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path != "/v1/chat/completions":
                    return self.send(404, failure(f"there is no {self.path}"))
                try:
                    request = json.loads(body)
                    if request["model"] != NAME:
                        return self.send(404, failure(f"the model '{request['model']}' does not exist"))
                    self.send(200, outer.complete(request))
                except (KeyError, TypeError, ValueError, OSError) as error:
                    self.send(400, failure(f"the request can't be read: {error!r}"))

            def do_GET(self) -> None:
                models = {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "tests"}]}
                self.send(*((200, models) if self.path == "/v1/models" else (404, failure(f"there is no {self.path}"))))

            def send(self, status: int, body: dict) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> MllmServer:
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """A chat completion. Greedy at temperature 0, and log-probabilities of the raw logits, as vLLM gives them.

        Raises:
            KeyError, TypeError, ValueError, OSError: it is no such request, or a picture is none.
        """
        import torch

        talk = [self.message(message) for message in request["messages"]]
        longest = int(request.get("max_completion_tokens") or request.get("max_tokens") or 64)
        warmth = float(request.get("temperature") or 0)
        how = {"do_sample": True, "temperature": warmth} if warmth else {"do_sample": False}
        inputs = self.processor.apply_chat_template(
            [talk], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        with self.one_at_a_time, torch.inference_mode():
            self.calls += 1
            if "seed" in request:
                torch.manual_seed(request["seed"])
            made = self.model.generate(
                **inputs, **how, max_new_tokens=longest, output_logits=True, return_dict_in_generate=True
            )
        said = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        ended = said[-1] == self.model.generation_config.eos_token_id
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text(said, skip_special_tokens=True), "refusal": None},
            "finish_reason": "stop" if ended else "length",
            "logprobs": None,
        }
        if request.get("logprobs"):
            most = int(request.get("top_logprobs") or 0)
            rows = [scores[0].float().log_softmax(dim=0) for scores in made.logits]
            choice["logprobs"] = {"content": [self.tokens(*pair, most) for pair in zip(said, rows, strict=True)]}
        asked = inputs["input_ids"].shape[1]
        usage = {"prompt_tokens": asked, "completion_tokens": len(said), "total_tokens": asked + len(said)}
        head = {"id": f"chatcmpl-{self.calls}", "object": "chat.completion", "created": 0, "model": NAME}
        return {**head, "choices": [choice], "usage": usage}

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message in the words of transformers' chat templates, its pictures opened."""
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        return {"role": message["role"], "content": [self.part(part) for part in parts]}

    def part(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return {"type": "text", "text": part["text"]}
        head, _, data = part["image_url"]["url"].partition(";base64,")
        self.pictures.add(head)
        return {"type": "image", "image": Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB")}

    def text(self, tokens: list[int], **how: Any) -> str:
        return self.processor.tokenizer.decode(tokens, **how)

    def tokens(self, chosen: int, logprobs: Any, most: int) -> dict[str, Any]:
        """A token with its log-probability, and the likeliest ones in its place."""
        best = logprobs.topk(most).indices.tolist() if most else []
        return {**self.token(chosen, logprobs), "top_logprobs": [self.token(one, logprobs) for one in best]}

    def token(self, token: int, logprobs: Any) -> dict[str, Any]:
        text = self.text([token])
        return {"token": text, "logprob": float(logprobs[token]), "bytes": list(text.encode())}


def failure(message: str) -> dict[str, Any]:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
