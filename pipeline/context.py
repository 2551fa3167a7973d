"""What a stage may ask for beside its tables. A stage names its needs as keyword arguments; this supplies them.

Back ends are made once a process and shared by every audit in it; making one reads no weights.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from pipeline.config import Audit
from pipeline.errors import UserError, plain
from pipeline.images import DECODERS, RGB, UnreadableImage, decode
from pipeline.models import registry
from pipeline.models.ledger import Ledger
from pipeline.places import Place, place
from pipeline.records import SchemaError
from pipeline.store import AuditFolder
from pipeline.verdicts import kept

Progress = Callable[[str, int, int], None]


@functools.lru_cache(maxsize=16)
def _back_end(seam: str, kind: str, options: str, *supplied: Any, **further: Any) -> Any:
    """A back end of this process; `options` is JSON so that it can be a key."""
    checked = registry.check_options(seam, kind, json.loads(options))
    return registry.factory(seam, kind)(*supplied, **further, **checked)


class Context:
    """One audit's folder, configuration, back ends and counters in one process."""

    def __init__(self, audit: Audit, folder: AuditFolder, progress: Progress | None = None) -> None:
        self.audit = audit
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.skipped: list[dict[str, str]] = []
        self.postponed: set[str] = set()
        self.stage = ""
        self._pictures: dict[str, RGB] | None = None
        self._progress = progress or (lambda stage, done, total: None)

    def count(self, what: str, number: int) -> None:
        """Add to a counter of run.json: model forwards, calls, tokens."""
        self.counts[what] += number

    def skip(self, what: str, why: str) -> None:
        """Say in run.json that something was left out."""
        self.skipped.append({"what": what, "why": why})

    def postpone(self, image_ids: Iterable[str]) -> None:
        """Say that these images have no result of this stage yet: a later run tries them again."""
        self.postponed.update(image_ids)

    def progress(self, done: int, total: int) -> None:
        """Tell how far the current stage is."""
        self._progress(self.stage, done, total)

    @property
    def cache(self) -> Place:
        """The feature cache: beside the audit's folder unless configured."""
        return place(self.audit.cache) if self.audit.cache else self.folder.path.resolve().parent / ".cuescope"

    @property
    def verdicts(self) -> Place:
        """The file of labelers' verdicts on this data set: see pipeline/verdicts/kept.py."""
        if self.audit.verdicts:
            return place(self.audit.verdicts)
        return kept.file_of(self.folder.path.resolve().parent, self.audit.data.kind, self.audit.data.options)

    @property
    def fingerprints(self) -> dict[str, str]:
        """What run.json says of the back ends: model, captioner, proposer, detector, encoder to a fingerprint."""
        return dict(self.folder.run()["fingerprints"])

    @property
    def ledger(self) -> Ledger:
        """The log of calls of paid services, of this run of the audit."""
        begun = self.folder.run().get("run", "") if (self.folder.path / "run.json").is_file() else ""
        return Ledger(self.folder.path / "llm.jsonl", begun)

    @functools.cached_property
    def before(self) -> pa.Table | None:
        """`images` of the audit that this one goes on from and is compared with, or None."""
        previous = self.folder.run().get("previous") if (self.folder.path / "run.json").is_file() else None
        try:
            return AuditFolder(previous).read("images") if previous else None
        except (UserError, SchemaError):  # removed or of another version since: this audit then stands alone
            return None

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of the audit, in order."""
        if self.audit.classes:
            return tuple(self.audit.classes)
        return tuple(sorted(set(self.folder.read("images")["label"].to_pylist())))

    @functools.cached_property
    def source(self) -> Any:
        """The data source, made once: it may have read a list of its images."""
        chosen = self.audit.data
        return registry.factory("source", chosen.kind)(**registry.check_options("source", chosen.kind, chosen.options))

    def _chosen(self, section: str, *supplied: Any) -> Any:
        chosen = getattr(self.audit, section)
        if chosen is None:
            return None
        further = {name: getattr(self, name) for name in registry.further(section, chosen.kind)}
        return _back_end(section, chosen.kind, json.dumps(chosen.options, sort_keys=True), *supplied, **further)

    @property
    def model(self) -> Any:
        """The model under test."""
        return self._chosen("model", tuple(self.audit.words(name) for name in self.classes), self.audit.device)

    @property
    def captioner(self) -> Any:
        """What puts images into words, or None."""
        return self._chosen("caption", self.audit.device)

    @property
    def proposer(self) -> Any:
        """What lists candidate cues, or None."""
        return self._chosen("propose", self.audit.seed)

    @property
    def detector(self) -> Any:
        """What finds things, or None."""
        return self._chosen("detect", self.audit.device)

    @property
    def encoder(self) -> Any:
        """What embeds regions, or None."""
        return self._chosen("embed", self.audit.device)

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[None]:
        """Until the block ends every picture that is read is held, so that it is read and decoded once."""
        self._pictures = {}
        try:
            yield
        finally:
            self._pictures = None

    @property
    def load(self) -> Callable[[pa.Table], list[RGB]]:
        """Reads the pictures of some rows of `images`, on a few threads, in order."""
        source = self.source

        def read(path: str) -> RGB:
            try:
                return decode(source.read(path))
            except (OSError, ValueError, UnreadableImage) as error:
                raise UserError(
                    f"data: {path} could be read at ingest and can't be now ({plain(str(error))}). "
                    "The data set changed during the audit: run it again."
                ) from None

        def load(images: pa.Table) -> list[RGB]:
            paths = images["path"].to_pylist()
            held = {} if self._pictures is None else self._pictures
            missing = [path for path in dict.fromkeys(paths) if path not in held]
            if len(missing) > 1:
                with ThreadPoolExecutor(DECODERS) as pool:
                    held.update(zip(missing, pool.map(read, missing), strict=True))
            elif missing:  # as the report asks, hundreds of times
                held[missing[0]] = read(missing[0])
            return [held[path] for path in paths]

        return load
