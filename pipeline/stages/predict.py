"""predict: the model under test on each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.errors import BudgetReached, UserError
from pipeline.evidence.answers import answer_rows, scores_of, surest
from pipeline.images import RGB
from pipeline.models.protocols import Answers, Classifier, Floats, RecordedAnswers, YesNoModel
from pipeline.models.questions import log_odds
from pipeline.records import SCHEMAS, table
from pipeline.store import Parts, key_of, whole

VERSION = 2


def computation(images: Parts, *, classes: Sequence[str], model: Classifier | RecordedAnswers) -> tuple:
    """What a prediction depends on beside the image; a recorded one also on where the image lies."""
    if isinstance(model, RecordedAnswers):
        named = whole(images, ["image_id", "path"])
        where = key_of(named["image_id"].to_pylist(), named["path"].to_pylist())
        return (VERSION, list(classes), model.fingerprint, where)
    return (VERSION, list(classes), model.fingerprint)


def predict(
    images: pa.Table,
    *,
    classes: Sequence[str],
    model: Classifier | RecordedAnswers,
    load: Callable[[pa.Table], list[RGB]],
) -> dict[str, pa.Table]:
    """Logits, scores and the surest class of each image; of a multimodal LLM also every answer.

    Raises:
        UserError: a budget doesn't reach for all images; what was answered is kept. There is no partial table: images
            come class by class, and every later number would be of those classes alone that were reached.
    """
    ids = images["image_id"].to_pylist()
    found = _found(images, classes, model, load)
    yes_no = isinstance(model, YesNoModel)
    answers = table("answers", [])
    if isinstance(model, YesNoModel) and isinstance(found, Answers):
        logits, answers = log_odds(found, model.counts), answer_rows(ids, classes, found)
    else:
        logits = np.asarray(found, dtype=np.float32)
    rows = {
        "image_id": ids,
        "predicted": surest(logits, classes),
        "logits": list(logits),
        "scores": list(scores_of(logits, yes_no)),
    }
    return {"predictions": pa.table(rows, schema=SCHEMAS["predictions"]), "answers": answers}


def _found(
    images: pa.Table,
    classes: Sequence[str],
    model: Classifier | RecordedAnswers | YesNoModel,
    load: Callable[[pa.Table], list[RGB]],
) -> Floats | Answers:
    if isinstance(model, RecordedAnswers):
        return model.recorded(images["image_id"].to_pylist(), images["path"].to_pylist(), classes)
    try:
        return model.answers(load(images)) if isinstance(model, YesNoModel) else model.logits(load(images))
    except BudgetReached as reached:
        raise UserError(
            f"model: {reached}. What is answered is kept: raise 'model.budget' and run the same command again, "
            "or choose fewer 'classes'."
        ) from None
