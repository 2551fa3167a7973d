"""Errors that a person reads. An error class exists only where the caller must do something different."""

from __future__ import annotations

import difflib
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


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known names: `Did you mean 'x'?`, or (at most 40 of) all when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(names[:40])}{more}."
