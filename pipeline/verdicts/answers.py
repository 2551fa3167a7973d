"""A person's answer as a labeler's file has it, whatever the file: what every reader returns."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.images import read_file
from pipeline.records import ANSWERS, VERDICTS

YES = frozenset({"yes", "y", "true", "1", "present"})
NO = frozenset({"no", "n", "false", "0", "absent"})


MOST_BYTES = 1 << 30
"""Of a labeler's file."""


class Unusable(Exception):
    """An answer that says nothing, or nothing that can be understood; the message is the reason, for the user."""


@dataclass(frozen=True)
class Answer:
    """One answer, in the file's own ids.

    Args:
        finding_id, label, cue: the finding, by its id or by its class and cue.
        image: the picture's id or path; empty: the finding as a whole.
        verdict: one of records.ANSWERS, or empty.
        present: whether the cue is in the picture, None where that wasn't said.
        boxes: normalised xyxy, where the person marked it.
        given: when, ISO 8601 in UTC.
        called: what the person calls the cue, or empty.
        mark: of an unnamed cue, what the export called its cluster (kept.mark_of), or empty.
    """

    finding_id: str = ""
    label: str = ""
    cue: str = ""
    image: str = ""
    verdict: str = ""
    present: bool | None = None
    boxes: list[list[float]] = field(default_factory=list)
    annotator: str = "unnamed"
    given: str = ""
    note: str = ""
    called: str = ""
    mark: str = ""


@dataclass
class Found:
    """What a file holds: the answers, and why others can't be used, a reason each."""

    answers: list[Answer] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def text_in(path: Path) -> str:
    """The text of a labelers' file.

    Raises:
        UserError: it can't be read, or isn't in UTF-8.
    """
    try:
        return read_file(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not in UTF-8. Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8').") from None


def verdict_of(value: Any) -> str:
    """A verdict in any spelling of case, space and hyphen.

    Raises:
        Unusable: it is none of records.ANSWERS.
    """
    said = " ".join(str(value or "").replace("_", " ").replace("-", " ").lower().split())
    if said in VERDICTS and said not in ANSWERS:
        raise Unusable(
            f"'{said}' is Cuescope's own verdict, not a labeler's: labelers fill in the rows of "
            "`cuescope export --to csv --set rows=tasks`"
        )
    if said and said not in ANSWERS:
        raise Unusable(f"the verdict '{said[:40]}' is none of {', '.join(ANSWERS)}")
    return said


def presence_of(value: Any) -> bool | None:
    """Whether the cue is there: yes or no in any usual spelling, None for nothing.

    Raises:
        Unusable: neither.
    """
    said = str("" if value is None else value).strip().lower()
    if said in YES or said in NO:
        return said in YES
    if said:
        raise Unusable(f"'{said[:40]}' in the column 'present' is neither yes nor no")
    return None


def seen(verdict: str, present: bool | None) -> bool | None:
    """What a verdict on a picture says of the cue's presence in it, where that wasn't said outright."""
    if present is not None:
        return present
    return {"not present": False, "spurious": True, "core": True}.get(verdict)


def utc(value: Any, otherwise: str) -> str:
    """A time of ISO 8601 in UTC to the second; `otherwise` where there is none.

    Raises:
        Unusable: it is no such time.
    """
    text = str(value or "").strip()
    if not text:
        return otherwise
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Unusable(f"'{text[:40]}' is no time of the form 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    return time.astimezone(datetime.UTC).isoformat(timespec="seconds")
