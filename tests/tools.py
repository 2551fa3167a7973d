"""Other tools in environments of their own: what they need would not go with what Cuescope needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL_SECONDS = 1800


def environment(name: str, *packages: str) -> Path:
    """The Python of a virtual environment with these packages; made on the first call, skipped where it can't be.

    It lies in CUESCOPE_TOOLS (default: .cuescope/tools, which git ignores), so that a second run is quick.
    """
    where = Path(os.environ.get("CUESCOPE_TOOLS", Path(__file__).parents[1] / ".cuescope" / "tools")) / name
    python, ready = where / "bin" / "python", where / ".ready"
    if ready.is_file() and ready.read_text().split() == sorted(packages):
        return python
    for step in (
        [sys.executable, "-m", "venv", str(where)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    ):
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{' '.join(packages)} could not be installed within {INSTALL_SECONDS // 60} minutes")
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            pytest.skip(f"{' '.join(packages)} can't be installed here: {reason[-1][:300]}")
    ready.write_text("\n".join(sorted(packages)))
    return python
