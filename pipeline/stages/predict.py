"""predict: the model under test on each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.errors import BudgetReached, UserError
from pipeline.evidence.answers import answer_rows, scores_of, surest
from pipeline.images import RGB
from pipeline.models.protocols import Answers, Classifier, Recorded, YesNoModel
from pipeline.models.questions import log_odds
from pipeline.records import SCHEMAS, table

VERSION = 2


def computation(*, classes: Sequence[str], model: Classifier) -> tuple:
    """What a prediction depends on beside the image."""
    return (VERSION, list(classes), model.fingerprint)


def predict(
    images: pa.Table, *, classes: Sequence[str], model: Classifier, load: Callable[[pa.Table], list[RGB]]
) -> dict[str, pa.Table]:
    """Logits, scores and the surest class of each image; of a multimodal LLM also every answer.

    Raises:
        UserError: a budget doesn't reach for all images; what was answered is kept.
    """
    ids = images["image_id"].to_pylist()
    answers = table("answers", [])
    yes_no = isinstance(model, YesNoModel)
    if isinstance(model, YesNoModel):
        found = _answers(model, images, load)
        logits, answers = log_odds(found, model.counts), answer_rows(ids, classes, found)
    else:
        logits = np.asarray(model.logits(load(images)), dtype=np.float32)
    rows = {
        "image_id": ids,
        "predicted": surest(logits, classes),
        "logits": list(logits),
        "scores": list(scores_of(logits, yes_no)),
    }
    return {"predictions": pa.table(rows, schema=SCHEMAS["predictions"]), "answers": answers}


def _answers(model: YesNoModel, images: pa.Table, load: Callable[[pa.Table], list[RGB]]) -> Answers:
    if isinstance(model, Recorded):
        return model.recorded(images["path"].to_pylist())
    try:
        return model.answers(load(images))
    except BudgetReached as reached:
        raise UserError(
            f"model: {reached}. What is answered is kept: raise 'model.budget' and run the same command again, "
            "or choose fewer 'classes'."
        ) from None
