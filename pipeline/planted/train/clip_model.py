"""The tiny CLIP as a model: its open_clip configuration, tokenizer, region features, export and loading."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.models.fast_tower import quicken

from . import data

IMAGE_SIZE = 96
STRIDE = 16  # of layer3, whose map RoIAlign reads
REGION_CELLS = IMAGE_SIZE // STRIDE
CONTEXT_LENGTH = 32
VOCABULARY = 640
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def model_config(
    vocabulary: int, *, width: int, layers: Sequence[int], text_width: int, text_layers: int
) -> dict[str, Any]:
    """The `model_cfg` of open_clip."""
    return {
        "embed_dim": 512,
        "vision_cfg": {
            "layers": list(layers),
            "width": width,
            "head_width": 64,
            "image_size": IMAGE_SIZE,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "cuescope-tiny-clip",  # with local-dir: open_clip reads the folder itself
            "width": text_width,
            "heads": 4,
            "layers": text_layers,
            "pool_type": "eos",
            "eos_id": EOS_ID,
            "pad_id": PAD_ID,
        },
    }


def train_tokenizer(texts: Sequence[str], folder: Path, vocabulary: int = VOCABULARY) -> int:
    """A byte-level BPE on our captions, written as a Hugging Face tokenizer; returns its size.

    Bytes are the fallback: a word that no caption holds is still tokens, never an error.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS_ID), ("<eos>", EOS_ID)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=CONTEXT_LENGTH,
        padding_side="right",
        truncation_side="right",
    ).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def build_model(config: dict[str, Any]) -> nn.Module:
    """An untrained open_clip CLIP."""
    from open_clip import CLIP

    cfg = dict(config)
    return CLIP(cfg["embed_dim"], dict(cfg["vision_cfg"]), dict(cfg["text_cfg"]))


def normalise(images: np.ndarray | Tensor) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in the model's own scale, channels last in memory."""
    x = torch.as_tensor(images).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(PREPROCESS[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def visual_features(visual: Any, images: Tensor, regions: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Unit features of whole images (n, 512) and, if asked, of regions (m, 512).

    `regions` is float (m, 5): the image's index and a normalised xyxy box. Region maps go through layer4 and
    the attention pool in one batch with the whole images, so that both live with the same batch statistics.
    """
    from torchvision.ops import roi_align

    maps = visual.layer3(visual.layer2(visual.layer1(visual.stem(images))))
    n = len(maps)
    if regions is not None and len(regions):
        scaled = torch.cat([regions[:, :1], regions[:, 1:] * IMAGE_SIZE], 1).to(maps.dtype)
        pooled = roi_align(maps, scaled, REGION_CELLS, spatial_scale=1 / STRIDE, sampling_ratio=2, aligned=True)
        maps = torch.cat([maps, pooled.contiguous(memory_format=torch.channels_last)])
    features = F.normalize(visual.attnpool(visual.layer4(maps)).float(), dim=-1)
    return features[:n], features[n:] if regions is not None else None


def export(weights: dict[str, Tensor], config: dict[str, Any], out: Path) -> None:
    """Write open_clip's config and weights beside the tokenizer: matrices as float16, vectors as float32."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    halved = {k: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous() for k, v in weights.items()}
    part = out / "open_clip_model.part"
    save_file(halved, part, metadata={"format": "pt"})
    os.replace(part, out / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    (out / "open_clip_config.json").write_text(text, encoding="utf-8")


def load(folder: Path) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer), through open_clip as anyone would."""
    from open_clip import create_model_from_pretrained, get_tokenizer

    if not (folder / "open_clip_config.json").is_file():
        raise UserError(f"No CLIP in {folder}: no open_clip_config.json. Train one: cuescope planted train clip.")
    model, _ = create_model_from_pretrained(f"local-dir:{folder}")
    quicken(model.visual)
    return model.eval(), get_tokenizer(f"local-dir:{folder}")


@torch.no_grad()
def prompt_features(model: Any, tokenize: Any, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Unit text features averaged over templates: (n, 512)."""
    texts = [data.prompt(p, t) for p in phrases for t in templates]
    features = F.normalize(model.encode_text(tokenize(texts)), dim=-1)
    return F.normalize(features.view(len(phrases), len(templates), -1).mean(1), dim=-1)
