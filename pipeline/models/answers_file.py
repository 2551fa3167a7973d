"""A model under test that is a file of its answers: image, class, prompt, answer."""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.errors import UserError, nearest
from pipeline.images import RGB
from pipeline.metrics.spurlens import parse_answer
from pipeline.models import recorded_rows
from pipeline.models.fingerprints import of_options, of_path
from pipeline.models.protocols import Answers, Floats
from pipeline.models.questions import log_odds

COLUMNS = ("image", "class", "answer")
SHOWN = 3


def answers_file(classes: tuple[str, ...], device: str, *, path: str) -> AnswersFile:
    """Answers that were given elsewhere, measured as those of a model: gaps, but no effects of edits.

    Args:
        classes: the words of each class.
        device: unused.
        path: a CSV, JSONL or Parquet file with the columns image (its path in the data, or its name where that is
            unique), class, answer (words, or a probability of Yes) and, where there are several, prompt. A class that
            an image has no row for was not asked; an image without any row is a mistake.

    Raises:
        UserError: no such file, or not of this form.
    """
    return AnswersFile(tuple(classes), recorded_rows.check_file(path, "answers"))


class AnswersFile:
    """See `answers_file`."""

    def __init__(self, classes: tuple[str, ...], file: Path) -> None:
        self.classes, self.file = classes, file
        self.fingerprint = of_options("answers_file/1", {"content": of_path(file), "classes": classes})

    @cached_property
    def _rows(self) -> dict[str, list[tuple[int, str, Any]]]:
        """Image to (class, prompt, answer)."""
        known = {_plain(name): number for number, name in enumerate(self.classes)}
        found: dict[str, list[tuple[int, str, Any]]] = collections.defaultdict(list)
        seen: set[tuple[str, int, str]] = set()
        for line, row in enumerate(recorded_rows.read(self.file, "answers"), start=1):
            where = f"model: {self.file}, row {line}"
            missing = [name for name in COLUMNS if name not in row]
            if missing:
                raise UserError(f"{where} lacks '{missing[0]}': expected image, class, answer, prompt.")
            name = _plain(str(row["class"]))
            if name not in known:
                hint = nearest(str(row["class"]), self.classes)
                raise UserError(f"{where}: there is no class '{row['class']}' in the data. {hint}")
            image, prompt = str(row["image"]).replace("\\", "/").removeprefix("./"), str(row.get("prompt") or "")
            if (image, known[name], prompt) in seen:
                raise UserError(f"{where}: a second answer about '{image}', '{row['class']}'.")
            seen.add((image, known[name], prompt))
            found[image].append((known[name], prompt, row["answer"]))
        return found

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The names of the prompts, in order."""
        return tuple(dict.fromkeys(prompt for rows in self._rows.values() for _, prompt, _ in rows))

    @property
    def counts(self) -> tuple[bool, ...]:
        """All of them."""
        return (True,) * len(self.prompts)

    def recorded(self, image_ids: Sequence[str], paths: Sequence[str], classes: Sequence[str]) -> Answers:
        """The answers about the images at these paths, relative to the data.

        Raises:
            UserError: the file speaks of none of them, or not of all.
        """
        shape = (len(paths), len(self.classes), len(self.prompts))
        yes, texts = np.full(shape, np.nan, np.float32), np.full(shape, None, dtype=object)
        at = {prompt: number for number, prompt in enumerate(self.prompts)}
        for number, path in enumerate(paths):
            known = path if path in self._rows else PurePosixPath(path).name
            for c, prompt, answer in self._rows.get(known, []):
                yes[number, c, at[prompt]], texts[number, c, at[prompt]] = _of(answer, self.file), str(answer)
        silent = [path for path, row in zip(paths, texts, strict=True) if all(text is None for text in row.flat)]
        if silent and len(silent) == len(paths):
            theirs, ours = ", ".join(list(self._rows)[:SHOWN]), ", ".join(paths[:SHOWN])
            raise UserError(
                f"model: {self.file} names none of these images: {ours}, ... It names: {theirs}, ... "
                "Write paths as the data do."
            )
        if silent:
            raise UserError(
                f"model: {self.file}, of {len(self._rows)} images, has no answer about {silent[0]}"
                + (f" and {len(silent) - 1} more of the {len(paths)} images asked for." if silent[1:] else ".")
                + " Add a row for each, or leave the images out of the data."
            )
        return Answers(yes, texts, self.prompts)

    def answers(
        self, images: Sequence[RGB | None], every: bool = True, about: Sequence[Collection[int]] | None = None
    ) -> Answers:
        """None: a record can't be asked."""
        shape = (len(images), len(self.classes), len(self.prompts))
        return Answers(np.full(shape, np.nan, np.float32), np.full(shape, None, dtype=object), self.prompts)

    def logits(self, images: Sequence[RGB]) -> Floats:
        """NaN, for the same reason."""
        return log_odds(self.answers(images), self.counts)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())


def _of(answer: Any, file: Path) -> float:
    try:
        value = float(answer)
    except (TypeError, ValueError):
        return {"yes": 1.0, "no": 0.0}.get(parse_answer(str(answer)), float("nan"))
    if not 0 <= value <= 1:
        raise UserError(f"model: {file}: the answer {answer} is no probability: expected 0 to 1, or words.")
    return value
