"""What a review needs to start."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def test_it_starts_without_anything_that_computes() -> None:
    heavy = "('torch', 'prefect', 'transformers', 'ultralytics', 'fastapi')"
    code = f"import sys, pipeline.review.desk, pipeline.review.server; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
