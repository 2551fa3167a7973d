"""An audit before its reviewers: its page, its pictures, and what people say of its findings.

A verdict is kept before its answer goes out. That findings, report and comparison heed it takes seconds and follows in
a thread, once for all that came in the meantime.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from PIL import Image

from pipeline.chain import locked
from pipeline.errors import Busy, UserError
from pipeline.images import RGB, UnreadableImage
from pipeline.import_verdicts import context_of, heed, keep, placed
from pipeline.places import stamp
from pipeline.records import ANSWERS, table
from pipeline.report.assemble import assemble, montage
from pipeline.report.beside import Region
from pipeline.report.render import render_report
from pipeline.sources.items import as_text
from pipeline.stages.report import beside_of, pictures_of, tables_of
from pipeline.store import AuditFolder
from pipeline.verdicts import kept
from pipeline.verdicts.answers import Answer, Found
from pipeline.verdicts.settled import called, known_again, name_of, opinions

SIDE = 1024
"""Pixels of the longer side of a picture that is served."""
QUIET = 2.0
"""Seconds without a verdict before the findings are ordered anew."""
AGAIN = 15.0
"""Seconds until the next try where another run holds the audit."""
LONGEST = {"who": 80, "note": 2000, "called": 200}


@dataclass(frozen=True)
class Said:
    """What a reviewer says of a finding, or of whether its cue is in one of its pictures.

    Args:
        finding: its finding_id.
        who: the reviewer.
        verdict: one of records.ANSWERS, or empty.
        note, called: a note, and a better name of the cue, or empty.
        same_as: another finding of the class whose cue is the same, or empty.
        image, present: a picture, and whether the cue is in it.
    """

    finding: str
    who: str
    verdict: str = ""
    note: str = ""
    called: str = ""
    same_as: str = ""
    image: str = ""
    present: bool | None = None

    @classmethod
    def of(cls, raw: Any) -> Said:
        """From JSON.

        Raises:
            UserError: it isn't of this form.
        """
        if not isinstance(raw, dict) or not set(raw) <= set(cls.__dataclass_fields__):
            raise UserError("Expected an object with finding, who and what is said.")
        for name, value in raw.items():
            if name == "present" and value is not None and not isinstance(value, bool):
                raise UserError("present is true, false or null.")
            if name != "present" and not isinstance(value, str):
                raise UserError(f"{name} is a text.")
        texts: dict[str, Any] = {"finding": "", "who": ""}
        texts |= {name: as_text(value.strip()) if isinstance(value, str) else value for name, value in raw.items()}
        said = cls(**texts)
        if not said.who:
            raise UserError("Say who you are: a verdict has a name.")
        for name, most in LONGEST.items():
            if len(getattr(said, name)) > most:
                raise UserError(f"{name}: at most {most} characters.")
        if said.verdict and said.verdict not in ANSWERS:
            raise UserError(f"The verdict is one of {', '.join(ANSWERS)}.")
        if (said.present is not None) != bool(said.image):
            raise UserError("image and present go together.")
        return said


class Desk:
    """One audit, one process, any number of reviewers."""

    def __init__(self, folder: AuditFolder) -> None:
        """
        Raises:
            UserError: the audit didn't finish, or another version of Cuescope wrote it.
        """
        self.folder, self.context = folder, context_of(folder)
        self.tables = tables_of(folder)
        self.beside = beside_of(folder, self.tables)
        self._load, self._redo = pictures_of(self.context, self.tables)
        self._edits = {row["pair_id"]: row for row in self.tables["edits"].to_pylist() if row["arm"] == "edit"}
        self._cues = {row["cue_id"]: row for row in self.tables["cues"].to_pylist()}
        self._encoder = self.context.fingerprints.get("encoder", "")
        self._known = kept.merge(kept.read(folder.file("verdicts")), kept.read(self.context.verdicts))
        self._read = self._stamp()
        self._writing = threading.Lock()  # guards what is known, and who may write into the folder
        self._heeding = self._pending = self._closed = False
        self.trouble: list[str] = []  # what couldn't be written anew
        self._due = threading.Event()
        self.picture = functools.lru_cache(maxsize=256)(self._picture)
        self._thread = threading.Thread(target=self._heed, name="heed verdicts", daemon=True)
        self._thread.start()

    def page(self) -> str:
        """The page with the findings as they are now."""
        findings = self.folder.read("findings")
        changes = self.folder.read("changes")
        tables = self.tables | {"findings": findings, "changes": changes}
        return render_report(assemble(self.folder.run(), tables, Served(self.beside.regions), self.beside), review=True)

    def _picture(self, kind: str, name: str, arm: str = "") -> bytes | None:
        """A picture of the page as WebP; None where there is no such one, or it can't be read now."""
        try:
            if kind == "image":
                return webp(self._load(name))
            if kind == "edit" and arm in ("edit", "placebo"):
                return webp(self._redo(self._edits[name])[arm == "placebo"])
            if kind == "regions":
                sheet = montage(self.beside.regions[name], self._load)
                return None if sheet is None else webp(sheet)
        except (KeyError, UserError, UnreadableImage):
            pass
        return None

    def state(self) -> dict[str, Any]:
        """What people say: by finding_id the verdict of all and each one's own, and of pictures; as plain data."""
        mine = self._mine()
        everyone = opinions(mine)
        by_finding: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in mine:
            by_finding.setdefault((row["class"], row["name"]), []).append(row)
        found = {}
        for row in self._findings():
            key = row["class"], name_of(self._cues[row["cue_id"]])
            rows = by_finding.get(key, [])
            if not rows:
                continue
            opinion = everyone.get(key)
            found[row["finding_id"]] = {
                "verdict": opinion.verdict if opinion else "",
                "people": [
                    {name: one[name] for name in ("annotator", "verdict", "note", "called")}
                    for one in rows
                    if not one["image_id"] and (one["verdict"] or one["note"] or one["called"])
                ],
                "pictures": [
                    {name: one[name] for name in ("annotator", "image_id", "present")}
                    for one in rows
                    if one["image_id"] and one["present"] is not None
                ],
            }
        return {"findings": found, "pending": self._pending, "order": self._order(), "trouble": self.trouble}

    def say(self, said: Said) -> None:
        """Keep what a reviewer says.

        Raises:
            UserError: the audit holds no such finding or picture, or it can't be written.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        answers = [Answer(said.finding, annotator=said.who, given=now, image=said.image, present=said.present)]
        if not said.image:
            answers = [_answer(said.finding, said.who, now, said.verdict, said.note, said.called)]
        if said.same_as:
            answers = self._merged(said, now)
        found = Found(answers)
        rows = placed(self.folder, found, "review")
        if found.unusable:
            raise UserError(f"Not kept: {found.unusable[0]}.")
        with self._writing:
            self._known = keep(self.context, table("verdicts", rows))
            self._read = self._stamp()
            # while another run writes there, it waits for that in the data set's file alone
            with contextlib.suppress(Busy), contextlib.nullcontext() if self._heeding else locked(self.folder):
                self.folder.write("verdicts", self._known)
            self._pending = True
        self._due.set()

    def close(self) -> list[str]:
        """Let the findings heed what was said last; returns what couldn't be written, a line each."""
        self._closed = True
        self._due.set()
        self._thread.join()
        return self.trouble

    def _merged(self, said: Said, now: str) -> list[Answer]:
        """Both cues by one name, that of the other: by it they are known for one, in later audits too."""
        rows = {row["finding_id"]: row for row in self._findings()}
        other, this = rows.get(said.same_as), rows.get(said.finding)
        if other is None or this is None or other["class"] != this["class"] or other is this:
            raise UserError("Merge a cue with another one of its class.")
        mine = self._mine()
        key = name_of(self._cues[other["cue_id"]])
        name = called(mine).get(key) or other["cue"]
        about = other["class"], key, said.who, ""
        own = [row for row in mine if (row["class"], row["name"], row["annotator"], row["image_id"]) == about]
        before = own[-1] if own else {"verdict": "", "note": ""}
        return [
            _answer(said.finding, said.who, now, said.verdict, said.note, name),
            _answer(said.same_as, said.who, now, before["verdict"], before["note"], name),
        ]

    def _findings(self) -> list[dict[str, Any]]:
        return _rows_of(self.folder, self._order())

    def _mine(self) -> list[dict[str, Any]]:
        """What is said of this audit's cues, also by reviewers at other desks."""
        with self._writing:
            if self._stamp() != self._read:
                self._read = self._stamp()
                self._known = kept.merge(self._known, kept.read(self.context.verdicts))
            known = self._known
        return known_again(known, self.tables["clusters"], self._encoder)[0]

    def _stamp(self) -> str:
        """Changes when the file of verdicts does."""
        return stamp(self.context.verdicts)

    def _order(self) -> str:
        """Changes when the findings do."""
        return stamp(self.folder.file("findings"))

    def _heed(self) -> None:
        """Order the findings anew after verdicts, when none has come for a while."""
        while True:
            self._due.wait()
            while not self._closed:
                self._due.clear()
                if not self._due.wait(QUIET):
                    break
            self._due.clear()
            if self._pending and not self._heed_once() and not self._closed:
                self._due.wait(AGAIN)
                self._due.set()
            if self._closed:
                return

    def _heed_once(self) -> bool:
        """Whether it could be done: not while another run holds the folder."""
        with contextlib.ExitStack() as held:
            with self._writing:
                try:
                    held.enter_context(locked(self.folder))
                    self.folder.write("verdicts", self._known)
                except UserError as error:
                    self.trouble = [f"The findings are as they were before: {error}"]
                    return False
                self._heeding, self._pending = True, False
            try:
                self.trouble = heed(self.context)
            except UserError as error:
                self.trouble = [f"The findings are as they were before: {error}"]
            except Exception as error:  # a fault of ours must not end the thread: verdicts are kept all the same
                logging.getLogger(__name__).exception("verdicts could not be heeded")
                self.trouble = [f"The findings are as they were before, by a fault of Cuescope: {error!r}"]
            finally:
                with self._writing:
                    self._heeding = False
                    held.close()
        return True


def _answer(finding: str, who: str, given: str, verdict: str, note: str, name: str) -> Answer:
    return Answer(finding, annotator=who, given=given, verdict=verdict, note=note, called=name)


@functools.lru_cache(maxsize=2)
def _rows_of(folder: AuditFolder, order: str) -> list[dict[str, Any]]:
    return folder.read("findings").select(["finding_id", "class", "cue_id", "cue"]).to_pylist()


class Served:
    """Pictures by their address at the server, relative to the page's."""

    full = False

    def __init__(self, regions: Mapping[str, Sequence[Region]]) -> None:
        self._regions = regions

    def thumb(self, image_id: str) -> str:
        """See report.assemble.Gallery."""
        return f"image/{quote(image_id, safe='')}"

    def edit(self, edit: dict[str, Any]) -> tuple[str, str]:
        """See report.assemble.Gallery."""
        pair = quote(edit["pair_id"], safe="")
        return f"edit/{pair}/edit", f"edit/{pair}/placebo"

    def montage(self, cue_id: str, regions: Sequence[Region]) -> str:
        """See report.assemble.Gallery."""
        return f"regions/{quote(cue_id, safe='')}"


def webp(picture: RGB) -> bytes:
    """A picture, written anew: nothing of a file of anybody's is handed on as it is."""
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, method=3)
    return buffer.getvalue()
