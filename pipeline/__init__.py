"""Cuescope finds, verifies and ranks the spurious visual cues that a model leans on, class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import Comparison, Findings, Result, compare, discover, load
    from pipeline.config import Audit
    from pipeline.errors import UserError

__all__ = ["Audit", "Comparison", "Findings", "Result", "UserError", "compare", "discover", "load"]

_HOME = {"Audit": "pipeline.config", "UserError": "pipeline.errors"}


def __getattr__(name: str) -> Any:
    """Public names load when they are used: the command line must start fast."""
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME.get(name, "pipeline.api")), name)
