"""One audit in a process of its own, which says what it took: `python -m pipeline.bench.memory.child AUDIT OUT`.

Peak memory is the resident set's, which counts pages of mapped files too.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from pipeline.bench.peak import peak
from pipeline.chain import run_audit
from pipeline.config import Audit


def _begin_again() -> None:
    """Let the peak be that of what follows, where the system can do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Peaks:
    """The peak of each stage, by the calls that tell the progress of one."""

    def __init__(self) -> None:
        self.by_stage: dict[str, float] = {}
        self.stage = "start"

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.close()
            self.stage = stage

    def close(self) -> None:
        """End a stage."""
        self.by_stage[self.stage] = max(self.by_stage.get(self.stage, 0.0), peak())
        _begin_again()


def run(audit: Path, out: Path) -> dict[str, Any]:
    """Carry out an audit: its images, seconds and peak by stage, and the largest peak in MiB."""
    peaks = Peaks()
    folder = run_audit(Audit.from_dict(json.loads(audit.read_text())), out, peaks)
    peaks.close()
    about = folder.run()
    return {
        "images": about["data"]["images"],
        "peak_mib": max(peaks.by_stage.values()),
        "peak_by_stage_mib": peaks.by_stage,
        "seconds": about["seconds"],
        "findings": len(folder.read("findings")),
        "sampled": [entry["what"] for entry in about["skipped"]],
    }


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]))))
