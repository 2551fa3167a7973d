"""A detector's calibration by what an audit knows without any box: which images show its own classes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from pipeline.config import Audit
from pipeline.errors import UserError
from pipeline.evidence.presence import best_scores
from pipeline.models import registry
from pipeline.models.annotations import other_labels
from pipeline.models.calibration import Table, check, fit, raw
from pipeline.records import of_half
from pipeline.store import AuditFolder, batches


def fitted(folder: AuditFolder) -> Table:
    """The table that makes a score of this audit's detector the probability that the thing is there, at even odds.

    The detector was asked for every class's own words in every image; an image of the class shows it, an image of
    another is taken not to. Only the selection half counts, so that no reported number has seen its calibration. What
    holds for the classes' names is carried over to the cues'.

    Raises:
        UserError: the audit has no detector or no detections, or see pipeline/models/calibration.py.
    """
    run = folder.run()
    audit = Audit.from_dict({**run["audit"], "classes": run["classes"]})
    if audit.detect is None or not folder.has("detections"):
        raise UserError(f"calibrate: {folder.path} has no detections. Run an audit with a section 'detect' first.")
    images = folder.read("images")
    index = {image_id: number for number, image_id in enumerate(images["image_id"].to_pylist())}
    words = sorted({audit.words(name) for name in audit.classes})
    parts = batches(folder.rows("detections"), ["image_id", "phrase", "score"])
    best = dict(zip(words, best_scores(parts, index, words, Path(tempfile.gettempdir())).T, strict=True))
    labels = np.array(images["label"].to_pylist(), dtype=object)
    seen = of_half(images, "selection")
    seen |= audit.no_split
    scores = np.concatenate([best[audit.words(name)][seen] for name in audit.classes])
    others = other_labels(folder.read("annotations"))
    too = [others.get(image_id, frozenset()) for image_id in index]
    shows = {name: (labels == name) | np.array([name in also for also in too]) for name in audit.classes}
    present = np.concatenate([shows[name][seen] for name in audit.classes])
    options = registry.check_options("detect", audit.detect.kind, audit.detect.options)
    return fit(raw(scores, check(options.get("calibration", ()))), present)
