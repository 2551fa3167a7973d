"""What a list may make Cuescope fetch: public hosts over https, or what is allowed, whatever a name resolves to."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.sources.urls import Files, Refused, has_secret, is_private, shown

pytest.importorskip("aiohttp")


@pytest.mark.parametrize(
    "host",
    [
        "64:ff9b::a9fe:a9fe",  # the metadata service through NAT64
        "64:ff9b::7f00:1",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2002:a9fe:a9fe::1",
        "::ffff:10.0.0.1",
        "::7f00:1",
        "fec0::1",
        "fe80::1",
        "ff02::1",
        "::",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "198.18.0.1",
        "255.255.255.255",
    ],
)
def test_addresses_that_lead_inside(host: str) -> None:
    assert is_private(host)


@pytest.mark.parametrize(
    "host", ["1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_addresses_of_the_public(host: str) -> None:
    assert not is_private(host)


class Inside(BaseHTTPRequestHandler):
    """A service that nobody outside should reach; /to?URL leads on."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        Inside.asked.append(self.path)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to?"))
        else:
            self.send_response(403 if "refuse" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"inside")

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Any:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Inside)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_a_name_that_resolves_to_a_private_address(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def ours(host: Any, *more: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host in ("images.example.com", b"images.example.com") else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ours)
    before = len(Inside.asked)
    with pytest.raises(OSError, match="private address"):
        Files(str(tmp_path), allow_http=True).read(f"http://images.example.com:{port}/x.png")
    assert len(Inside.asked) == before


def test_a_name_that_changes_between_two_looks(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public at the first question, private at the second. The address connected to is what counts."""
    resolve, answers = socket.getaddrinfo, iter(["93.184.216.34"])

    def ours(host: Any, *more: Any, **options: Any) -> Any:
        if host in ("rebind.example.com", b"rebind.example.com"):
            host = next(answers, "127.0.0.1")
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ours)
    socket.getaddrinfo("rebind.example.com", 80)  # a check made beforehand would have been content
    before = len(Inside.asked)
    with pytest.raises(OSError, match="private address"):
        Files(str(tmp_path), allow_http=True).read(f"http://rebind.example.com:{port}/x.png")
    assert len(Inside.asked) == before


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "data:text/plain,x"]
)
def test_a_redirect_to_another_scheme(port: int, tmp_path: Path, target: str) -> None:
    with pytest.raises(OSError) as caught:
        Files(str(tmp_path), allow_http=True, allow_private=True).read(f"http://127.0.0.1:{port}/to?{target}")
    assert "root:" not in str(caught.value)


def test_a_redirect_from_https_to_http_is_refused_without_consent() -> None:
    import asyncio
    from types import SimpleNamespace

    from pipeline.sources.urls import web_client

    async def hook() -> None:
        session = await web_client(False, False)()
        try:
            (redirected,) = session.trace_configs[0].on_request_redirect
            response = SimpleNamespace(headers={"Location": " HTTP://user:pw@host/x?sig=1"})
            await redirected(None, None, SimpleNamespace(url="https://host/x", response=response))
        finally:
            await session.close()

    with pytest.raises(Refused, match="http is off") as caught:
        asyncio.run(hook())
    assert "pw" not in str(caught.value) and "sig=1" not in str(caught.value)


def test_credentials_of_the_user_open_nothing_outside_the_root() -> None:
    files = Files("s3://mine/set")
    for name in (
        "s3://other/x.png",
        "s3://mine/settings/x.png",
        "s3://mine/set/../x.png",
        "s3://mine/set/%2e%2e/x.png",
    ):
        with pytest.raises(Refused, match="outside"):
            files.address(name)
    assert files.address("s3://mine/set/a/x.png") == "s3://mine/set/a/x.png"
    assert Files("s3://mine/set", allow_outside=True).address("s3://other/x.png") == "s3://other/x.png"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://host/a.png?X-Amz-Signature=abc", "https://host/a.png?***"),
        ("403, url='https://u:p%40w@host/a?b=c'", "403, url='https://***@host/a?***"),
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("https://host/a.png", "https://host/a.png"),
        ("https://u:p@ss@host/x", "https://***@host/x"),
        ("is it a?b=c", "is it a?b=c"),
    ],
)
def test_what_is_shown_of_an_address(text: str, clean: str) -> None:
    assert shown(text) == clean


def test_an_error_of_the_network_names_no_secret(port: int, tmp_path: Path) -> None:
    files = Files(str(tmp_path), allow_http=True, allow_private=True)
    for url in (
        f"http://user:hunter2@127.0.0.1:{port}/refuse?X-Amz-Signature=hunter3",
        f"http://127.0.0.1:{port}/to?http://user:hunter2@127.0.0.1:{port}/refuse?sig=hunter3",
        "http://user:hunter2@127.0.0.1:1/x?sig=hunter3",
        "http://user:hunter2@[bad/x?sig=hunter3",
        "http://user:hunter2@host name/x?sig=hunter3",
    ):
        assert has_secret(url)
        with pytest.raises((OSError, ValueError)) as caught:
            files.read(url)
        assert "hunter" not in str(caught.value), caught.value
