"""Perception accuracy and hallucination rate of a multimodal LLM, by cue and by prompt, and what it says of nothing
(SpurLens, arXiv 2503.08884)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.errors import BudgetReached, UserError
from pipeline.evidence.presence import Cues
from pipeline.images import RGB
from pipeline.metrics import spurlens
from pipeline.metrics.intervals import wilson
from pipeline.models.protocols import Floats, RecordedAnswers, YesNoModel

Reals = NDArray[np.float64]

BLANK_SIDE = 224
TOGETHER = "all that count"


def answered_top_k_gaps(
    cues: Cues, half: NDArray[np.bool_], labels: NDArray, yes: Floats, audit: Audit
) -> dict[str, Reals]:
    """`top_k_gaps` of a multimodal LLM: `yes` (prompts, images, classes), averaged over the prompts last."""
    scores, y, said = cues.scores[half], labels[half], yes[:, half]
    k, n_cues, n_classes = audit.measure.top_k, len(cues.rows), yes.shape[2]
    finite = np.nan_to_num(scores, neginf=-1.0, nan=-1.0)
    pa, hr = spurlens.answered_gaps(finite, y, said, np.random.default_rng([audit.seed, 23]), k)
    null = {name: np.full((n_classes, n_cues), np.nan) for name in ("null_pa_gap_top_k", "null_hr_gap_top_k")}
    for c in range(n_classes):
        rng = np.random.default_rng([audit.seed, 29, c])
        for name, members in (("null_pa_gap_top_k", y == c), ("null_hr_gap_top_k", y != c)):
            if n_cues and members.sum() >= 2:
                null[name][c] = spurlens.matched_null(said[:, members, c], n_cues, rng, k).expected
    return {"pa_gap_top_k": pa, "hr_gap_top_k": hr, **null}


def blank_pictures() -> list[RGB]:
    """Pictures that show nothing: black, grey, white, and noise."""
    plain = [np.full((BLANK_SIDE, BLANK_SIDE, 3), level, np.uint8) for level in (0, 128, 255)]
    return [*plain, np.random.default_rng(0).integers(0, 256, (BLANK_SIDE, BLANK_SIDE, 3), dtype=np.uint8)]


def without_evidence(
    model: YesNoModel, n_classes: int, count: Callable[[str, int], None], skip: Callable[[str, str], None]
) -> tuple[Floats, Floats]:
    """Probability of Yes (classes, prompts) about pictures that show nothing, and without a picture; NaN if unknown.

    What a model says then it says by habit: the floor under its accuracy and its hallucinations.
    """
    nothing = np.full((n_classes, len(model.prompts)), np.nan, dtype=np.float32)
    if isinstance(model, RecordedAnswers):
        return nothing, nothing
    found = []
    for what, pictures in (("blank pictures", blank_pictures()), ("questions without a picture", [None])):
        try:
            yes = model.answers(pictures).yes
        except (BudgetReached, UserError) as stop:
            skip(what, str(stop))
            found.append(nothing)
            continue
        count("measure", len(pictures))
        known = ~np.isnan(yes)
        with np.errstate(invalid="ignore"):
            found.append((np.where(known, yes, 0.0).sum(axis=0) / known.sum(axis=0)).astype(np.float32))
    return found[0], found[1]


def compare_prompts(
    model: YesNoModel,
    yes: tuple[Floats, NDArray[np.bool_]],
    said: Floats,
    half: NDArray[np.bool_],
    labels: NDArray,
    leading: dict[int, int],
    baseline: tuple[Floats, Floats],
    cues: Cues,
    classes: Sequence[str],
    audit: Audit,
) -> list[dict[str, Any]]:
    """Rows of `variants`: each prompt, and those that count together, by the same images and the same cue.

    Args:
        yes: see evidence.answers.by_prompt. said: (images, classes), the answer of the prompts together.
        leading: class to its most promising cue.
        baseline: see `without_evidence`.
    """
    by_name, neither = yes[0][:, half], yes[1][:, half]
    y, counts = labels[half], np.array(model.counts)
    rows: list[dict[str, Any]] = []
    for number, name in enumerate([*model.prompts, TOGETHER]):
        alone = number < len(counts)
        kept = np.arange(len(counts)) == number if alone else counts
        prompts = by_name[kept]
        answered = by_name[number] if alone else said[half]
        for c, label in enumerate(classes):
            asked = ~np.isnan(answered[:, c])
            present, absent = asked & (y == c), asked & (y != c)
            row: dict[str, Any] = {
                "label": label,
                "variant": name,
                "counts": bool(counts[number]) if alone else True,
                "n_present": int(present.sum()),
                "n_absent": int(absent.sum()),
                "cue_id": cues.rows[leading[c]]["cue_id"] if c in leading else "",
                "pa_gap_top_k": np.nan,
                "hr_gap_top_k": np.nan,
                "neither": float(neither[kept][..., c][:, asked].mean()) if asked.any() else np.nan,
                "blank_yes": float(baseline[0][c, kept].mean()),
                "no_image_yes": float(baseline[1][c, kept].mean()),
            }
            for share, members in (("pa", present), ("hr", absent)):
                interval = wilson(float(answered[members, c].sum()), int(members.sum()))
                row |= {share: float(interval.estimate), f"{share}_lower": float(interval.lower),
                        f"{share}_upper": float(interval.upper)}  # fmt: skip
            if c in leading:
                scores = np.nan_to_num(cues.scores[half][:, leading[c]], neginf=-1.0, nan=-1.0)
                for gap, members in (("pa", present), ("hr", absent)):
                    rng = np.random.default_rng([audit.seed, 37, c])  # the same order of equals for each prompt
                    measure_gap = spurlens.pa_gap if gap == "pa" else spurlens.hr_gap
                    if members.sum() >= 2:
                        found = measure_gap(prompts[:, members, c], scores[members], rng, audit.measure.top_k)
                        row[f"{gap}_gap_top_k"] = found.gap
            rows.append(row)
    return rows
