"""A captioner: any image-text-to-text model of transformers, from a local folder or a hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import UserError, nearest
from pipeline.images import RGB
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batch, Batches
from pipeline.models.devices import Precision
from pipeline.models.protocols import Floats

PROMPT = "Describe the image."
FLORENCE_TASK = "<DETAILED_CAPTION>"
YES = ("yes", "Yes", "YES", " yes", " Yes", " YES")
NO = ("no", "No", "NO", " no", " No", " NO")
START = 16
"""Images in the first forward."""
SMALL, SMALL_START = 100_000_000, 128
"""And of a model with fewer parameters: calling it for a token takes longer than the token."""
WORDLESS = frozenset({"blip", "git", "vision-encoder-decoder"})  # caption without a prompt, and continue one


def transformers_captioner(
    device: str,
    where: str = "caption",
    *,
    name: str,
    prompt: str = PROMPT,
    max_new_tokens: Annotated[int, Field(ge=1)] = 60,
    longest_side: Annotated[int, Field(ge=0)] = 0,
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> TransformersCaptioner:
    """Captions by any image-text-to-text model of transformers (BLIP, Florence-2, SmolVLM, Qwen-VL ...).

    A model with a chat template (LLaVA, SmolVLM, Idefics3, Qwen-VL and others) is asked `prompt` about the image;
    another gets `prompt` as it is. Florence-2 (the one that transformers knows, of the model type florence2) takes a
    task for a prompt, by default <DETAILED_CAPTION>. BLIP and its like caption without a prompt; one that isn't the
    default they continue.

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        where: the section whose mistakes it tells.
        name: a folder that holds the model, or its name on the hub (ORG/REPO).
        prompt: what the model is asked.
        max_new_tokens: longest caption, in tokens.
        longest_side: larger images are brought to this many pixels first; 0: as they are. A model that sees images in
            their own size (Qwen-VL) or in tiles (SmolVLM, Idefics3) takes time and memory by their pixels.
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most images in one forward, or auto: as many as fit.
        trust_pickle: weights that aren't safetensors are a pickle and can run code when they are opened.

    Raises:
        UserError: transformers isn't installed, or the folder isn't there, holds no model or a pickle that isn't
            trusted.
    """
    hub.check_transformers(where, name, trust_pickle)
    return TransformersCaptioner(
        where, name, prompt, max_new_tokens, longest_side, precision, device, batch, trust_pickle
    )


class TransformersCaptioner:
    """See :func:`transformers_captioner`."""

    def __init__(
        self,
        where: str,
        name: str,
        prompt: str,
        max_new_tokens: int,
        longest_side: int,
        precision: Precision,
        device: str,
        batch: Batch,
        trust_pickle: bool,
    ) -> None:
        self._where, self._name, self._prompt = where, name, prompt
        self._longest, self._side = max_new_tokens, longest_side
        self._wanted, self._device, self._batch = precision, device, batch
        self._trust = trust_pickle

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, the prompt, the longest caption, how images are made smaller, and the precision."""
        options = {
            "weights": hub.content(self._name),
            "prompt": self._prompt,
            "max_new_tokens": self._longest,
            "precision": self._precision,
            **({"longest_side": self._side} if self._side else {}),
        }
        return fingerprints.of_options("transformers_captioner/1", options)

    def captions(self, images: Sequence[RGB]) -> list[str]:
        """One caption an image, in order, with white space tidied."""
        return self.replies(images, [self._asked] * len(images), self._longest)

    def replies(self, images: Sequence[RGB | None], questions: Sequence[str], longest: int) -> list[str]:
        """What the model says to each image's own question in at most so many tokens, with white space tidied.

        All images or none may be None: a question without an image, for models with a chat template.
        """
        import torch

        def prepare(rows: slice) -> tuple[Any, Sequence[str]]:
            return self._inputs(images[rows], questions[rows]), questions[rows]

        def reply(batch: tuple[Any, Sequence[str]]) -> list[str]:
            inputs, asked = batch[0].to(self._on, self._model.dtype), batch[1]
            with torch.inference_mode():
                tokens = self._model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=longest)
            # a decoder repeats what it was given before it goes on; an encoder-decoder doesn't
            given = inputs.get("input_ids")
            if given is not None and torch.equal(tokens[:, : given.shape[1]], given):
                tokens = tokens[:, given.shape[1] :]
            texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
            return [self._tidied(text, question) for text, question in zip(texts, asked, strict=True)]

        parts = self._batches.run(len(images), reply, self._on, prepare)
        return [" ".join(text.split()) for part in parts for text in part]

    def yes_probability(self, images: Sequence[RGB | None], questions: Sequence[str]) -> Floats:
        """(n,) probability of Yes against No as the first word of the answer to each image's own question.

        The probabilities of the spellings of yes are summed, and those of no; what else the model might say
        is left out.

        Raises:
            UserError: the model's tokenizer can't tell yes from no by their first tokens.
        """
        import torch

        yes, no = self._answers

        def prepare(rows: slice) -> Any:
            return self._inputs(images[rows], list(questions[rows]))

        def ask(inputs: Any) -> Floats:
            with torch.inference_mode():
                out = self._model.generate(
                    **inputs.to(self._on, self._model.dtype),
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=1,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            logits = out.logits[0].float()
            odds = torch.logsumexp(logits[:, yes], dim=1) - torch.logsumexp(logits[:, no], dim=1)
            return torch.sigmoid(odds).cpu().numpy()

        parts = self._batches.run(len(images), ask, self._on, prepare)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @cached_property
    def _precision(self) -> Precision:
        return devices.precision(self._wanted, self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        processor = hub.load_transformers(self._where, AutoProcessor, self._name)
        tokenizer = processor.tokenizer
        if not self._model.config.is_encoder_decoder:
            tokenizer.padding_side = "left"  # a batch goes on from each prompt's own end
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return processor

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForImageTextToText

        dtype = devices.dtype(self._precision)
        model = hub.load_transformers_model(
            self._where, AutoModelForImageTextToText, self._name, self._trust, dtype=dtype
        )
        return model.to(self._on)

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self._batch, SMALL_START if self._model.num_parameters() < SMALL else START)

    @property
    def _tasks(self) -> dict[str, str]:
        """Florence-2's tasks and what each answers with; none for another model."""
        return getattr(self._processor, "tasks_answer_post_processing_type", {})

    def _tidied(self, text: str, question: str) -> str:
        """What a model says to a task, without its marks; to a question as it is."""
        if question not in self._tasks:
            return text
        return self._processor.post_process_generation(text=text, task=question)[question]

    @cached_property
    def _asked(self) -> str:
        """The prompt that the model understands."""
        if not self._tasks:
            return self._prompt
        prompt = FLORENCE_TASK if self._prompt == PROMPT else self._prompt
        # tasks with an input (such as a region) are no captions, and the others must stand alone
        known = [task for task in self._processor.task_prompts_without_inputs if self._tasks.get(task) == "pure_text"]
        if prompt not in known:
            why = f"'{prompt}' is no task by which {self._name} captions."
            raise UserError(f"{self._where}: {why} {nearest(prompt, known)}")
        return prompt

    @cached_property
    def _answers(self) -> tuple[list[int], list[int]]:
        tokenizer = self._processor.tokenizer

        def first(words: tuple[str, ...]) -> set[int]:
            encoded = [tokenizer.encode(word, add_special_tokens=False) for word in words]
            return {ids[0] for ids in encoded if ids} - {tokenizer.unk_token_id}

        yes, no = first(YES), first(NO)
        if not yes - no or not no - yes:
            raise UserError(f"{self._where}: {self._name}: its tokenizer can't tell yes from no by their first tokens.")
        return sorted(yes - no), sorted(no - yes)

    def _inputs(self, images: Sequence[RGB | None], prompts: Sequence[str]) -> Any:
        from PIL import Image

        pictures = [None if image is None else Image.fromarray(image) for image in images]
        for picture in pictures if self._side else ():
            if picture is not None:
                picture.thumbnail((self._side, self._side))  # never larger than it is
        processor = self._processor
        if getattr(processor, "chat_template", None):
            talks = [
                [
                    {
                        "role": "user",
                        "content": [
                            *([] if picture is None else [{"type": "image", "image": picture}]),
                            {"type": "text", "text": prompt},
                        ],
                    }
                ]
                for picture, prompt in zip(pictures, prompts, strict=True)
            ]
            inputs = processor.apply_chat_template(
                talks,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        elif self._model.config.model_type in WORDLESS and all(prompt in ("", PROMPT) for prompt in prompts):
            inputs = processor(images=pictures, return_tensors="pt")
        else:
            inputs = processor(images=pictures, text=list(prompts), padding=True, return_tensors="pt")
        return inputs
