"""Text in the cells of spreadsheets: none is run as a formula, and it comes back as it was."""

from __future__ import annotations

import json
import math
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A text cell that begins so is run as a formula by spreadsheets (OWASP, CSV injection; the last are full-width)."""


def cell(value: Any) -> Any:
    """A value as a cell: nothing for what was not measured, lists as JSON, text that is no formula to a spreadsheet."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list):
        return json.dumps(value)
    return f"'{value}" if isinstance(value, str) and _runs(value.lstrip("'")) else value


def text_of(made: str) -> str:
    """The text that `cell` made this of."""
    return made[1:] if made.startswith("'") and _runs(made.lstrip("'")) else made


def _runs(text: str) -> bool:
    return text.startswith(FORMULA) or text.lstrip().startswith(FORMULA)
