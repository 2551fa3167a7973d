"""The server of a review by itself: whom it answers, and what it takes. The desk behind it is a stand-in."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.review.desk import Said
from pipeline.review.server import MOST_BYTES, Server


class Recorder:
    """A desk that remembers."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    def page(self) -> str:
        return "<!doctype html><title>page</title>"

    def picture(self, kind: str, name: str, arm: str = "") -> bytes | None:
        return f"{kind} {name} {arm}".encode() if name != "none" else None

    def state(self) -> dict[str, Any]:
        return {"findings": {}, "heard": len(self.said)}

    def say(self, said: Said) -> None:
        if said.finding == "unknown":
            raise UserError("Not kept: a finding that this audit doesn't hold.")
        self.said.append(said)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(Recorder())  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(
    server: Server, path: str, body: Any = None, method: str = "", **headers: str
) -> tuple[int, http.client.HTTPResponse, bytes]:
    """A request as a browser on the review's own page makes it, but for `headers` (None: without it)."""
    own = {"Host": f"127.0.0.1:{server.server_port}"}
    if body is not None:
        own |= {"Origin": f"http://127.0.0.1:{server.server_port}", "Content-Type": "application/json"}
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
    connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
    for name, value in {**own, **({"Content-Length": str(len(data))} if data is not None else {})}.items():
        if value:
            connection.putheader(name, value)
    connection.endheaders(data)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response, content


VERDICT = {"finding": "f1", "who": "anna", "verdict": "core"}


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address.startswith(f"http://127.0.0.1:{server.server_port}/") and len(server.key) >= 32


def test_page_pictures_state_and_verdict(server: Server) -> None:
    at = f"/{server.key}"
    assert ask(server, f"{at}/")[2].startswith(b"<!doctype html>")
    assert ask(server, f"{at}/image/abc")[2] == b"image abc "
    assert ask(server, f"{at}/edit/p%2F1/placebo")[2] == b"edit p/1 placebo"
    assert ask(server, f"{at}/image/none")[0] == 404
    assert json.loads(ask(server, f"{at}/state")[2])["heard"] == 0
    status, _, body = ask(server, f"{at}/say", VERDICT)
    assert status == 200 and json.loads(body)["heard"] == 1
    assert server.desk.said == [Said("f1", "anna", "core")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["/", "/state", "/image/abc", "/wrong/", "/wrong/state", "//", "/..", "/%2e%2e/"])
def test_without_the_key_there_is_nothing(server: Server, path: str) -> None:
    status, _, body = ask(server, path)
    assert status == 404 and b"page</title>" not in body
    assert ask(server, f"/{server.key[:-1]}/")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example", ""])
def test_a_name_made_to_lead_here_is_refused(server: Server, host: str) -> None:
    """DNS rebinding: the browser thinks that the other site's page and this server are one."""
    assert ask(server, f"/{server.key}/", Host=host)[0] in (400, 421)
    assert ask(server, f"/{server.key}/say", VERDICT, Host=host)[0] in (400, 421)
    assert server.desk.said == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_another_sites_page_sends_nothing(server: Server, headers: dict[str, str]) -> None:
    assert ask(server, f"/{server.key}/say", VERDICT, **headers)[0] == 403
    assert server.desk.said == []  # type: ignore[attr-defined]


def test_what_a_form_could_send_is_refused(server: Server) -> None:
    at = f"/{server.key}/say"
    assert ask(server, at, VERDICT, Content_Type="text/plain")[0] == 415
    assert ask(server, at, VERDICT, Content_Type="application/x-www-form-urlencoded")[0] == 415
    assert ask(server, at, method="PUT", body=VERDICT)[0] == 501
    assert server.desk.said == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"\xff", b"[" * 30_000, [], {"finding": "f1"}, {"finding": "f1", "who": " "},
        {**VERDICT, "verdict": "yes"}, {**VERDICT, "verdict": 1}, {**VERDICT, "more": ""},
        {**VERDICT, "note": "x" * 2001}, {**VERDICT, "image": "i"}, {**VERDICT, "present": True},
        {**VERDICT, "image": "i", "present": "yes"}, {**VERDICT, "finding": "unknown"},
    ],
    ids=lambda body: str(body)[:30],
)  # fmt: skip
def test_what_is_no_verdict_is_told(server: Server, body: Any) -> None:
    status, _, answer = ask(server, f"/{server.key}/say", body)
    assert status == 400 and json.loads(answer)["error"]
    assert server.desk.said == []  # type: ignore[attr-defined]


def test_too_much_is_not_read(server: Server) -> None:
    assert ask(server, f"/{server.key}/say", b"x" * (MOST_BYTES + 1))[0] == 413


def test_headers_close_the_page(server: Server) -> None:
    _, page, _ = ask(server, f"/{server.key}/")
    for name, value in {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Server": "cuescope",
    }.items():
        assert page.headers[name] == value
    assert page.headers["Set-Cookie"] is None and page.headers["Access-Control-Allow-Origin"] is None


def test_a_port_in_use_is_told(server: Server) -> None:
    with pytest.raises(UserError, match="--port"):
        Server(Recorder(), server.server_port)  # type: ignore[arg-type]
