"""Plain data as JSON that every reader takes: what wasn't measured is null, as JSON has no NaN."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any) -> str:
    """JSON, indented; NaN and infinite numbers as null."""
    return json.dumps(_known(value), indent=1, allow_nan=False)


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
