"""The web server of a review: for this machine, for those who were told its address.

It listens on the loopback interface alone, and the address holds a key that is new each time: whoever doesn't know it
gets nothing, not even pictures. There is no cookie, so that a request of another site's page carries no right. A name
that was made to lead here (DNS rebinding) is told by the Host header, another site's request by Origin and
Sec-Fetch-Site, and the page may load nothing but its own (the content-security policy).
"""

from __future__ import annotations

import hmac
import http.server
import json
import re
import secrets
import signal
import sys
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import UserError, plain
from pipeline.review.desk import Desk, Said

HOST = "127.0.0.1"
MOST_BYTES = 1 << 16
"""Of what a reviewer sends."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOST = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Cuescope</title><h1>Nothing here</h1>"
    "<p>The address of a review holds a key. Open the one that <code>cuescope review</code> printed; each start has a "
    "new one.</p></html>"
)


class Server(http.server.ThreadingHTTPServer):
    """A desk's server; `address` is what reviewers open."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0) -> None:
        """
        Args:
            port: 0 for any that is free.

        Raises:
            UserError: something else listens there.
        """
        self.desk, self.key = desk, secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"Port {port} can't be used ({why}). Give another one with --port.") from None
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """With the key."""
        return f"http://{HOST}:{self.server_port}/{self.key}/"


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        """The page, a picture, or what people say."""
        place = self._place()
        if place is None:
            return
        kind, *names = place.split("/")
        if place == "":
            self._send(self.server.desk.page().encode(), "text/html; charset=utf-8")
        elif place == "state":
            self._json(self.server.desk.state())
        elif kind in ("image", "edit", "regions") and 1 <= len(names) <= 2:
            picture = self.server.desk.picture(kind, *map(unquote, names))
            if picture is None:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such picture.")
            else:
                self._send(picture, "image/webp", cache="private, max-age=3600")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing of this name.")

    def do_POST(self) -> None:
        """What a reviewer says."""
        self.close_connection = True  # unless all of the body is read
        place = self._place()
        if place is None:
            return
        origin = self.headers.get("Origin", "")
        if urlsplit(origin).scheme != "http" or urlsplit(origin).netloc not in self.server.hosts:
            return self._refuse(HTTPStatus.FORBIDDEN, "Only the page of this review may send verdicts.")
        if place != "say":
            return self._refuse(HTTPStatus.NOT_FOUND, "There is nothing of this name.")
        if self.headers.get_content_type() != "application/json":
            return self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON.")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length) or int(length) > MOST_BYTES:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Send at most {MOST_BYTES:,} bytes.")
        body = self.rfile.read(int(length))
        self.close_connection = False
        try:
            self.server.desk.say(Said.of(json.loads(body.decode("utf-8"))))
        except (ValueError, RecursionError):
            return self._refuse(HTTPStatus.BAD_REQUEST, "Send JSON.")
        except UserError as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, plain(str(error)))
        self._json(self.server.desk.state())

    def _place(self) -> str | None:
        """What of the review is asked for, behind the key; None where it was refused."""
        if self.headers.get("Host", "") not in self.server.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This server has no such name.")
            return None
        _, key, *rest = (self.path.partition("?")[0] + "/").split("/", 2)
        if not hmac.compare_digest(key.encode("utf-8", "replace"), self.server.key.encode()):
            self._send(LOST.encode(), "text/html; charset=utf-8", HTTPStatus.NOT_FOUND)
            return None
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._refuse(HTTPStatus.FORBIDDEN, "Another site's page asks for this.")
            return None
        return "/".join(rest).removesuffix("/")

    def _json(self, data: Any) -> None:
        self._send(json.dumps(data).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(json.dumps({"error": why}).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, cache: str = "no-store") -> None:
        self.send_response(status)
        # of the page itself: its policy stands in its head, by the hashes of its own style and script
        policy = "frame-ancestors 'none'" if kind.startswith("text/html") and status == 200 else "default-src 'none'"
        for name, value in {
            **HEADERS,
            "Content-Security-Policy": policy,
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": cache,
            **({"Connection": "close"} if self.close_connection else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Nothing that tells of versions."""
        return "cuescope"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news; faults are, and their lines are anybody's."""

    def log_error(self, format: str, *args: Any) -> None:
        """Faults of the protocol, without what was sent."""

    def handle_one_request(self) -> None:
        """As ever; a browser that goes away is no fault."""
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True


def serve(desk: Desk, server: Server) -> None:
    """Serve until Ctrl-C or a request to end; then let the findings heed what was said."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.default_int_handler)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print("Ordering the findings anew ...", file=sys.stderr)
    finally:
        server.server_close()
        for line in desk.close():
            print(plain(line), file=sys.stderr)
