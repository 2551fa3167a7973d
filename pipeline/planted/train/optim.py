"""What the trainings share: parameter groups, the learning rate over the time given, averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def adamw(
    model: nn.Module,
    rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    extra: tuple[nn.Parameter, ...] = (),
) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, and neither vectors nor `extra`."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in wanted if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in wanted if p.ndim <= 1] + list(extra), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=betas)


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warmup: int, done: float) -> None:
    """Linear warm-up over `warmup` steps; a cosine to 1 % over the share `done` (0 to 1) of the time."""
    rate = peak * min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
    for group in optimizer.param_groups:
        group["lr"] = rate


def average(mean: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Move the running mean of a model's state (in place) towards it; early on it follows closely."""
    keep = min(decay, (1 + step) / (10 + step))
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            mean[key].lerp_(value.detach(), 1 - keep)
        else:
            mean[key].copy_(value)


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """A detached copy of the model's state, to start a running mean."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}
