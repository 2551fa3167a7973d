"""What a model under test says: which class it is (a classifier), or Yes or No of each class (a multimodal LLM).

Perception accuracy and hallucination rate (SpurLens, arXiv 2503.08884) are about one (image, asked class); a classifier
answers Yes for the class that it predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.models.protocols import Answers, Floats, YesNoModel
from pipeline.records import SCHEMAS, matrix


def says_yes_or_no(model: Any) -> bool:
    """Whether the model is asked about each class, so that its classes don't exclude each other."""
    return isinstance(model, YesNoModel)


def scores_of(logits: Floats, yes_no: bool) -> Floats:
    """(n, classes) probabilities: of Yes for each class, or that add up to 1."""
    if yes_no:
        return np.asarray(expit(logits), dtype=np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def surest(logits: Floats, classes: Sequence[str]) -> list[str]:
    """The class of the largest logit of each row; empty where nothing was answered."""
    known = np.isfinite(logits)
    best = np.where(known, logits, -np.inf).argmax(axis=1)
    return [classes[c] if row.any() else "" for c, row in zip(best.tolist(), known, strict=True)]


def margin(logits: NDArray, target: int, yes_no: bool) -> float:
    """How far an image is from another answer about a class, in logits: above 0 the answer is Yes."""
    if yes_no:
        return float(logits[target])
    return float(logits[target] - np.delete(logits, target).max())


def affirmed(predictions: pa.Table, classes: Sequence[str], yes_no: bool) -> Floats:
    """(n, classes): 1 where the model says Yes, 0 where it says No, NaN where it wasn't asked."""
    if yes_no:
        logits = matrix(predictions["logits"])
        return np.where(np.isnan(logits), np.nan, logits > 0).astype(np.float32)
    predicted = np.array(predictions["predicted"].to_pylist(), dtype=object)
    return (predicted[:, None] == np.array(classes, dtype=object)[None, :]).astype(np.float32)


def answer_rows(image_ids: Sequence[str], classes: Sequence[str], found: Answers) -> pa.Table:
    """`answers`: one row a question that was asked."""
    n, c, p = np.nonzero(found.asked)
    return pa.table(
        {
            "image_id": [image_ids[i] for i in n.tolist()],
            "label": [classes[i] for i in c.tolist()],
            "prompt": [found.prompts[i] for i in p.tolist()],
            "yes": found.yes[n, c, p].astype(np.float64),
            "answer": found.texts[n, c, p].tolist(),
        },
        schema=SCHEMAS["answers"],
    )


def probabilities(
    answers: pa.Table, image_ids: Sequence[str], classes: Sequence[str], prompts: Sequence[str]
) -> tuple[Floats, NDArray[np.bool_]]:
    """From rows of `answers`: (prompts, images, classes), the probability of Yes, NaN where the words say neither or
    nothing was asked; and what was asked."""
    at = [{name: number for number, name in enumerate(names)} for names in (prompts, image_ids, classes)]
    yes = np.full((len(prompts), len(image_ids), len(classes)), np.nan, dtype=np.float32)
    place = tuple(
        np.array([known[name] for name in answers[column].to_pylist()], dtype=np.int64)
        for known, column in zip(at, ("prompt", "image_id", "label"), strict=True)
    )
    yes[place] = answers["yes"].to_numpy()
    asked = np.zeros(yes.shape, dtype=bool)
    asked[place] = True
    return yes, asked


def by_prompt(
    answers: pa.Table, image_ids: Sequence[str], classes: Sequence[str], prompts: Sequence[str]
) -> tuple[Floats, NDArray[np.bool_]]:
    """From rows of `answers`: (prompts, images, classes), 1 for Yes, 0 for No or neither, NaN where nothing was asked;
    and where the words said neither."""
    yes, asked = probabilities(answers, image_ids, classes, prompts)
    return np.where(asked, yes > 0.5, np.nan).astype(np.float32), asked & np.isnan(yes)
