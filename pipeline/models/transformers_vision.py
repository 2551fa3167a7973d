"""A multimodal LLM under test on this machine: any image-text-to-text model of transformers with a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.metrics.spurlens import parse_answer
from pipeline.models.batching import Batch
from pipeline.models.devices import Precision
from pipeline.models.questions import SPURLENS, Answer, Asked, Prompts, YesNoClassifier, check_prompts
from pipeline.models.transformers_captioner import TransformersCaptioner, transformers_captioner


def transformers_vision(
    classes: tuple[str, ...],
    device: str,
    *,
    name: str,
    prompts: Prompts = SPURLENS,  # type: ignore[assignment]
    max_new_tokens: Annotated[int, Field(ge=1)] = 512,
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> YesNoClassifier:
    """A multimodal LLM on this machine: yes-probabilities from the logits of the first token of its answers.

    Args:
        classes: the words of each class.
        device: auto, cpu, cuda, cuda:1, mps.
        name: a folder that holds the model, or its name on the hub (ORG/REPO).
        prompts: name to question with `{}` for the class, or `{ask: ..., reasoning: true, counts: false}`.
        max_new_tokens: longest answer to a prompt with reasoning.
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most questions in one forward, or auto: as many as fit.
        trust_pickle: weights that aren't safetensors are a pickle and can run code when they are opened.

    Raises:
        UserError: no such model, one that is a pickle and isn't trusted, or a prompt without a place for the class.
    """
    speaker = transformers_captioner(
        device, "model", name=name, precision=precision, batch=batch, trust_pickle=trust_pickle
    )
    asker = Local(speaker, max_new_tokens)
    return YesNoClassifier(
        classes, check_prompts(prompts), asker.ask, lambda: f"{speaker.fingerprint}-{max_new_tokens}"
    )


class Local:
    """Asks a model on this machine; see `transformers_vision`."""

    def __init__(self, speaker: TransformersCaptioner, longest: int) -> None:
        self.speaker, self.longest = speaker, longest

    def ask(self, asked: Sequence[Asked]) -> list[Answer]:
        """An answer each, in order. Prompts of one kind share a forward, with and without an image apart."""
        answers: dict[int, Answer] = {}
        for reasoning in (False, True):
            for blind in (False, True):
                rows = [
                    n
                    for n, one in enumerate(asked)
                    if one.prompt.reasoning == reasoning and (one.image is None) == blind
                ]
                # prompts of equal length side by side: a batch is padded to its longest
                rows.sort(key=lambda n: len(asked[n].text))
                if not rows:
                    continue
                images, texts = [asked[n].image for n in rows], [asked[n].text for n in rows]
                if reasoning:
                    replies = self.speaker.replies(images, texts, self.longest)
                    answers |= {n: of_reply(text) for n, text in zip(rows, replies, strict=True)}
                else:
                    yes = self.speaker.yes_probability(images, texts)
                    answers |= {n: Answer(float(p)) for n, p in zip(rows, yes, strict=True)}
        return [answers[n] for n in range(len(asked))]


def of_reply(text: str) -> Answer:
    """What a reply in words says."""
    return Answer({"yes": 1.0, "no": 0.0}.get(parse_answer(text), float(np.nan)), text)
