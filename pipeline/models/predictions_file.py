"""A model under test that is known by its answers alone: a file of predictions. It can't be shown an edited image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import UserError, nearest
from pipeline.models import fingerprints, recorded_rows
from pipeline.models.protocols import Floats

LEAST = 1e-12  # a score of 0 has no logarithm
KEYS = ("image_id", "path")


def predictions_file(
    classes: tuple[str, ...],
    device: str,
    *,
    path: str,
    key: Literal["path", "image_id", "auto"] = "auto",
    prefix: str = "",
    labels: list[str] = [],  # noqa: B006
) -> PredictionsFile:
    """Predictions from a CSV, JSONL or Parquet file, a row an image.

    Columns: `path` (as in the data source) or `image_id` (as in an audit's images.parquet), and at least one of
    `predicted` (a label), `scores` (probabilities) and `logits`. Scores and logits are a mapping of labels to numbers,
    a list in the order of `labels`, or, one a column, `scores.LABEL` and `logits.LABEL`; in a CSV cell the former two
    are JSON. A label alone counts as a score of 1. Labels are the data's own, not their words.

    Args:
        classes: not used, for the labels of the data are asked for with each answer.
        device: not used.
        path: the file; `.csv`, `.jsonl` (or `.ndjson`) or `.parquet`.
        key: the column that says which image it is; auto: `image_id` where there is one.
        prefix: what the file's paths have in front of those of the data source.
        labels: the labels of a list of scores or logits in order; without it, those of the audit in its order.

    Raises:
        UserError: there is no such file, or one of another kind.
    """
    return PredictionsFile(recorded_rows.check_file(path, "predictions"), key, prefix, tuple(labels))


class PredictionsFile:
    """See :func:`predictions_file`."""

    def __init__(self, path: Path, key: str, prefix: str, labels: tuple[str, ...]) -> None:
        self._path, self._wanted, self._prefix, self._labels = path, key, prefix, labels
        options = {"content": fingerprints.of_path(path), "key": key, "prefix": prefix, "labels": labels}
        self.fingerprint = fingerprints.of_options("predictions_file/1", options)

    def recorded(self, image_ids: Sequence[str], paths: Sequence[str], classes: Sequence[str]) -> Floats:
        """(n, classes) logits of these images; scores are turned into logits by their logarithm.

        Raises:
            UserError: an image without a row, an unknown label, a wrong number of scores, a column that is missing.
        """
        rows = self._rows
        wanted = image_ids if self._key == "image_id" else [_tidy(path) for path in paths]
        missing = [path for path, name in zip(paths, wanted, strict=True) if name not in rows]
        if missing:
            known = f" It has rows such as '{next(iter(rows))}'." if rows else ""
            raise UserError(
                f"model: {self._path}, of {len(rows)} rows, has no prediction for {missing[0]}"
                + (f" and {len(missing) - 1} more of the {len(paths)} images asked for." if missing[1:] else ".")
                + f" Images are looked up by {self._key}.{known} Add the rows, or leave the images out of the data."
            )
        order = {label: number for number, label in enumerate(classes)}
        found = [self._logits(*rows[name], order) for name in wanted]
        return np.array(found, dtype=np.float32).reshape(len(wanted), len(order))

    def _logits(self, number: int, row: dict[str, Any], order: dict[str, int]) -> Floats:
        """One row as logits of the classes in `order`."""
        where = f"model: {self._path}, row {number}"
        logits = self._vector(where, row, "logits", order)
        scores = self._vector(where, row, "scores", order)
        label = row.get("predicted")
        if label in (None, "") and logits is None and scores is None:
            raise UserError(f"{where} has neither a predicted label nor scores nor logits.")
        if logits is None and scores is not None:
            if scores.min() < 0 or scores.max() > 1:
                raise UserError(f"{where}: scores lie in 0 to 1. Write other numbers as logits.")
            logits = np.log(np.maximum(scores, LEAST))
        if label not in (None, ""):
            _check_labels(where, [str(label)], order)
            mine = order[str(label)]
            if logits is None:
                logits = np.full(len(order), np.log(LEAST))
                logits[mine] = 0.0
            if logits[mine] < logits.max():
                best = list(order)[int(logits.argmax())]
                raise UserError(
                    f"{where}: predicted is '{label}', but the highest score is that of '{best}'. If the scores are "
                    "lists, give the order of their labels in the option 'labels'; or leave one of the two out."
                )
            logits[mine] += 1e-4 * (np.sum(logits == logits[mine]) > 1)  # of equals, the one predicted
        assert logits is not None
        return logits

    def _vector(self, where: str, row: dict[str, Any], name: str, order: dict[str, int]) -> Floats | None:
        """The scores or logits of a row over the classes, or None where it has none."""
        value = row.get(name)
        if isinstance(value, str) and value:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise UserError(f"{where}: {name} is neither a JSON list nor a JSON mapping: {value[:60]}") from None
        if value is None or value == "":
            value = {k[len(name) + 1 :]: v for k, v in row.items() if k.startswith(f"{name}.") and v not in (None, "")}
            if not value:
                return None
        if isinstance(value, dict):
            value = {str(label): number for label, number in value.items() if number is not None}
        elif isinstance(value, list | tuple | np.ndarray):
            labels = self._labels or tuple(order)
            if len(value) != len(labels):
                whose = "the option 'labels'" if self._labels else "the audit's classes"
                raise UserError(f"{where}: {len(value)} {name}, but {whose} are {len(labels)}.")
            value = dict(zip(labels, value, strict=True))
        else:
            raise UserError(f"{where}: {name} must be a list or a mapping of labels to numbers.")
        _check_labels(where, value, order)
        lacking = [label for label in order if label not in value]
        if lacking:
            raise UserError(f"{where}: {name} for {len(value)} of {len(order)} classes; '{lacking[0]}' has none.")
        try:
            numbers = np.array([float(value[label]) for label in order])
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if not np.isfinite(numbers).all():
            raise UserError(f"{where}: {name} must be finite numbers.")
        return numbers

    @cached_property
    def _read(self) -> list[dict[str, Any]]:
        return recorded_rows.read(self._path, "predictions")

    @cached_property
    def _key(self) -> str:
        columns = {str(name) for row in self._read[:100] for name in row}
        key = next((name for name in KEYS if name in columns), "") if self._wanted == "auto" else self._wanted
        if key not in columns:
            want = f"'{self._wanted}'" if key else "'path' or 'image_id'"
            raise UserError(f"model: {self._path} has no column {want}. {nearest(key or 'path', columns)}")
        if not any(name.partition(".")[0] in ("predicted", "scores", "logits") for name in columns):
            hint = nearest("predicted", columns)
            raise UserError(f"model: {self._path} has no column 'predicted', 'scores' or 'logits'. {hint}")
        return key

    @cached_property
    def _rows(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Number (from 1) and content of each image's row."""
        rows: dict[str, tuple[int, dict[str, Any]]] = {}
        for number, row in enumerate(self._read, start=1):
            name = str(row.get(self._key) or "")
            if self._key == "path":
                name = _tidy(name).removeprefix(_tidy(self._prefix)).lstrip("/") if self._prefix else _tidy(name)
            if not name:
                raise UserError(f"model: {self._path}, row {number} has no {self._key}.")
            if name in rows:
                raise UserError(f"model: {self._path} has two rows for {name}: {rows[name][0]} and {number}.")
            rows[name] = (number, row)
        return rows


def _tidy(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def _check_labels(where: str, labels: Iterable[str], known: Iterable[str]) -> None:
    for label in labels:
        if label not in known:
            hint = f"{nearest(label, known)} Write labels as the data do."
            raise UserError(f"{where}: the label '{label}' is none of the audit's classes. {hint}")
