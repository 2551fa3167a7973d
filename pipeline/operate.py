"""An audit that is run again and again: go on from the one before, compare, tell people, make room."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.chain import locked, preflight
from pipeline.config import Audit
from pipeline.errors import UserError
from pipeline.evidence.change import WORSE
from pipeline.history import Past, history, latest, new_folder, retire, to_retire
from pipeline.notify import send
from pipeline.places import Place
from pipeline.report.changes import attribution, headline, images, news, sentence, subject
from pipeline.store import AuditFolder

LOG = logging.getLogger(__name__)

Run = Callable[[Audit, Place, Place | None], Any]
"""Carries out the chain: an audit, its folder, and the audit that it goes on from."""


@dataclass(frozen=True)
class Outcome:
    """What an audit came to."""

    folder: AuditFolder
    retired: list[Past] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # notifications that failed

    @property
    def comparison(self) -> dict[str, Any] | None:
        """What run.json says of the changes; None for a first audit."""
        return self.folder.run().get("comparison")

    @property
    def changes(self) -> list[dict[str, Any]]:
        """Rows of the table `changes`."""
        return self.folder.read("changes").to_pylist()

    @property
    def got_worse(self) -> bool:
        """Whether a finding is new or worse than in the audit before."""
        counts = (self.comparison or {}).get("counts", {})
        return any(counts.get(name) for name in WORSE)

    @property
    def headline(self) -> str:
        """In a line, how it went."""
        if self.comparison:
            return headline(self.comparison["counts"])
        found = sum(row["verdict"] == "confirmed" for row in self.folder.read("findings").to_pylist())
        return f"first audit, {found} confirmed"


def audit_once(audit: Audit, root: Place, run: Run) -> Outcome:
    """Audit into a new dated folder of `root`, compared with the newest finished one there.

    Raises:
        Busy: another run holds `root`.
        UserError: as the chain does; people are told of any failure.
    """
    preflight(audit, root / "new")  # a mistake leaves no folder
    root.mkdir(parents=True, exist_ok=True)
    with locked(AuditFolder(root)):
        out = new_folder(root)
        try:
            run(audit, out, latest(root))
        except Exception as fault:
            reason = str(fault) if isinstance(fault, UserError) else f"{type(fault).__name__}; see the log"
            title = f"Cuescope: the audit of {root.name} failed"
            for line in send(audit.operate.notify, title, f"{reason}\nFolder: {out}"):
                LOG.warning(line)
            raise
        retired = to_retire(history(root), audit.operate.keep)
        retire(retired)
    outcome = Outcome(AuditFolder(out), retired)
    if outcome.got_worse or audit.operate.notify_when == "always":
        outcome.faults.extend(send(audit.operate.notify, *message(outcome)))
    return outcome


def message(outcome: Outcome) -> tuple[str, str]:
    """Title and text of the message: what is new and worse in plain words, and where the report is."""
    root = outcome.folder.path.parent.name
    lines = [f"{row['change']}: {subject(row)}. {sentence(row)}" for row in news(outcome.changes)]
    if outcome.comparison:
        lines += [attribution(outcome.comparison["causes"]), images(outcome.comparison["images"])]
    lines.append(f"Report: {(outcome.folder.path / 'report.html').resolve()}")
    return f"Cuescope, {root}: {outcome.headline}", "\n".join(lines)


def say(outcome: Outcome) -> list[str]:
    """What else there is to say of it, a line each."""
    kept = [f"Deleted by operate.keep: {past.path}" for past in outcome.retired]
    return [*kept, *outcome.faults]
