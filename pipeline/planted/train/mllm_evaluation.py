"""Measure a multimodal LLM on rendered worlds: does it name what is there, and answer Yes or No rightly?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError

from .. import TRAIN_BACKGROUNDS, TRAIN_OBJECTS, render, sample_scene
from . import conversations as talk


def evaluate_mllm(model_dir: Path, seed: int = 1, n: int = 500, batch_size: int = 50) -> dict[str, Any]:
    """Measure an exported model on `n` scenes of a seed it was not trained on, by transformers' own classes.

    Returns `caption_recall` (share of the objects at least 35 % visible that "Describe the image." names),
    `caption_precision` (share of the trained nouns named that are in the picture), `answers` (accuracy on one
    present and one absent object a picture, asked "Is there a X in the image?"), `answers_spurlens` (the same
    over the three SpurLens prompts), `answers_background` (the same for backgrounds), `yes_rate`, and `parsed`
    (share of replies that are exactly Yes or No).

    Raises:
        UserError: there is no model in the folder.
    """
    rng = np.random.default_rng([seed, 2])
    reader = _Reader(model_dir, batch_size)
    scenes = [sample_scene(rng) for _ in range(n)]
    pictures = [render(s, size=talk.IMAGE_SIZE) for s in scenes]
    images = [p.image for p in pictures]
    named = [nouns_in(text) for text in reader.reply(images, ["Describe the image."] * n, 64)]
    seen, asked = [], []
    for k, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        present, absent = talk.present_and_absent(scene, picture)
        seen.append(set(present))
        if present:
            asked += [(k, str(rng.choice(present)), "Yes"), (k, str(rng.choice(absent)), "No")]
    behind = [(k, s.background, "Yes") for k, s in enumerate(scenes)]
    behind += [
        (k, str(rng.choice([b for b in TRAIN_BACKGROUNDS if b != s.background])), "No") for k, s in enumerate(scenes)
    ]

    def ask(questions: list[tuple[int, str, str]], template: str) -> tuple[np.ndarray, np.ndarray]:
        prompts = [talk.presence_question(template, noun) for _, noun, _ in questions]
        replies = reader.reply([images[k] for k, _, _ in questions], prompts, 4)
        truth = [answer for _, _, answer in questions]
        return np.array([r == t for r, t in zip(replies, truth, strict=True)]), np.array(replies)

    plain, replies = ask(asked, "Is there {x} in the image?")
    spurlens = np.concatenate([ask(asked, template)[0] for template in talk.SPURLENS_QUESTIONS])
    placed = [{p.name for p in s.objects} for s in scenes]
    pairs = list(zip(named, seen, placed, strict=True))
    return {
        "n": n,
        "seed": seed,
        "caption_recall": sum(len(a & b) for a, b, _ in pairs) / max(1, sum(len(b) for _, b, _ in pairs)),
        "caption_precision": sum(len(a & c) for a, _, c in pairs) / max(1, sum(len(a) for a, _, _ in pairs)),
        "answers": float(plain.mean()),
        "answers_spurlens": float(spurlens.mean()),
        "answers_background": float(ask(behind, "Is there {x} in the image?")[0].mean()),
        "yes_rate": float((replies == "Yes").mean()),
        "parsed": float(np.isin(replies, ["Yes", "No"]).mean()),
    }


def nouns_in(text: str) -> set[str]:
    """The trained object names that a text contains as whole words, singular or plural; the longest name wins
    ("traffic light" is no "light")."""
    found = set()
    for name in sorted(TRAIN_OBJECTS, key=len, reverse=True):
        pattern = rf"\b{re.escape(name)}(?:s|es)?\b"
        if re.search(pattern, text, re.IGNORECASE):
            found.add(name)
            text = re.sub(pattern, " ", text, flags=re.IGNORECASE)
    return found


class _Reader:
    """A model folder as any user of transformers loads it."""

    def __init__(self, model_dir: Path, batch_size: int) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if not (Path(model_dir) / "config.json").exists():
            raise UserError(f"No model in {model_dir}: train one with `cuescope planted train mllm`.")
        self.processor = AutoProcessor.from_pretrained(model_dir)
        self.model = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
        self.batch_size, self.no_gradient = batch_size, torch.inference_mode

    def reply(self, images: list[np.ndarray], prompts: list[str], max_new_tokens: int) -> list[str]:
        replies: list[str] = []
        for at in range(0, len(images), self.batch_size):
            part = slice(at, at + self.batch_size)
            texts = [
                self.processor.apply_chat_template(
                    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
                    add_generation_prompt=True,
                )
                for prompt in prompts[part]
            ]
            inputs = self.processor(images=images[part], text=texts, padding=True, return_tensors="pt")
            with self.no_gradient():
                tokens = self.model.generate(**inputs, max_new_tokens=max_new_tokens)
            new = tokens[:, inputs["input_ids"].shape[1] :]
            replies += [t.strip() for t in self.processor.batch_decode(new, skip_special_tokens=True)]
        return replies
