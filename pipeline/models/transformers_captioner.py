"""A captioner: any image-text-to-text model of transformers, from a local folder or a hub."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.images import RGB
from pipeline.models import devices, fingerprints
from pipeline.models.devices import Batch
from pipeline.models.protocols import Floats

PROMPT = "Describe the image."
YES = ("yes", "Yes", "YES", " yes", " Yes", " YES")
NO = ("no", "No", "NO", " no", " No", " NO")
# read from a model's folder: weights, configuration, tokenizer, chat template
MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")
WORDLESS = frozenset({"blip", "git", "vision-encoder-decoder"})  # caption without a prompt, and continue one


def transformers_captioner(
    device: str,
    *,
    name: str,
    prompt: str = PROMPT,
    max_new_tokens: Annotated[int, Field(ge=1)] = 60,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    batch: Batch = 16,
) -> TransformersCaptioner:
    """Captions by greedy decoding.

    A model with a chat template is asked `prompt` about the image; another gets `prompt` as it is, such as
    "<CAPTION>" for Florence-2. BLIP and its like caption without a prompt; one that isn't the default they
    continue.

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        name: a folder that holds the model, or its name on the hub (ORG/REPO).
        prompt: what the model is asked.
        max_new_tokens: longest caption, in tokens.
        precision: fp32, bf16 or fp16 (the latter two for a GPU).
        batch: images in one forward.

    Raises:
        UserError: transformers isn't installed, or the folder isn't there or holds no model.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError("caption: the back end 'transformers' needs the package: pip install transformers torch")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"caption: {name} holds no config.json, so it is no transformers model.")
    elif folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise UserError(f"caption: there is no model folder {name}. Give one, or a name on the hub (ORG/REPO).")
    return TransformersCaptioner(name, prompt, max_new_tokens, precision, device, batch)


class TransformersCaptioner:
    """See :func:`transformers_captioner`."""

    def __init__(self, name: str, prompt: str, max_new_tokens: int, precision: str, device: str, batch: int) -> None:
        self._name, self._prompt, self._longest = name, prompt, max_new_tokens
        self._precision, self._device, self._batch = precision, device, batch
        options = {
            "weights": fingerprints.of_path(name, MODEL_FILES) if Path(name).is_dir() else name,
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "precision": precision,
        }
        self.fingerprint = fingerprints.of_options("transformers_captioner/1", options)

    def captions(self, images: Sequence[RGB]) -> list[str]:
        """One caption an image, in order, with white space tidied."""
        return self.replies(images, [self._prompt] * len(images), self._longest)

    def replies(self, images: Sequence[RGB | None], questions: Sequence[str], longest: int) -> list[str]:
        """What the model says to each image's own question in at most so many tokens, with white space tidied.

        All images or none may be None: a question without an image, for models with a chat template.
        """
        import torch

        found: list[str] = []
        for start in range(0, len(images), self._batch):
            rows = slice(start, start + self._batch)
            inputs = self._inputs(images[rows], questions[rows])
            with torch.inference_mode():
                tokens = self._model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=longest)
            # a decoder repeats what it was given before it goes on; an encoder-decoder doesn't
            given = inputs.get("input_ids")
            if given is not None and torch.equal(tokens[:, : given.shape[1]], given):
                tokens = tokens[:, given.shape[1] :]
            found += self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in found]

    def yes_probability(self, images: Sequence[RGB | None], questions: Sequence[str]) -> Floats:
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

        processor = self._from_pretrained(AutoProcessor)
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # a batch goes on from each prompt's own end
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return processor

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForImageTextToText

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self._precision]
        model, info = self._from_pretrained(AutoModelForImageTextToText, dtype=dtype, output_loading_info=True)
        if info["missing_keys"]:  # transformers would go on with random numbers in their place
            first = sorted(info["missing_keys"])[0]
            raise UserError(
                f"caption: the weights in {self._name} lack {len(info['missing_keys'])} of the model's "
                f"tensors ({first}, ...). Get or save the model again."
            )
        return model.eval().to(self._on)

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

    def _inputs(self, images: Sequence[RGB | None], prompts: Sequence[str]) -> Any:
        from PIL import Image

        pictures = [None if image is None else Image.fromarray(image) for image in images]
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
        return inputs.to(self._on, self._model.dtype)

    def _from_pretrained(self, kind: Any, **options: Any) -> Any:
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        offline = Path(self._name).is_dir() or any(
            os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
            for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        )
        logging.disable_progress_bar()  # the audit shows its own
        try:
            return kind.from_pretrained(self._name, local_files_only=offline, **options)
        except Exception as error:  # transformers, torch, safetensors and the hub raise many types
            reason = " ".join(str(error).split())[:300]
            hint = "" if Path(self._name).is_dir() else " Without a network, give a folder on this machine."
            raise UserError(f"caption: the model {self._name} can't be loaded: {reason}{hint}") from error
        finally:
            if bars:
                logging.enable_progress_bar()
