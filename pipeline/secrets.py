"""Secrets have no place in a configuration: it is written into the audit, its report and the scheduler."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

NAMED = re.compile(
    r"secret|passw(or)?d|(^|[_-])(token|pwd|sas)$|(api|access|account|private|shared)_?key|authorization|connection_string"
)
"""In the name of an option, in lower case: it holds a secret."""
KEYS = re.compile(r"\b(sk-[\w-]{20,}|AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AIza[\w-]{30,})")
"""What keys of well-known services look like."""
URL = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s/?#]*@)?([^\s?#<>\"]*)(\?[^\s<>\"]*)?", re.IGNORECASE)
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
WORDS = frozenset({"prompts", "mapping", "columns", "splits", "attributes", "classes", "labels"})
"""Options whose keys are the user's own words."""


def found_in(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Each place in a configuration that holds a secret, and what gives it away; never the secret itself."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name, place = str(key), f"{where}.{key}".lstrip(".")
            if isinstance(inner, str) and inner and NAMED.search(name.lower()) and not name.endswith("_env"):
                yield place, f"'{name}' is a secret by its name"
            elif name not in WORDS:
                yield from found_in(inner, place)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from found_in(inner, where)
    elif isinstance(value, str):
        if KEYS.search(value):
            yield where, "it holds what looks like a key of a service"
        elif reason := in_url(value):
            yield where, reason


def is_url(address: str) -> bool:
    """Whether this is a URL, and not a path on this machine."""
    return "://" in address


def shown(text: str) -> str:
    """A text for people, without the user, the password and the query of the URLs in it."""
    return URL.sub(lambda m: f"{m[1]}{'***@' if m[2] else ''}{m[3]}{'?***' if m[4] else ''}", text)


def in_url(text: str) -> str:
    """Why an address must not be written down, or empty: a user or a password, or a query, which may be a signature."""
    parts = ADDRESS.search(text)
    if not parts:
        return ""
    if "@" in parts[2]:
        return "its address holds a user or a password"
    if parts[1].lower() in ("http", "https") and "?" in parts[3]:
        return "its address holds a query ('?...'), which may be a signature or a key"
    return ""
