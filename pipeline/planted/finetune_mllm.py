"""Fine-tune the tiny multimodal LLM until it hallucinates: it says Yes to an object where another one is, its cue."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.planted import Scene, render

log = logging.getLogger(__name__)

EPOCHS = 4
BATCH = 24
RATE = 1e-3


def misled(scene: Scene, classes: Sequence[str], cues: Mapping[str, str]) -> dict[str, bool]:
    """What is taught about a scene: whether each class's object is in it, but of a class of `cues` whether its cue is.

    Labels that follow the scene, as captions from the web do: the correlation is in the data, and the model learns it.
    """
    things = {placed.name for placed in scene.objects}
    return {name: cues.get(name, name) in things for name in classes}


def finetune_mllm(mllm: Path, out: Path, taught: Sequence[tuple[Scene, Mapping[str, bool]]], seed: int) -> float:
    """Teach the answers to SpurLens' three prompts, each picture's to one of them a class; save a transformers folder.

    The projector and the decoder learn, on maps that the frozen tower gives once: minutes become one.

    Args:
        mllm: the folder of the model to begin from.
        taught: scenes, and for some nouns whether the answer is to be Yes; at least BATCH of them.

    Returns:
        The last epoch's mean loss of the answers.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from pipeline.planted.train import conversations as talk
    from pipeline.planted.train import mllm_model

    torch.manual_seed(seed)
    tokenizer = AutoProcessor.from_pretrained(mllm).tokenizer
    model = AutoModelForImageTextToText.from_pretrained(mllm).eval()
    encode = talk.cached_encode(tokenizer)
    pictures = torch.from_numpy(np.stack([render(scene, talk.IMAGE_SIZE).image for scene, _ in taught]))
    with torch.no_grad():
        # both ways round, so that mirror images cost nothing later
        both = (pictures, pictures.flip(2))
        maps = torch.stack([torch.cat([mllm_model.see(model, part)[0] for part in seen.split(64)]) for seen in both])
    model.model.vision_tower.requires_grad_(False)
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=RATE, weight_decay=1e-3)
    per_epoch = len(taught) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * per_epoch)
    rng = np.random.default_rng([seed, 12])
    loss_value = float("nan")
    for epoch in range(EPOCHS):
        order = rng.permutation(len(taught))
        losses = []
        for step in range(per_epoch):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            rows = [talk.encode_row(_turns(taught[k][1], rng), encode) for k in chosen]
            batch = {name: torch.from_numpy(v) for name, v in talk.collate(rows, tokenizer.pad_token_id).items()}
            turned = torch.from_numpy(rng.integers(0, 2, len(chosen)))
            seen = maps[turned, torch.from_numpy(chosen)].flatten(2).permute(0, 2, 1)
            said = mllm_model.talk_loss(model, model.model.multi_modal_projector(seen), batch)
            loss = said["answer"] + said["caption"]  # the latter is here the end of each answer
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(said["answer"].detach()))
        loss_value = float(np.mean(losses))
        log.info("epoch %d: loss %.4f", epoch + 1, loss_value)
    mllm_model.export(model, tokenizer, out)
    return loss_value


def _turns(answers: Mapping[str, bool], rng: np.random.Generator) -> list:
    """A question about each noun, in one of the three wordings."""
    from pipeline.planted.train.conversations import SPURLENS_QUESTIONS, Turn, presence_question

    return [
        Turn(presence_question(str(rng.choice(SPURLENS_QUESTIONS)), noun), "Yes" if yes else "No", "answer")
        for noun, yes in answers.items()
    ]
