"""Fine-tune the image side of a tiny CLIP on labelled scenes, the text side frozen, as RaVL's planted settings do."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.planted import Scene, render

log = logging.getLogger(__name__)

EPOCHS = 8
BATCH = 64
RATE = 5e-4


def finetune(
    clip: Path,
    out: Path,
    labelled: Sequence[tuple[str, Scene]],
    classes: Sequence[str],
    seed: int,
    size: int = 96,
) -> float:
    """Train the last image stage and pooling on cross-entropy over the classes' prompts; save as an open_clip folder.

    Returns:
        The last epoch's mean training loss.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    pictures = np.stack([render(scene, size).image for _, scene in labelled])
    norm = preprocess.transforms[-1]
    mean, std = torch.tensor(norm.mean).view(3, 1, 1), torch.tensor(norm.std).view(3, 1, 1)
    pixels = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - mean) / std
    target = torch.tensor([list(classes).index(label) for label, _ in labelled])
    model.eval()
    with torch.no_grad():
        text = model.encode_text(tokenizer([f"a photo of a {name}" for name in classes]), normalize=True)
        scale = model.logit_scale.exp()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    trained = [p for n, p in model.visual.named_parameters() if n.startswith(("layer3", "layer4", "attnpool"))]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-4)
    steps = EPOCHS * (len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 1))
    rng = np.random.default_rng(seed)
    loss_value = float("nan")
    for epoch in range(EPOCHS):
        order = rng.permutation(len(pixels))
        losses = []
        for first in range(0, len(order) - BATCH + 1, BATCH):
            batch = order[first : first + BATCH]
            x = pixels[batch]
            flipped = torch.from_numpy(rng.random(len(batch)) < 0.5)
            x = torch.where(flipped[:, None, None, None], x.flip(3), x)
            features = model.encode_image(x, normalize=True)
            loss = torch.nn.functional.cross_entropy(scale * features @ text.T, target[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        loss_value = float(np.mean(losses))
        log.info("epoch %d: loss %.4f", epoch + 1, loss_value)
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(clip, out, ignore=shutil.ignore_patterns("*.safetensors", "README.md", "*.bin", "*.pt"))
    state = {
        name: value.detach().half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, str(out / "open_clip_model.safetensors"))
    (out / "training.json").write_text(json.dumps({"pictures": len(pixels), "loss": loss_value, "seed": seed}) + "\n")
    return loss_value
