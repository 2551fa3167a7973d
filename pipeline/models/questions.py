"""A multimodal LLM as a model under test: it is asked about every class, and says Yes or No.

SpurLens (arXiv 2503.08884, step 4) asks three prompts and averages last. What comes back is a probability of Yes for
each (image, class, prompt); a class's logit is the log-odds of the mean over the prompts that count. Classes don't
exclude each other: an image may get Yes for several, or for none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.special import logit

from pipeline.errors import UserError
from pipeline.images import RGB
from pipeline.models.fingerprints import of_options
from pipeline.models.openai_client import Estimate
from pipeline.models.protocols import Answers, Floats

SPURLENS = {
    "do you see": "Do you see {} in the image? Answer with 'Yes' or 'No'.",
    "is there": "Is there {} in the image? Answer with 'Yes' or 'No'.",
    "determine": "Determine whether there is {} in the image. Reply with 'Yes' or 'No'.",
}
"""The three unbiased prompts; `{}` becomes the class with its article."""
SUREST = 1e-4
"""Probabilities are kept this far from 0 and 1: beyond it, log-odds tell rounding."""


class Prompt(BaseModel):
    """One way to ask. `reasoning`: the model thinks aloud first, and its answer is read from its words; `counts`: it is
    one of those that the model's answer is averaged over, and not only a row to compare."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ask: str
    reasoning: bool = False
    counts: bool = True


Prompts = dict[str, str | Prompt]


@dataclass(frozen=True)
class Asked:
    """One question about one image, or about none."""

    image: RGB | None
    class_name: str
    name: str  # of the prompt
    prompt: Prompt

    @property
    def text(self) -> str:
        """The question in words."""
        return self.prompt.ask.replace("{}", with_article(self.class_name))


@dataclass(frozen=True)
class Answer:
    """Probability of Yes, NaN where the words say neither Yes nor No; and the words."""

    yes: float
    text: str = ""


Ask = Callable[[Sequence[Asked]], list[Answer]]


def with_article(noun: str) -> str:
    """The class as a question names it: "a dog", "an umbrella"."""
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


def check_prompts(prompts: Mapping[str, str | dict | Prompt]) -> dict[str, Prompt]:
    """The prompts of a configuration.

    Raises:
        UserError: none that counts, or one without a place for the class.
    """
    made = {
        name: Prompt(ask=prompt) if isinstance(prompt, str) else Prompt.model_validate(prompt)
        for name, prompt in prompts.items()
    }
    for name, prompt in made.items():
        if prompt.ask.count("{}") != 1:
            raise UserError(f"model: the prompt '{name}' needs one {{}} for the class, with its article.")
    if not any(prompt.counts for prompt in made.values()):
        raise UserError("model: at least one of 'prompts' must count.")
    return made


class YesNoClassifier:
    """A way to ask, made a model under test of these classes."""

    def __init__(
        self,
        classes: Sequence[str],
        prompts: Mapping[str, Prompt],
        ask: Ask,
        fingerprint: Callable[[], str],
        cost: Callable[[Sequence[Asked]], Estimate] | None = None,
    ) -> None:
        self.classes, self.prompts, self.ask, self._cost = tuple(classes), dict(prompts), ask, cost
        self._of_model = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """By the model, the prompts and the classes."""
        options = {name: prompt.model_dump() for name, prompt in self.prompts.items()}
        return of_options("yes_no/1", {"model": self._of_model(), "prompts": options, "classes": self.classes})

    @property
    def counts(self) -> tuple[bool, ...]:
        """Which prompts the answer is averaged over."""
        return tuple(prompt.counts for prompt in self.prompts.values())

    def answers(
        self, images: Sequence[RGB | None], every: bool = True, about: Sequence[Collection[int]] | None = None
    ) -> Answers:
        """Answers to each prompt about each class; of the prompts that don't count only with `every`.

        `about`: for each image the classes (by number) that are asked about; by default all.
        """
        kept = [(name, prompt) for name, prompt in self.prompts.items() if every or prompt.counts]
        of_image = [range(len(self.classes))] * len(images) if about is None else about
        places = [(i, c, p) for i, classes in enumerate(of_image) for c in classes for p in range(len(kept))]
        replies = self.ask([Asked(images[i], self.classes[c], *kept[p]) for i, c, p in places])
        shape = (len(images), len(self.classes), len(kept))
        yes, texts = np.full(shape, np.nan, dtype=np.float32), np.full(shape, None, dtype=object)
        for place, reply in zip(places, replies, strict=True):
            yes[place], texts[place] = reply.yes, reply.text
        return Answers(yes, texts, tuple(name for name, _ in kept))

    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes): log-odds of Yes."""
        return log_odds(self.answers(images, every=False), self.counts)

    def estimate(self, images: int, every: bool = True, classes: int | None = None) -> Estimate:
        """What asking about so many images will cost, each about so many classes (by default all)."""
        if self._cost is None:
            return Estimate(0, 0, 0.0)
        blank = np.zeros((1, 1, 3), np.uint8)
        asked = [
            Asked(blank, c, name, p) for c in self.classes for name, p in self.prompts.items() if every or p.counts
        ]
        one = self._cost(asked)
        times = images * (1.0 if classes is None else classes / len(self.classes))
        usd = None if one.usd is None else times * one.usd
        return Estimate(round(times * one.calls), round(times * one.tokens), usd)


def log_odds(answers: Answers, counts: Sequence[bool]) -> Floats:
    """(n, classes) from answers to all prompts, or to those that count alone; NaN where none was asked.

    Probabilities are averaged first. An answer that is neither Yes nor No doesn't say Yes, as in the paper's formula.
    """
    kept = np.array(counts if len(counts) == len(answers.prompts) else [True] * len(answers.prompts))
    asked = answers.asked[..., kept]
    total = np.where(asked, np.nan_to_num(answers.yes[..., kept], nan=0.0), 0.0).sum(axis=-1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        mean = total / asked.sum(axis=-1)
    return np.asarray(logit(np.clip(mean, SUREST, 1 - SUREST)), dtype=np.float32)
