"""Untrained models of a few thousand weights, saved in the real formats and opened by the real loaders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.llm_server import Server

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VISION: dict[str, dict[str, Any]] = {
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "vit_token": {"image_size": 64, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8},
    "vit_mean": {
        "image_size": 64,
        "layers": 2,
        "width": 48,
        "head_width": 16,
        "patch_size": 8,
        "pool_type": "avg",
    },
    "vit_attention": {
        "image_size": 64,
        "layers": 2,
        "width": 48,
        "head_width": 16,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_queries": 4,
        "attn_pooler_heads": 4,
    },
    "timm_convnext": {
        "image_size": 64,
        "timm_model_name": "test_convnext",
        "timm_pool": "",
        "timm_proj": "linear",
    },
    "timm_vit_map": {
        "image_size": 160,
        "timm_model_name": "test_vit2",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "timm_vit_token": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_pool": "",
        "timm_proj": "linear",
    },
}


def save_clip(folder: Path, tower: str = "resnet", *, seed: int = 0, width: int = 64, **preprocess: Any) -> str:
    """An untrained open_clip model in `folder`; returns its name for open_clip."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model_cfg = {"embed_dim": width, "vision_cfg": VISION[tower], "text_cfg": TEXT}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}")
        for name, parameter in model.named_parameters():
            if name.endswith("bn3.weight"):  # zero at birth: the blocks of an untrained ResNet would do nothing
                torch.nn.init.ones_(parameter)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """clip(tower) -> the name of an untrained model with that image tower, made once a session."""
    root = tmp_path_factory.mktemp("clip")
    made: dict[str, str] = {}

    def make(tower: str = "resnet", **options: Any) -> str:
        key = f"{tower}-{sorted(options.items())}"
        if key not in made:
            made[key] = save_clip(root / str(len(made)), tower, **options)
        return made[key]

    return make


@pytest.fixture
def pictures() -> Callable[..., list[np.ndarray]]:
    """pictures(n, height, width) -> smooth random RGB pictures, the same for the same arguments."""

    def make(count: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
        import cv2

        rng = np.random.default_rng([seed, height, width])
        coarse = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
        return [cv2.resize(rows, (width, height), interpolation=cv2.INTER_LINEAR) for rows in coarse]

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A language model's server on this machine; no key is set."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with Server() as running:
        yield running
