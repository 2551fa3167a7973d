"""A captioner: any image-text-to-text model of transformers, from a local folder or a hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import UserError, nearest
from pipeline.images import RGB
from pipeline.models import devices, fingerprints
from pipeline.models.devices import Batch
from pipeline.models.protocols import Floats
from pipeline.models.transformers_loading import Precision, check_name, content, from_pretrained, load_model

PROMPT = "Describe the image."
FLORENCE_TASK = "<DETAILED_CAPTION>"
YES = ("yes", "Yes", "YES", " yes", " Yes", " YES")
NO = ("no", "No", "NO", " no", " No", " NO")
WORDLESS = frozenset({"blip", "git", "vision-encoder-decoder"})  # caption without a prompt, and continue one


def transformers_captioner(
    device: str,
    *,
    name: str,
    prompt: str = PROMPT,
    max_new_tokens: Annotated[int, Field(ge=1)] = 60,
    longest_side: Annotated[int, Field(ge=0)] = 0,
    precision: Precision = "fp32",
    batch: Batch = 16,
) -> TransformersCaptioner:
    """Captions by greedy decoding.

    A model with a chat template (LLaVA, SmolVLM, Idefics3, Qwen-VL and others) is asked `prompt` about the image;
    another gets `prompt` as it is. Florence-2 (the one that transformers knows, of the model type florence2) takes a
    task for a prompt, by default <DETAILED_CAPTION>. BLIP and its like caption without a prompt; one that isn't the
    default they continue.

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        name: a folder that holds the model, or its name on the hub (ORG/REPO).
        prompt: what the model is asked.
        max_new_tokens: longest caption, in tokens.
        longest_side: larger images are brought to this many pixels first; 0: as they are. A model that sees images in
            their own size (Qwen-VL) or in tiles (SmolVLM, Idefics3) takes time and memory by their pixels.
        precision: fp32, bf16 or fp16 (the latter two for a GPU).
        batch: images in one forward.

    Raises:
        UserError: transformers isn't installed, or the folder isn't there or holds no model.
    """
    check_name("caption", "transformers", name)
    return TransformersCaptioner(name, prompt, max_new_tokens, longest_side, precision, device, batch)


class TransformersCaptioner:
    """See :func:`transformers_captioner`."""

    def __init__(
        self,
        name: str,
        prompt: str,
        max_new_tokens: int,
        longest_side: int,
        precision: Precision,
        device: str,
        batch: int,
    ) -> None:
        self._name, self._prompt, self._longest, self._side = name, prompt, max_new_tokens, longest_side
        self._precision, self._device, self._batch = precision, device, batch
        options = {
            "weights": content(name),
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "precision": precision,
            **({"longest_side": longest_side} if longest_side else {}),
        }
        self.fingerprint = fingerprints.of_options("transformers_captioner/1", options)

    def captions(self, images: Sequence[RGB]) -> list[str]:
        """One caption an image, in order, with white space tidied."""
        import torch

        found: list[str] = []
        for start in range(0, len(images), self._batch):
            some = images[start : start + self._batch]
            inputs = self._inputs(some, [self._asked] * len(some))
            with torch.inference_mode():
                tokens = self._model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=self._longest)
            # a decoder repeats what it was given before it goes on; an encoder-decoder doesn't
            given = inputs.get("input_ids")
            if given is not None and torch.equal(tokens[:, : given.shape[1]], given):
                tokens = tokens[:, given.shape[1] :]
            texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
            if self._tasks:
                texts = [
                    self._processor.post_process_generation(text=text, task=self._asked)[self._asked] for text in texts
                ]
            found += texts
        return [" ".join(text.split()) for text in found]

    def yes_probability(self, images: Sequence[RGB], questions: Sequence[str]) -> Floats:
        """(n,) probability of Yes against No as the first word of the answer to each image's own question.

        The probabilities of the spellings of yes are summed, and those of no; what else the model might say
        is left out.

        Raises:
            UserError: the model's tokenizer can't tell yes from no by their first tokens.
        """
        import torch

        yes, no = self._answers
        parts = []
        for start in range(0, len(images), self._batch):
            rows = slice(start, start + self._batch)
            with torch.inference_mode():
                out = self._model.generate(
                    **self._inputs(images[rows], list(questions[rows])),
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=1,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            logits = out.logits[0].float()
            odds = torch.logsumexp(logits[:, yes], dim=1) - torch.logsumexp(logits[:, no], dim=1)
            parts.append(torch.sigmoid(odds).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        processor = from_pretrained("caption", self._name, AutoProcessor)
        tokenizer = processor.tokenizer
        if not self._model.config.is_encoder_decoder:
            tokenizer.padding_side = "left"  # a batch goes on from each prompt's own end
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return processor

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForImageTextToText

        return load_model("caption", self._name, AutoModelForImageTextToText, self._precision, self._on)

    @property
    def _tasks(self) -> dict[str, str]:
        """Florence-2's tasks and what each answers with; none for another model."""
        return getattr(self._processor, "tasks_answer_post_processing_type", {})

    @cached_property
    def _asked(self) -> str:
        """The prompt that the model understands."""
        if not self._tasks:
            return self._prompt
        prompt = FLORENCE_TASK if self._prompt == PROMPT else self._prompt
        # tasks with an input (such as a region) are no captions, and the others must stand alone
        known = [task for task in self._processor.task_prompts_without_inputs if self._tasks.get(task) == "pure_text"]
        if prompt not in known:
            raise UserError(f"caption: '{prompt}' is no task by which {self._name} captions. {nearest(prompt, known)}")
        return prompt

    @cached_property
    def _answers(self) -> tuple[list[int], list[int]]:
        tokenizer = self._processor.tokenizer

        def first(words: tuple[str, ...]) -> set[int]:
            encoded = [tokenizer.encode(word, add_special_tokens=False) for word in words]
            return {ids[0] for ids in encoded if ids} - {tokenizer.unk_token_id}

        yes, no = first(YES), first(NO)
        if not yes - no or not no - yes:
            raise UserError(f"{self._name}: its tokenizer can't tell yes from no by their first tokens.")
        return sorted(yes - no), sorted(no - yes)

    def _inputs(self, images: Sequence[RGB], prompts: Sequence[str]) -> Any:
        from PIL import Image

        pictures = [Image.fromarray(image) for image in images]
        for picture in pictures if self._side else ():
            picture.thumbnail((self._side, self._side))  # never larger than it is
        processor = self._processor
        if getattr(processor, "chat_template", None):
            talks = [
                [
                    {
                        "role": "user",
                        "content": [{"type": "image", "image": picture}, {"type": "text", "text": prompt}],
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
        return inputs.to(self._on, self._model.dtype)
