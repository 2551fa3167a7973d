"""predict: the model under test on each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.images import RGB
from pipeline.models.protocols import Classifier, Floats, RecordedAnswers
from pipeline.records import SCHEMAS
from pipeline.store import key_of

VERSION = 1


def computation(images: pa.Table, *, classes: Sequence[str], model: Classifier | RecordedAnswers) -> tuple:
    """What a prediction depends on beside the image; a recorded one also on where the image lies."""
    if isinstance(model, RecordedAnswers):
        where = key_of(images["image_id"].to_pylist(), images["path"].to_pylist())
        return (VERSION, list(classes), model.fingerprint, where)
    return (VERSION, list(classes), model.fingerprint)


def predict(
    images: pa.Table,
    *,
    classes: Sequence[str],
    model: Classifier | RecordedAnswers,
    load: Callable[[pa.Table], list[RGB]],
) -> dict[str, pa.Table]:
    """Logits, softmax scores and the predicted class of each image."""
    if isinstance(model, RecordedAnswers):
        answers = model.recorded(images["image_id"].to_pylist(), images["path"].to_pylist(), classes)
    else:
        answers = model.logits(load(images))
    logits = np.asarray(answers, dtype=np.float32)
    return {
        "predictions": pa.table(
            {
                "image_id": images["image_id"],
                "predicted": [classes[i] for i in logits.argmax(axis=1)],
                "logits": list(logits),
                "scores": list(softmax(logits)),
            },
            schema=SCHEMAS["predictions"],
        )
    }


def softmax(logits: Floats) -> Floats:
    """Row by row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
