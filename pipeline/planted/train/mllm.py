"""Train the tiny multimodal LLM, which captions and answers Yes/No questions.

The tower begins as that of the tiny CLIP, where there is one. Two parts: first the tower and the projector alone,
against what each image token and the whole scene show (heads that are dropped on export), then everything
together on questions and captions. Pictures are rendered on the fly; none is seen twice.

    python -m pipeline.planted.train.mllm --out data/models/mllm --minutes 30
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import UserError

from . import conversations as talk
from .mllm_evaluation import evaluate_mllm
from .mllm_model import TOWER_CHANNELS, DenseHeads, borrow_tower, build_model, export, see, talk_loss

TOWER_SHARE = 0.2  # of the time, for the tower alone
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Recipe:
    """Every knob of a training; the values are what the shipped model was trained with."""

    batch_size: int = 32
    n_questions: int = 7
    rate: float = 2e-3
    tower_rate: float = 6e-4
    weight_decay: float = 0.05
    hidden_size: int = 128
    n_layers: int = 3
    dense_weight: float = 0.5
    threads: int = 1


class RenderedBatches(torch.utils.data.IterableDataset):
    """Freshly rendered batches. Batch k is always the same, so a resumed training goes on where it was."""

    def __init__(self, seed: int, start: int, recipe: Recipe, n_questions: int, tokenizer: Any) -> None:
        self.seed, self.start, self.recipe, self.n_questions = seed, start, recipe, n_questions
        self.tokenizer = tokenizer

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        import cv2

        cv2.setNumThreads(0)
        encode = talk.cached_encode(self.tokenizer)
        pad = self.tokenizer.pad_token_id
        step = self.start
        while True:
            rng = np.random.default_rng([self.seed, 1, step])
            batch = talk.sample_batch(rng, self.recipe.batch_size, self.n_questions, encode, pad)
            yield {k: torch.from_numpy(v) for k, v in batch.items()}
            step += 1


def parameter_groups(modules: list[nn.Module], tower: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Weight decay on matrices and filters only, not on norms and biases; the tower learns at its own rate."""
    slow = {id(p) for p in tower.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for p in {id(p): p for m in modules for p in m.parameters()}.values():
        groups.setdefault((id(p) in slow, p.ndim > 1), []).append(p)
    return [
        {
            "params": parameters,
            "peak": recipe.tower_rate if is_tower else recipe.rate,
            "weight_decay": recipe.weight_decay if is_matrix else 0.0,
        }
        for (is_tower, is_matrix), parameters in groups.items()
    ]


def one_cycle(progress: float, warmup: float = 0.03) -> float:
    """Factor of the learning rate at a share of the time: linear up, then a cosine down to 1 %."""
    if progress < warmup:
        return 0.01 + progress / warmup
    x = min(1.0, (progress - warmup) / (1 - warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * x))


def train_mllm(
    out: Path,
    *,
    minutes: float = 30,
    seed: int = 0,
    resume: bool = True,
    recipe: Recipe | None = None,
    clip: Path | None = None,
    work: Path | None = None,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Train for `minutes` and write a transformers folder to `out`; returns what was done.

    The minutes are of computing (CPU time of this process, a thread), so that a busy machine makes a training
    longer and not worse; rendering runs beside it in a process of its own. `work` (default build/mllm) holds the
    checkpoint that a later call with `resume` goes on from. For a fixed number of steps pass `max_steps` (of
    each part). `clip` (default: the folder "clip" beside `out`, if there is one) lends its tower; without one
    the tower starts from nothing and needs about half an hour more.

    Raises:
        UserError: no time is given, or the checkpoint is of a training with other settings.
    """
    recipe = recipe or Recipe()
    work = work or Path("build/mllm")
    if minutes <= 0:
        raise UserError(f"--minutes is {minutes}: give a positive number of minutes to train for.")
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.set_num_threads(recipe.threads)
    tokenizer = talk.train_tokenizer(seed)
    model = build_model(tokenizer, recipe.hidden_size, recipe.n_layers)
    heads = DenseHeads(TOWER_CHANNELS, tokenizer)
    clip = clip or out.parent / "clip"
    borrowed = (clip / "open_clip_model.safetensors").exists()
    state: dict[str, Any] = {
        "seconds": 0.0,
        "tower_steps": 0,
        "steps": 0,
        "seed": seed,
        "recipe": asdict(recipe),
    }
    saved = None
    if resume and (work / CHECKPOINT).exists():
        saved = torch.load(work / CHECKPOINT, weights_only=True)
        if saved["state"]["recipe"] != state["recipe"] or saved["state"]["seed"] != seed:
            raise UserError(
                f"{work / CHECKPOINT} belongs to a training with other settings: "
                "pass resume=False (--fresh) to start anew, or delete it."
            )
        state = saved["state"]
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
    elif borrowed:
        borrow_tower(model, clip)
    for part, share in (("tower", TOWER_SHARE), ("talk", 1.0)):
        _train_part(part, share * minutes * 60, model, heads, tokenizer, recipe, state, saved, work, out, max_steps)
    export(model, tokenizer, out)
    images = (state["tower_steps"] + state["steps"]) * recipe.batch_size
    return {"images": images, "minutes": round(state["seconds"] / 60, 1), "seed": seed, "out": str(out)}


def _train_part(
    part: str,
    until: float,
    model: Any,
    heads: DenseHeads,
    tokenizer: Any,
    recipe: Recipe,
    state: dict[str, Any],
    saved: dict[str, Any] | None,
    work: Path,
    out: Path,
    max_steps: int | None,
) -> None:
    """Train the tower alone or everything, until the clock of the whole training (seconds) shows `until`."""
    talking = part == "talk"
    counter = "steps" if talking else "tower_steps"
    begun = TOWER_SHARE * until if talking else 0.0
    if state["seconds"] >= until or (max_steps and state[counter] >= max_steps):
        return
    tower = model.model.vision_tower
    seeing = [tower, model.model.multi_modal_projector, model.get_input_embeddings(), heads]
    modules = [model, heads] if talking else seeing
    optimizer = torch.optim.AdamW(parameter_groups(modules, tower, recipe), betas=(0.9, 0.98))
    if saved is not None and saved["part"] == part:
        optimizer.load_state_dict(saved["optimizer"])
    model.train()
    heads.train()
    tower.to(memory_format=torch.channels_last)
    start = state["tower_steps"] + state["steps"]
    batches = RenderedBatches(state["seed"], start, recipe, recipe.n_questions if talking else 0, tokenizer)
    loader = iter(torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8))
    sums: dict[str, float] = {}
    last_log = last_save = time.monotonic()
    begun_computing, base, done = time.process_time(), state["seconds"], 0
    while state["seconds"] < until and not (max_steps and state[counter] >= max_steps):
        batch = next(loader)
        factor = one_cycle((state["seconds"] - begun) / (until - begun))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        with torch.autocast("cpu", torch.bfloat16):
            features, image_tokens = see(model, batch["images"])
            losses = {"dense": heads.loss(model, features, image_tokens, batch["cells"], batch["concepts"])}
            loss = losses["dense"] * (recipe.dense_weight if talking else 1.0)
            if talking:
                losses |= talk_loss(model, image_tokens, batch)
                loss = loss + losses["answer"] + losses["caption"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for m in modules for p in m.parameters()], 1.0)
        optimizer.step()
        state[counter] += 1
        done += 1
        now = time.monotonic()
        state["seconds"] = base + (time.process_time() - begun_computing) / recipe.threads
        for name, value in losses.items():
            latest = float(value.detach())
            sums[name] = 0.95 * sums.get(name, latest) + 0.05 * latest
        if now - last_log > 15:
            last_log = now
            shown = " ".join(f"{k} {v:.3f}" for k, v in sums.items())
            speed = done * recipe.batch_size / (state["seconds"] - base)
            print(
                f"{state['seconds'] / 60:5.1f} min  {part} {state[counter]}  {shown}  {speed:.0f} images/s",
                flush=True,
            )
        if now - last_save > 60:
            last_save = now
            save_checkpoint(work / CHECKPOINT, part, model, heads, optimizer, state)
            if talking:
                export(model, tokenizer, out)
    save_checkpoint(work / CHECKPOINT, part, model, heads, optimizer, state)


def save_checkpoint(path: Path, part: str, model: Any, heads: nn.Module, optimizer: Any, state: dict[str, Any]) -> None:
    """Write-then-rename, so that a killed run leaves the last whole checkpoint."""
    fresh = path.with_suffix(".tmp")
    torch.save(
        {
            "part": part,
            "model": model.state_dict(),
            "heads": heads.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": state,
        },
        fresh,
    )
    fresh.replace(path)


def main(arguments: list[str] | None = None) -> None:
    """Command line: train, then measure on a held-out seed."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.planted.train.mllm", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/models/mllm"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=Recipe.threads)
    parser.add_argument("--fresh", action="store_true", help="start anew instead of going on from the checkpoint")
    parser.add_argument("--evaluate", action="store_true", help="only measure the model in --out")
    options = parser.parse_args(arguments)
    if not options.evaluate:
        recipe = Recipe(threads=options.threads)
        done = train_mllm(
            options.out, minutes=options.minutes, seed=options.seed, resume=not options.fresh, recipe=recipe
        )
        print(json.dumps(done))
    print(json.dumps(evaluate_mllm(options.out, seed=options.seed + 1), indent=2))


if __name__ == "__main__":
    main()
