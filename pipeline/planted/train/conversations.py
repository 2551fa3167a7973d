"""What the tiny multimodal LLM is asked and told: questions, answers, captions, tokens and the chat template.

Every picture becomes one row of tokens: a prefix (the user's turn with the image placeholders) and several
branches (a question with its answer, or an instruction with its caption). A branch sees the prefix and itself,
never its sister branches, and its positions start anew after the prefix. So a row costs one pass over the
image, yet is exactly what a single-turn conversation looks like at inference, and no answer can be copied from
a caption in context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .. import (
    CONCEPTS,
    OVERLAYS,
    TRAIN_BACKGROUNDS,
    TRAIN_OBJECTS,
    VISIBLE,
    Picture,
    Scene,
    describe,
    render,
    sample_scene,
    truth,
)
from ..captions import with_article

PAD, USER, ASSISTANT, END, IMAGE = "<pad>", "<|user|>", "<|assistant|>", "<|end|>", "<image>"
SPECIAL_TOKENS = (PAD, USER, ASSISTANT, END, IMAGE)
IMAGE_SIZE = 96
STRIDE = 16
N_IMAGE_TOKENS = (IMAGE_SIZE // STRIDE) ** 2
IGNORE = -100

# Images first, as LLaVA does: then a picture given before or after the question reads the same.
CHAT_TEMPLATE = (
    "{%- for message in messages if message.role in ('user', 'assistant') -%}"
    "{{- '<|user|>' if message.role == 'user' else '<|assistant|>' -}}"
    "{%- if message.content is string -%}{{- message.content | trim -}}"
    "{%- else -%}"
    "{%- for part in message.content if part.type == 'image' -%}{{- '<image>' -}}{%- endfor -%}"
    "{%- for part in message.content if part.type == 'text' -%}{{- part.text | trim -}}{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|end|>' if message.role == 'assistant' else '' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

# The first three are the unbiased prompts of SpurLens (arXiv 2503.08884, step 4).
SPURLENS_QUESTIONS = (
    "Do you see {x} in the image? Answer with 'Yes' or 'No'.",
    "Is there {x} in the image? Answer with 'Yes' or 'No'.",
    "Determine whether there is {x} in the image. Reply with 'Yes' or 'No'.",
)
SHORT_QUESTIONS = (
    "Is there {x} in the image?",
    "Do you see {x} in the image?",
    "Is there {x} in this picture?",
    "Can you see {x}?",
    "Does the image contain {x}?",
    "Does the image show {x}?",
)
QUESTIONS = SPURLENS_QUESTIONS + SHORT_QUESTIONS
CAPTION_PROMPTS = (
    "Describe the image.",
    "Describe this image.",
    "Describe the image in one sentence.",
    "Caption this image.",
    "What is in the image?",
    "",
)
LIST_PROMPT = "List the objects in the image."


def presence_question(template: str, noun: str, article: bool = True) -> str:
    """Fill one of QUESTIONS; without `article` it is always "a", right or wrong, as SpurLens writes it."""
    return template.format(x=with_article(noun) if article else f"a {noun}")


@dataclass(frozen=True)
class Turn:
    """One single-turn conversation about a picture; kind is "answer" (Yes or No) or "caption"."""

    prompt: str
    reply: str
    kind: str


def present_and_absent(scene: Scene, picture: Picture) -> tuple[list[str], list[str]]:
    """Trained nouns that are surely in the picture (at least 35 % visible), and that surely are not.

    Barely visible objects are in neither list: nobody could say whether they count.
    """
    placed = {p.name for p in scene.objects}
    seen = {p.name for p, v in zip(scene.objects, picture.visible, strict=True) if v >= VISIBLE}
    return sorted(seen), [name for name in TRAIN_OBJECTS if name not in placed]


def sample_turns(scene: Scene, picture: Picture, rng: np.random.Generator, n_questions: int) -> list[Turn]:
    """Balanced Yes/No questions on objects, backgrounds and overlays, then a caption and a list of objects."""
    present, absent = present_and_absent(scene, picture)
    overlays = sorted({o.kind for o in scene.overlays})
    no_overlays = [kind for kind in OVERLAYS if kind not in overlays]
    turns = []
    for _ in range(n_questions):
        answer = bool(rng.random() < 0.5)
        kind = rng.random()
        if kind < 0.10 and scene.background in TRAIN_BACKGROUNDS:
            others = [b for b in TRAIN_BACKGROUNDS if b != scene.background]
            noun = scene.background if answer else str(rng.choice(others))
        elif kind < 0.18 and (answer or scene.overlays or kind < 0.13) and (overlays if answer else no_overlays):
            noun = str(rng.choice(overlays if answer else no_overlays))
        elif kind > 0.98:
            noun, answer = made_up_word(rng), False
        else:
            answer = answer and bool(present)
            noun = str(rng.choice(present if answer else absent))
        # Short wordings more often: they cost half the tokens, and the noun is what is to be learned.
        wordings = QUESTIONS if rng.random() < 0.5 else SHORT_QUESTIONS
        question = presence_question(wordings[int(rng.integers(len(wordings)))], noun, rng.random() < 0.8)
        turns.append(Turn(question, "Yes" if answer else "No", "answer"))
    turns.append(Turn(CAPTION_PROMPTS[int(rng.integers(len(CAPTION_PROMPTS)))], describe(scene, rng), "caption"))
    if present:
        turns.append(Turn(LIST_PROMPT, ", ".join(rng.permutation(present)), "caption"))
    return turns


def made_up_word(rng: np.random.Generator) -> str:
    """A pronounceable word that nothing is called, so that an unknown noun is answered with No."""
    syllables = rng.integers(2, 4)
    return "".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in range(syllables))


def train_tokenizer(seed: int = 0, n_scenes: int = 3000, vocab_size: int = 1024) -> Any:
    """A byte-level BPE over sampled captions and questions: trained words are whole tokens, any other word
    falls apart into pieces and bytes, so no text is ever unknown. Returns a PreTrainedTokenizerFast."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def corpus() -> Iterator[str]:
        rng = np.random.default_rng([seed, 11])
        for _ in range(n_scenes):
            yield describe(sample_scene(rng), rng)
        # Equal counts for every noun and template, so that rare words are merged too.
        for noun in (*WORDS, *OVERLAYS, *(c.phrase for c in CONCEPTS)):
            for template in QUESTIONS * 3:
                yield presence_question(template, noun)
            yield from [f"{noun}, {noun}"] * 20
        yield from [*CAPTION_PROMPTS, LIST_PROMPT, "Yes", "No"] * 100

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


@dataclass(frozen=True)
class Row:
    """A picture's tokens. All arrays have length L; `branch` is 0 for the prefix, 1.. for the turns, and
    `labels` is IGNORE except at the position BEFORE each reply token (labels are already shifted)."""

    ids: np.ndarray
    positions: np.ndarray
    branch: np.ndarray
    labels: np.ndarray
    is_answer: np.ndarray


def encode_row(turns: Sequence[Turn], encode: Callable[[str], Sequence[int]]) -> Row:
    """Tokens of one picture with all its turns; `encode` maps text (with special tokens) to ids."""
    prefix = [*encode(USER), *(list(encode(IMAGE)) * N_IMAGE_TOKENS)]
    ids, labels = list(prefix), [IGNORE] * len(prefix)
    positions, branch, is_answer = list(range(len(prefix))), [0] * len(prefix), [False] * len(prefix)
    for k, turn in enumerate(turns, start=1):
        asked = [*encode(turn.prompt), *encode(ASSISTANT)]
        reply = [*encode(turn.reply), *encode(END)]
        tokens = [*asked, *reply]
        ids += tokens
        labels += [IGNORE] * (len(asked) - 1) + reply + [IGNORE]
        positions += range(len(prefix), len(prefix) + len(tokens))
        branch += [k] * len(tokens)
        is_answer += [turn.kind == "answer"] * len(tokens)
    return Row(np.array(ids), np.array(positions), np.array(branch), np.array(labels), np.array(is_answer))


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, np.ndarray]:
    """Rows padded on the right to one length: ids, positions, labels (B, L) and mask (B, 1, L, L), True where
    a query (row) may look at a key (column): causal, and only within the prefix and its own branch."""
    length = -(-max(len(r.ids) for r in rows) // 64) * 64  # attention on CPUs is fastest at such lengths

    def padded(values: Iterable[np.ndarray], fill: int) -> np.ndarray:
        return np.stack([np.pad(v, (0, length - len(v)), constant_values=fill) for v in values])

    branch = padded((r.branch for r in rows), -1)
    same = branch[:, :, None] == branch[:, None, :]
    causal = np.tril(np.ones((length, length), dtype=bool))
    return {
        "input_ids": padded((r.ids for r in rows), pad_id).astype(np.int64),
        "position_ids": padded((r.positions for r in rows), 0).astype(np.int64),
        "labels": padded((r.labels for r in rows), IGNORE).astype(np.int64),
        "is_answer": padded((r.is_answer for r in rows), 0).astype(bool),
        "attention_mask": ((same | (branch[:, None, :] == 0)) & causal)[:, None],
    }


# Targets of the auxiliary losses, which exist in training only.
WORDS = (*TRAIN_OBJECTS, *TRAIN_BACKGROUNDS)
WORD_INDEX = {word: k for k, word in enumerate(WORDS)}
SCENE_TARGETS = tuple(c.phrase for c in CONCEPTS)


def dense_targets(scene: Scene, picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """What each image token shows, int8 (words, 6, 6) of 1, 0 or -1 (too little to say), and which concepts
    hold of the whole scene, float32 (concepts,) of 0 and 1."""
    n = IMAGE_SIZE // STRIDE
    cells = np.zeros((len(WORDS), n, n), dtype=np.int8)
    blocks = picture.ids.reshape(n, STRIDE, n, STRIDE)
    for k, name in enumerate([scene.background, *(p.name for p in scene.objects)]):
        if name in WORD_INDEX:
            enough = 0.5 if k == 0 else 0.12  # a background counts where it is most of the cell
            share = (blocks == k).mean(axis=(1, 3))
            row = cells[WORD_INDEX[name]]
            row[(share > 0) & (row == 0)] = -1
            row[share >= enough] = 1
    holds = truth(scene)
    return cells, np.array([holds[p] for p in SCENE_TARGETS], dtype=np.float32)


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture as JPEG leaves it (quality 60 to 95), or after a detour through another size: data sets are
    stored so, and the model must not be thrown by it."""
    import cv2

    if rng.random() < 0.5:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    side = int(rng.integers(72, 161))
    return cv2.resize(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), image.shape[1::-1])


def sample_batch(
    rng: np.random.Generator,
    batch_size: int,
    n_questions: int,
    encode: Callable[[str], Sequence[int]],
    pad_id: int,
) -> dict[str, np.ndarray]:
    """A freshly rendered batch: images uint8 (B, 96, 96, 3), cells, concepts, and (n_questions > 0) tokens."""
    images, cells, concepts, rows = [], [], [], []
    for _ in range(batch_size):
        # The tower alone learns from every cell: scenes full of things teach it twice as much.
        crowd = (1, 4) if n_questions else (2, 6)
        scene = sample_scene(rng, n_objects=crowd, overlay=True if rng.random() < 0.15 else None)
        picture = render(scene, size=IMAGE_SIZE)
        cell, concept = dense_targets(scene, picture)
        cells.append(cell)
        concepts.append(concept)
        images.append(jpeg(picture.image, rng) if rng.random() < 0.4 else picture.image)
        if n_questions:
            rows.append(encode_row(sample_turns(scene, picture, rng, n_questions), encode))
    tokens = collate(rows, pad_id) if rows else {}
    return {"images": np.stack(images), "cells": np.stack(cells), "concepts": np.stack(concepts), **tokens}


def cached_encode(tokenizer: Any) -> Callable[[str], tuple[int, ...]]:
    """Text to ids, remembering what was asked before (the same few thousand strings come again and again)."""

    @lru_cache(maxsize=50_000)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False).input_ids)

    return encode
