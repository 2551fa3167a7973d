from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.sources.urls import Files, Refused, expand, is_private


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:192.168.0.1", True),
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
    ],
)
def test_private_addresses_are_known(host: str, private: bool) -> None:
    assert is_private(host) is private


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a.png").write_bytes(b"a")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "inside" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "inside" / "up").symlink_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["../secret.png", "link.png", "up/secret.png", "{}/secret.png", "file://{}/secret.png", "/etc/passwd"]
)
def test_nothing_outside_the_root_is_read_unless_allowed(folder: Path, name: str) -> None:
    name = name.format(folder)
    with pytest.raises(Refused, match="outside"):
        Files(str(folder / "inside")).read(name)
    if "etc" not in name:
        assert Files(str(folder / "inside"), allow_outside=True).read(name) == b"secret"


def test_what_lies_inside_is_read_however_it_is_named(folder: Path) -> None:
    files = Files(str(folder / "inside"))
    for name in ("a.png", "./a.png", "x/../a.png", str(folder / "inside" / "a.png"), f"file://{folder}/inside/a.png"):
        assert files.read(name) == b"a"


@pytest.mark.parametrize("name", ["../other/a.png", "x/../../a.png", "/etc/passwd", "file:///etc/passwd"])
def test_a_remote_root_is_not_left_either(name: str) -> None:
    with pytest.raises(Refused, match="outside"):
        Files("memory://set/images").read(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ftp://host/a.png", "'ftp' is not allowed"),
        ("simplecache::s3://bucket/a.png", "not allowed"),
        ("http://example.com/a.png", "allow_http"),
        ("file://other-host/a.png", "another machine"),
        ("", "no path"),
        ("a\0b", "no path"),
    ],
)
def test_other_schemes_are_refused(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        Files(str(folder)).read(name)


class Answers(BaseHTTPRequestHandler):
    """/a.png is a file, /away leads to it, /big never ends."""

    asked = 0

    def do_GET(self) -> None:
        Answers.asked += 1
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
        elif self.path == "/a.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"picture")
        elif self.path == "/big":
            self.send_response(200)
            self.end_headers()
            while True:
                try:
                    self.wfile.write(b"0" * (1 << 20))
                except OSError:
                    return
        else:
            self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("aiohttp")
    listener = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield listener.server_port
    listener.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_host_in_a_private_network_is_refused_however_it_is_written(server: int, tmp_path: Path, host: str) -> None:
    before = Answers.asked
    # by our rule where the host is resolved, by aiohttp where it takes no address that is written so
    with pytest.raises(OSError, match=r"private address|canonical|Invalid IPv6|resolve|connect"):
        Files(str(tmp_path), allow_http=True).read(f"http://{host}:{server}/a.png")
    assert Answers.asked == before


def test_a_web_server_is_read_where_it_is_allowed(server: int, tmp_path: Path, monkeypatch) -> None:
    files = Files(str(tmp_path), allow_http=True, allow_private=True)
    assert files.read(f"http://127.0.0.1:{server}/a.png") == b"picture"
    assert files.read(f"http://127.0.0.1:{server}/away") == b"picture"
    with pytest.raises(FileNotFoundError):
        files.read(f"http://127.0.0.1:{server}/none.png")
    monkeypatch.setattr("pipeline.sources.urls.MAX_BYTES", 3 << 20)
    with pytest.raises(Refused, match="more than 3 MiB"):
        files.read(f"http://127.0.0.1:{server}/big")


def test_credentials_have_no_place_in_a_configuration() -> None:
    with pytest.raises(UserError, match="environment"):
        Files("s3://bucket", {"key": "AKIA", "secret": "x"})


def test_braces_are_shards() -> None:
    assert list(expand("s3://b/{08..11}.tar")) == [f"s3://b/{n}.tar" for n in ("08", "09", "10", "11")]
    assert list(expand("{a,b}/x-{0..1}")) == ["a/x-0", "a/x-1", "b/x-0", "b/x-1"]
    assert list(expand("plain")) == ["plain"]
