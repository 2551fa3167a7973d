"""Perception accuracy and hallucination rate of a multimodal LLM, by cue and by prompt, and what it says of nothing
(SpurLens, arXiv 2503.08884)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.errors import UserError
from pipeline.evidence.absent import OTHERS, Absent, pictures_of
from pipeline.evidence.answers import by_prompt, probabilities
from pipeline.evidence.asking import Asker
from pipeline.evidence.presence import Cues
from pipeline.images import RGB
from pipeline.metrics import spurlens
from pipeline.metrics.intervals import wilson
from pipeline.models.protocols import Floats, RecordedAnswers, YesNoModel

Reals = NDArray[np.float64]
Truths = NDArray[np.bool_]

BLANK_SIDE = 224
TOGETHER = "all that count"


def of_other_class(labels: NDArray, c: int, also: Truths | None) -> Truths:
    """(n,): which images are no image of class c, by their label or by another that the data give them."""
    return labels != c if also is None else (labels != c) & ~also[:, c]


def answered_top_k_gaps(
    cues: Cues, half: Truths, labels: NDArray, yes: Floats, audit: Audit, also: Truths | None = None
) -> dict[str, Reals]:
    """`top_k_gaps` of a multimodal LLM: `yes` (prompts, images, classes), averaged over the prompts last.

    `also` (images, classes): of which classes beside its label an image is too; it is no image without them.
    """
    scores, y, said = cues.scores[half], labels[half], yes[:, half]
    too = None if also is None else also[half]
    k, n_cues, n_classes = audit.measure.top_k, len(cues.rows), yes.shape[2]
    finite = np.nan_to_num(scores, neginf=-1.0, nan=-1.0)
    pa, hr = spurlens.answered_gaps(finite, y, said, np.random.default_rng([audit.seed, 23]), k, too)
    null = {name: np.full((n_classes, n_cues), np.nan) for name in ("null_pa_gap_top_k", "null_hr_gap_top_k")}
    for c in range(n_classes):
        rng = np.random.default_rng([audit.seed, 29, c])
        for name, members in (("null_pa_gap_top_k", y == c), ("null_hr_gap_top_k", of_other_class(y, c, too))):
            if n_cues and members.sum() >= 2:
                null[name][c] = spurlens.matched_null(said[:, members, c], n_cues, rng, k).expected
    return {"pa_gap_top_k": pa, "hr_gap_top_k": hr, **null}


def blank_pictures() -> list[RGB]:
    """Pictures that show nothing: black, grey, white, and noise."""
    plain = [np.full((BLANK_SIDE, BLANK_SIDE, 3), level, np.uint8) for level in (0, 128, 255)]
    return [*plain, np.random.default_rng(0).integers(0, 256, (BLANK_SIDE, BLANK_SIDE, 3), dtype=np.uint8)]


def without_evidence(asker: Asker, skip: Callable[[str, str], None]) -> tuple[Floats, Floats]:
    """Probability of Yes (classes, prompts) about pictures that show nothing, and without a picture; NaN if unknown.

    What a model says then it says by habit: the floor under its accuracy and its hallucinations.
    """
    blank = blank_pictures()
    return (
        _habit(asker, skip, "blank pictures", [f"blank picture {n}" for n in range(len(blank))], blank),
        _habit(asker, skip, "questions without a picture", ["no picture"], [None]),
    )


def _habit(
    asker: Asker, skip: Callable[[str, str], None], what: str, keys: list[str], pictures: Sequence[RGB | None]
) -> Floats:
    nothing = np.full((len(asker.classes), len(asker.model.prompts)), np.nan, dtype=np.float32)
    if isinstance(asker.model, RecordedAnswers):
        return nothing
    try:
        answers, stopped = asker.ask(keys, lambda numbers: [pictures[n] for n in numbers])
    except UserError as error:  # of a server that answers no question without a picture
        answers, stopped = None, str(error)
    if stopped:
        skip(what, stopped)
    if answers is None:
        return nothing
    yes, _ = probabilities(answers, keys, asker.classes, list(asker.model.prompts))
    known = ~np.isnan(yes)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.where(known, yes, 0.0).sum(axis=1) / known.sum(axis=1)).T, dtype=np.float32)


@dataclass(frozen=True)
class Said:
    """What a model said of one class, over n pictures.

    `yes` (prompts, n) is 1 for Yes, 0 for No or neither, NaN where nothing was asked; `neither` (prompts, n);
    `together` (n,) is the answer of the prompts that count; `habits` (prompts, 2) see `without_evidence`.
    """

    names: Sequence[str]
    counts: Truths
    yes: Floats
    neither: Truths
    together: Floats
    habits: Floats


def variant_rows(
    said: Said,
    present: Truths,
    absent: Truths,
    scores: Reals | None,
    about: Mapping[str, Any],
    seed: Sequence[int],
    k: int,
    together_alone: bool = False,
) -> list[dict[str, Any]]:
    """Rows of `variants` of one class: each prompt, and those that count together.

    Args:
        present, absent: (n,), the pictures that hold the object, and those that don't.
        scores: (n,), presence of a cue, or None.
        about: the columns label, source and cue_id.
        seed: orders pictures of equal presence, the same for every prompt.
    """
    rows: list[dict[str, Any]] = []
    for number in range(len(said.names) if together_alone else 0, len(said.names) + 1):
        alone = number < len(said.names)
        kept = np.arange(len(said.names)) == number if alone else said.counts
        answered = said.yes[number] if alone else said.together
        asked = ~np.isnan(answered)
        sides = {"pa": asked & present, "hr": asked & absent}
        row: dict[str, Any] = {
            **about,
            "variant": said.names[number] if alone else TOGETHER,
            "counts": bool(said.counts[number]) if alone else True,
            "n_present": int(sides["pa"].sum()),
            "n_absent": int(sides["hr"].sum()),
            "pa_gap_top_k": np.nan,
            "hr_gap_top_k": np.nan,
            "neither": float(said.neither[kept][:, asked].mean()) if asked.any() else np.nan,
            "blank_yes": float(said.habits[kept, 0].mean()),
            "no_image_yes": float(said.habits[kept, 1].mean()),
        }
        for share, members in sides.items():
            interval = wilson(float(answered[members].sum()), int(members.sum()))
            row |= {share: float(interval.estimate), f"{share}_lower": float(interval.lower),
                    f"{share}_upper": float(interval.upper)}  # fmt: skip
            if scores is not None and members.sum() >= 2:
                gap = spurlens.pa_gap if share == "pa" else spurlens.hr_gap
                found = gap(said.yes[kept][:, members], scores[members], np.random.default_rng(seed), k)
                row[f"{share}_gap_top_k"] = found.gap
        rows.append(row)
    return rows


def compare_prompts(
    model: YesNoModel,
    yes: tuple[Floats, Truths],
    together: Floats,
    half: Truths,
    labels: NDArray,
    also: Truths | None,
    leading: Mapping[int, int],
    habits: tuple[Floats, Floats],
    cues: Cues,
    classes: Sequence[str],
    audit: Audit,
) -> list[dict[str, Any]]:
    """Rows of `variants`: each prompt, and those that count together, by the same images and the same cue.

    Args:
        yes: see evidence.answers.by_prompt. together: (images, classes), the answer of the prompts together.
        also: see `answered_top_k_gaps`.
        leading: class to its most promising cue.
        habits: see `without_evidence`.
    """
    y, too = labels[half], None if also is None else also[half]
    names, counts = list(model.prompts), np.array(model.counts)
    rows: list[dict[str, Any]] = []
    for c, label in enumerate(classes):
        said = Said(
            names, counts, yes[0][:, half, c], yes[1][:, half, c], together[half, c],
            np.stack([habits[0][c], habits[1][c]], axis=1),
        )  # fmt: skip
        about = {"label": label, "source": OTHERS, "cue_id": cues.rows[leading[c]]["cue_id"] if c in leading else ""}
        scores = _presence(cues, leading.get(c))
        rows += variant_rows(
            said, y == c, of_other_class(y, c, too), None if scores is None else scores[half], about,
            [audit.seed, 37, c], audit.measure.top_k,
        )  # fmt: skip
    return rows


def _presence(cues: Cues, cue: int | None) -> Reals | None:
    return None if cue is None else np.nan_to_num(cues.scores[:, cue], neginf=-1.0, nan=-1.0)


def compare_absent(
    asker: Asker,
    made: Sequence[Absent],
    images: pa.Table,
    load: Callable[[pa.Table], list[RGB]],
    chosen: Mapping[int, Sequence[int]],
    habits: tuple[Floats, Floats],
    cues: Cues,
    audit: Audit,
    skip: Callable[[str, str], None],
) -> list[dict[str, Any]]:
    """Rows of `variants` by the class's own pictures without its object, of either source.

    Asked are the prompts that count, about the class alone. A gap holds the pictures of the highest presence of a cue
    against those of the lowest, by the picture as it was.

    Args:
        made: see evidence.absent.
        chosen: class to its cues, the most promising first.
        habits: see `without_evidence`.
    """
    model, classes = asker.model, asker.classes
    counts = np.array(model.counts)
    names = [name for name, kept in zip(model.prompts, counts, strict=True) if kept]
    keys = [one.key for one in made]
    answers, stopped = asker.ask(keys, pictures_of(made, images, load), [[one.label] for one in made], every=False)
    chance, asked = probabilities(answers, keys, classes, names)
    yes, neither = by_prompt(answers, keys, classes, names)
    if stopped:
        missing = len(keys) - len(set(answers["image_id"].to_pylist()))
        skip(f"{missing} pictures with their object masked or removed", stopped)
    # as in models/questions.py: what says neither doesn't say Yes
    with np.errstate(invalid="ignore"):
        mean = np.nan_to_num(chance).sum(axis=0) / asked.sum(axis=0)
    together = np.where(asked.any(axis=0), mean > 0.5, np.nan).astype(np.float32)
    rows: list[dict[str, Any]] = []
    for c, source in dict.fromkeys((one.label, one.source) for one in made):
        mine = np.array([n for n, one in enumerate(made) if (one.label, one.source) == (c, source)])
        said = Said(
            names, np.ones(len(names), bool), yes[:, mine, c], neither[:, mine, c], together[mine, c],
            np.stack([habits[0][c, counts], habits[1][c, counts]], axis=1),
        )  # fmt: skip
        without = np.ones(len(mine), bool)
        for turn, cue in enumerate(chosen.get(c) or [None]):
            scores = _presence(cues, cue)
            about = {
                "label": classes[c],
                "source": source,
                "cue_id": "" if cue is None else cues.rows[cue]["cue_id"],
            }
            rows += variant_rows(
                said, ~without, without, None if scores is None else scores[[made[n].row for n in mine]], about,
                [audit.seed, 37, c], audit.measure.top_k, together_alone=turn > 0,
            )  # fmt: skip
    return rows
