"""The seams: what each kind of back end must offer. Images are upright RGB uint8 arrays (height, width, 3) of any size.

Every back end is made by a factory function whose keyword arguments are the options of its section in the
configuration. Making one is cheap and reads no weights; weights load at the first call of a method. The
`fingerprint` changes whenever an answer could change: weights, preprocessing, prompts, precision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Boxes
from pipeline.images import RGB

Floats = NDArray[np.float32]


class Classifier(Protocol):
    """A model under test: scores each image for each class of the audit.

    One whose inside can be looked at may also offer `region_encoder(regions, context, batches) -> RegionEncoder`: its
    own backbone, for `embed: {kind: model}` (pipeline/models/model_encoder.py says what the arguments are).
    """

    fingerprint: str

    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes) before softmax, in the order of the classes it was made for."""
        ...


@dataclass(frozen=True)
class Answers:
    """Answers to questions with Yes or No: `yes` (n, classes, prompts) is a probability, NaN where the words say
    neither; `texts`, of the same shape, are the words (None where nothing was asked); `prompts` names the last axis."""

    yes: Floats
    texts: NDArray[np.object_]
    prompts: tuple[str, ...]

    @property
    def asked(self) -> NDArray[np.bool_]:
        """(n, classes, prompts): what was asked."""
        return np.array([text is not None for text in self.texts.flat], dtype=bool).reshape(self.texts.shape)


@runtime_checkable
class YesNoModel(Protocol):
    """A model under test that is asked about each class: its classes don't exclude each other.

    It is a Classifier whose logits are log-odds of Yes, averaged over the prompts that count.
    """

    fingerprint: str

    @property
    def prompts(self) -> Collection[str]:
        """Names of all prompts, in order."""
        ...

    @property
    def counts(self) -> tuple[bool, ...]:
        """Which prompts the answer is averaged over, the others being rows to compare."""
        ...

    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes): log-odds of Yes."""
        ...

    def answers(
        self, images: Sequence[RGB | None], every: bool = True, about: Sequence[Collection[int]] | None = None
    ) -> Answers:
        """Of every prompt, or of those that count; None is a question without an image.

        `about` names for each image the classes (by number) that are asked about; by default all.
        """
        ...


@runtime_checkable
class RecordedAnswers(Protocol):
    """A model under test that is known by its answers alone: it can't be shown an edited image.

    One that is also a YesNoModel has recorded `Answers`, any other logits.
    """

    fingerprint: str

    def recorded(self, image_ids: Sequence[str], paths: Sequence[str], classes: Sequence[str]) -> Floats | Answers:
        """(n, classes) logits, or the answers, of images of the data source; `classes` are the data's labels."""
        ...


class Captioner(Protocol):
    """Puts images into words."""

    fingerprint: str

    def captions(self, images: Sequence[RGB]) -> list[str]:
        """One caption an image, in order; an empty one where there is none to be had.

        Raises:
            BudgetReached: not all could be had; `done` has those that were.
        """
        ...


@dataclass(frozen=True)
class Detections:
    """What a detector saw in one image: `boxes` (m, 4), `scores` (m,) in [0, 1], `phrases` (m,) indices."""

    boxes: Boxes
    scores: Floats
    phrases: NDArray[np.int64]


class Detector(Protocol):
    """Finds things named by phrases; labels don't compete for a box unless the fingerprint's model makes them."""

    fingerprint: str

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, with scores down to the option `floor`."""
        ...


class RegionEncoder(Protocol):
    """Embeds regions, whole images and (if `has_text`) words into one space; rows have unit length."""

    fingerprint: str
    has_text: bool

    def regions(self, images: Sequence[RGB], boxes: Sequence[Boxes]) -> list[Floats]:
        """For each image an array (boxes, d)."""
        ...

    def images(self, images: Sequence[RGB]) -> Floats:
        """(n, d)."""
        ...

    def texts(self, texts: Sequence[str]) -> Floats:
        """(n, d); only where `has_text`."""
        ...


@dataclass(frozen=True)
class Attribute:
    """A candidate cue in words: what it is called, its type (one of records.CUE_TYPES), why it was proposed."""

    phrase: str
    cue_type: str
    reason: str = ""
    score: float = float("nan")
    source: str = ""  # which proposers named it, where that is not the configured one alone


@dataclass(frozen=True)
class Proposals:
    """What a proposer returns for one class, with the calls and tokens that it cost, what of the replies could not be
    used, and why there is no more, if a budget was reached."""

    attributes: tuple[Attribute, ...]
    calls: int = 0
    tokens: int = 0
    dropped: int = 0
    stopped: str = ""


class Proposer(Protocol):
    """Lists attributes that may be spurious for a class.

    A proposer may also have `ahead(classes, captions)`, which is called once before all classes, and
    `estimate(classes, captions)`, for a dry run.
    """

    fingerprint: str

    @property
    def contrast(self) -> Proposer | None:
        """What may be asked, at no cost, to contrast any captions with any others; None if nothing."""
        ...

    def propose(self, class_name: str, classes: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Proposals:
        """`captions` maps each class to the captions of its images in the selection half."""
        ...


class Fill(Protocol):
    """Fills a masked part of an image; a deterministic function of its arguments."""

    def __call__(self, image: RGB, mask: NDArray[np.bool_], rng: np.random.Generator) -> RGB: ...
