"""Files by path or URL, through fsspec: which addresses a data set may name, and reading them.

What a configuration names is the user's own wish; what a manifest names may be anybody's. So an address out of the
data is held against the rules here: allowed schemes only, nothing outside the data set's own folder or bucket, and no
host in a private network, however it is written, resolved or redirected to. A user, a password and a query (it may be
a signature) are used to read a URL and never shown.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import posixpath
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import fsspec

from pipeline import secrets
from pipeline.errors import UserError
from pipeline.images import MAX_BYTES, read_file
from pipeline.places import STORES
from pipeline.secrets import is_url, shown

SCHEMES = (*STORES, "https")
"""Allowed; `http` too with the option `allow_http`."""
OPEN = ("http", "https")
"""Read without the user's credentials, so that any host's files may be named."""
SECRETS = frozenset({"key", "secret", "token", "password", "username", "sas_token", "account_key"})
INSIDE = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
"""Addresses that Python takes for public ones, and at which clouds answer their own machines alone."""
WITH_IPV4 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""Networks of IPv6 whose addresses end in one of IPv4 that a gateway may lead to (RFC 6052, RFC 4291)."""


class Refused(OSError):
    """An address that the rules forbid; the message is the reason, for the quarantine table."""


def local_path(address: str) -> str:
    """A `file://` URL as the path that it names; anything else as it is."""
    parts = urlsplit(address)
    if parts.scheme.lower() != "file":
        return address
    if parts.netloc not in ("", "localhost"):
        raise Refused(f"{shown(address)} names a file of another machine")
    return unquote(parts.path)


@dataclass(frozen=True)
class Files:
    """The files of a data set.

    Args:
        root: the folder or URL that relative names start from, and that no name may leave.
        storage: fsspec's options for s3 and gs, for instance `endpoint_url` or `anon`; never credentials, for they
            would be written into the audit.
        allow_http: unencrypted `http` too. allow_private: web hosts in private networks and on this machine too.
        allow_outside: files outside `root` too.
    """

    root: str
    storage: dict[str, Any] = field(default_factory=dict, hash=False)
    allow_http: bool = False
    allow_private: bool = False
    allow_outside: bool = False

    def __post_init__(self) -> None:
        named = [name for name in self.storage if name in SECRETS]
        for name in [*named, *(place for place, _ in secrets.found_in(self.storage))]:
            raise UserError(
                f"data.storage: '{name}' would be written into the audit. Give credentials by the environment "
                "(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS) or a profile."
            )
        try:
            self._check_scheme(self.root)
        except Refused as error:
            raise UserError(f"data: {error}.") from None

    def address(self, name: str) -> str:
        """The path or URL that `name` (relative, absolute or a URL) stands for.

        Raises:
            Refused: a scheme that isn't allowed, or a place outside the root.
        """
        if not name.strip() or "\0" in name:
            raise Refused("no path is given")
        self._check_scheme(name)
        try:
            name = local_path(name)
            if name.lower().startswith(("http://", "https://")) and re.search(r'[\s"<>]', name + urlsplit(name).netloc):
                raise ValueError
        except ValueError:
            raise Refused("its address can't be read: is a character in it not percent-encoded?") from None
        if is_url(name):
            if not (name.partition("://")[0].lower() in OPEN or self.allow_outside or self._holds(name)):
                raise self._outside(name)  # anything that the user's credentials open could be named
            return name
        if is_url(self.root) and not name.startswith("/"):
            inner = posixpath.normpath(name) if ".." in name.split("/") else name  # in a bucket a//b is a name
            if (inner == ".." or inner.startswith("../")) and not self.allow_outside:
                raise self._outside(name)
            return f"{self.root.rstrip('/')}/{inner}"
        path = os.path.join(self.root, name)
        if self.allow_outside:
            return path
        root, real = self._real_root, os.path.realpath(path)
        if is_url(self.root) or os.path.commonpath([root, real]) != root:
            raise self._outside(name)
        return real  # what was checked is what is opened

    @functools.cached_property
    def _real_root(self) -> str:
        return os.path.realpath(self.root)

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """The bytes of the file that `name` stands for, or a range of them.

        Raises:
            OSError: refused, or it can't be read; the message is a reason for the quarantine table.
            UserError: the package for its scheme is not installed.
        """
        address = self.address(name)
        if not is_url(address):
            if start is None and stop is None:
                return read_file(address)
            with open(address, "rb") as stream:
                stream.seek(start or 0)
                return stream.read(MAX_BYTES if stop is None else stop - (start or 0))
        with _as_os_errors(address):
            files, path = self.filesystem(address)
            if start is not None or stop is not None:
                return files.cat_file(path, start=start, end=stop)
            if not address.lower().startswith("http"):
                if (files.info(path).get("size") or 0) > MAX_BYTES:
                    raise Refused(f"{shown(address)} holds more than {MAX_BYTES >> 20} MiB")
                return files.cat_file(path)
            with files.open(path, "rb", block_size=0, size=1) as stream:  # as a stream, whatever its size
                data = bytearray()
                while chunk := stream.read(1 << 20):
                    data += chunk
                    if len(data) > MAX_BYTES:
                        raise Refused(f"{shown(address)} holds more than {MAX_BYTES >> 20} MiB")
                return bytes(data)

    def read_list(self, name: str) -> bytes:
        """All of a list of images, which the user named: of a local file everything, else as `read`."""
        if is_url(name):
            return self.read(name)
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str) -> BinaryIO:
        """The file that `name` stands for, seekable; errors as those of `read`."""
        address = self.address(name)
        if not is_url(address):
            return open(address, "rb")
        with _as_os_errors(address):
            files, path = self.filesystem(address)
            return files.open(path, "rb")

    def find(self) -> list[str]:
        """Every file below the root, by its path relative to it; errors as those of `read`."""
        with _as_os_errors(self.root):
            files, path = self.filesystem(self.root)
            files.invalidate_cache()  # an earlier listing would hide what was added since
            prefix = path.rstrip("/") + "/"
            return [name.removeprefix(prefix) for name in files.find(path)]

    def version(self, name: str) -> str:
        """Something that changes when the file does, as far as its file system tells."""
        return self._version_at(self.address(name))

    def _version_at(self, address: str) -> str:
        if not is_url(address):
            status = os.stat(address)
            return f"{status.st_mtime_ns}-{status.st_size}"
        with _as_os_errors(address):
            files, path = self.filesystem(address)
            return _version(files.info(path))

    def stamp(self, name: str) -> str:
        """Of a file on this machine its size and time of change; empty where only reading could tell of a change."""
        try:
            address = self.address(name)
            return "" if is_url(address) else self._version_at(address)
        except OSError:
            return ""

    def filesystem(self, address: str) -> tuple[Any, str]:
        """fsspec's file system for a URL, and the path in it."""
        scheme = urlsplit(address).scheme.lower()
        options: dict[str, Any] = {}
        if scheme in ("s3", "gs"):
            options = self.storage
        elif scheme in ("http", "https"):
            options = {"get_client": web_client(self.allow_http, self.allow_private)}
        return fsspec.core.url_to_fs(address, **options)

    def _check_scheme(self, address: str) -> None:
        if not is_url(address):
            return
        scheme = address.partition("://")[0].lower()
        if scheme == "http" and not self.allow_http:
            raise Refused(f"http is not encrypted, and off: {shown(address)}. data.allow_http: true allows it")
        if scheme not in (*SCHEMES, "http"):
            raise Refused(f"the scheme '{scheme[:20]}' is not allowed: {shown(address)}. Allowed: {', '.join(SCHEMES)}")

    def _holds(self, url: str) -> bool:
        """Whether a URL lies below the root."""
        root, inner = (posixpath.normpath(unquote(place)) for place in (self.root, url))
        return is_url(self.root) and inner.startswith(root + "/")

    def _outside(self, name: str) -> Refused:
        return Refused(
            f"{shown(name)} lies outside {self.root}. data.root says where the images are; "
            "data.allow_outside: true allows any place"
        )


@contextmanager
def _as_os_errors(address: str) -> Iterator[None]:
    """Whatever a file system raises becomes an OSError with a readable reason, or says which package is missing."""
    try:
        yield
    except (Refused, UserError):
        raise
    except ImportError as error:
        raise UserError(f"data: {shown(address)} needs a package: pip install 'cuescope[remote]' ({error}).") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {shown(address)}") from None
    except Exception as error:  # every file system has errors of its own
        raise OSError(f"{shown(address)}: {shown(str(error)) or type(error).__name__}") from None


def has_secret(address: str) -> bool:
    """Whether a URL has a user, a password or a query: it must not stand in an audit's tables."""
    return bool(secrets.in_url(address))


def _version(info: dict[str, Any]) -> str:
    known = [info.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "created", "size")]
    return "-".join(str(value) for value in known if value is not None)


def is_private(host: str) -> bool:
    """Whether an address (in digits) is one of a private network, of this machine, or of no host at all."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and any(address in network for network in WITH_IPV4):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.is_site_local or (inner is not None and is_private(str(inner))):
            return True
        if address.ipv4_mapped:
            return False
    return not address.is_global or address.is_multicast or any(address in network for network in INSIDE)


@functools.cache
def web_client(allow_http: bool, allow_private: bool) -> Callable[..., Any]:
    """What makes fsspec's web session: it looks at each address at the moment of connecting, so that neither a name
    that resolves to a private address nor a redirect gets round the rules. One function for equal rules: fsspec
    shares its sessions by it.
    """

    def connect(address: tuple) -> socket.socket:
        family, kind, protocol, _, place = address
        if not allow_private and is_private(place[0]):
            raise OSError(13, f"{place[0]} is a private address. data.allow_private: true allows it")
        return socket.socket(family, kind, protocol)

    async def redirected(session: Any, context: Any, params: Any) -> None:
        target = params.response.headers.get("Location", "")
        if target.strip().lower().startswith("http:") and not allow_http:
            raise Refused(f"{shown(f'{params.url} leads to {target}')}: http is off. data.allow_http: true allows it")

    async def client(loop: Any = None, **options: Any) -> Any:
        import aiohttp

        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(redirected)
        connector = aiohttp.TCPConnector(loop=loop, socket_factory=connect)
        timeout = aiohttp.ClientTimeout(total=120, sock_connect=20)
        return aiohttp.ClientSession(loop=loop, connector=connector, trace_configs=[trace], timeout=timeout)

    return client


def expand(pattern: str) -> Iterator[str]:
    """`{000..012}` and `{a,b}` in a path, as shells write them, to every path that is meant."""
    before, brace, rest = pattern.partition("{")
    inner, closed, after = rest.partition("}")
    if not brace or not closed:
        yield pattern
        return
    first, dots, last = inner.partition("..")
    if dots and first.isdigit() and last.isdigit():
        choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        choices = inner.split(",")
    for choice in choices:
        yield from expand(f"{before}{choice}{after}")
