"""Errors that a person reads. An error class exists only where the caller must do something different."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """A mistake the user can mend: the message says what is wrong, where, and what to do. Exit code 2."""


class BudgetReached(Exception):
    """A limit set by the user (calls, tokens, money, forwards) was reached; partial results stand.

    `done`, of work on a list, has its results in order, None for what wasn't reached.
    """

    def __init__(self, why: str, done: Sequence[Any] = ()) -> None:
        super().__init__(why)
        self.done = list(done)


HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters that do something instead of being seen."""
JOINERS = "\u200c\u200d"
"""Harmless ones that Persian, Indic scripts and emoji are written with."""


def plain(text: str, keep: str = "") -> str:
    """Text that a terminal and a page can only show: what would act on them (escape sequences, line breaks, changes of
    the direction of writing, halves of surrogates) as its escape, such as \\x1b; `keep` names characters that stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in HIDDEN and c not in JOINERS and c not in keep
        else c
        for c in text
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known names, at most three: `Did you mean 'x' or 'y'?`, or (at most 40 of) all when
    none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        best = _likeness(name, close[0])
        *others, last = [f"'{other}'" for other in close if _likeness(name, other) > best - 0.1]
        return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return f"Known: {', '.join(names[:40])}{more}."


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(a=other, b=name).ratio()


class Busy(UserError):
    """Another run holds the folder."""
