"""The tiny multimodal LLM as a model: its transformers configuration, processor, losses and export.

The architecture is FastVLM's (arXiv 2412.13303): a convolutional tower, a two-layer projector and a Qwen2
decoder, here of three small layers. The tower is, block for block, that of our tiny CLIP (open_clip's
ModifiedResNet, which timm knows as resnetaa-d), so that it can begin where the CLIP's training ended.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import UserError

from .. import TRAIN_OBJECTS
from . import conversations as talk

# The CLIP's own scale of pixels, and the size of its tower (clip.py's Recipe).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
TOWER_WIDTH, TOWER_LAYERS = 24, (1, 2, 1, 1)
TOWER_CHANNELS = 32 * TOWER_WIDTH


def build_model(tokenizer: Any, hidden_size: int, n_layers: int) -> Any:
    """An untrained FastVlmForConditionalGeneration for 96 px pictures: 6 x 6 image tokens."""
    from transformers import FastVlmConfig, FastVlmForConditionalGeneration

    config = FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "resnetaa50d",
            "do_pooling": False,
            "hidden_size": TOWER_CHANNELS,
            "model_args": {
                "channels": [TOWER_WIDTH * k for k in (1, 2, 4, 8)],
                "layers": list(TOWER_LAYERS),
                "output_stride": talk.STRIDE,
                "stem_width": TOWER_WIDTH // 2,
            },
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        image_token_index=tokenizer.convert_tokens_to_ids(talk.IMAGE),
        image_seq_length=talk.N_IMAGE_TOKENS,
        tie_word_embeddings=True,
    )
    return FastVlmForConditionalGeneration(config)


def build_processor(tokenizer: Any) -> Any:
    """A LlavaProcessor (FastVLM's): any picture becomes 96 x 96, and `<image>` becomes 36 placeholders."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    side = {"height": talk.IMAGE_SIZE, "width": talk.IMAGE_SIZE}
    images = CLIPImageProcessor(
        size=side, crop_size=side, do_center_crop=False, image_mean=list(MEAN), image_std=list(STD)
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=talk.STRIDE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=talk.CHAT_TEMPLATE,
    )


def borrow_tower(model: Any, clip: Path) -> None:
    """Start the tower from the weights of a CLIP folder (open_clip `local-dir:`) of our own size.

    Up to its third stage the tower then gives the CLIP's very map; the fourth keeps its resolution here, where
    the CLIP pools.

    Raises:
        UserError: the CLIP's tower is of another size.
    """
    from safetensors.torch import load_file

    vision = json.loads((clip / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    if vision["width"] != TOWER_WIDTH or tuple(vision["layers"]) != TOWER_LAYERS:
        raise UserError(
            f"The CLIP in {clip} has a tower of another size ({vision['layers']} blocks, width {vision['width']}; "
            f"wanted are {list(TOWER_LAYERS)} and {TOWER_WIDTH}). Train it anew, or pass no CLIP."
        )
    weights = load_file(clip / "open_clip_model.safetensors")
    model.model.vision_tower.timm_model.load_state_dict(
        {
            timm_name(name.removeprefix("visual.")): value.float()
            for name, value in weights.items()
            if name.startswith("visual.") and not name.startswith("visual.attnpool.")
        }
    )


def timm_name(name: str) -> str:
    """timm's name of a weight of open_clip's ModifiedResNet: the stem is one sequence, the shortcuts begin with
    their pooling."""
    stem = re.fullmatch(r"(conv|bn)([123])\.(\w+)", name)
    if stem:
        layer, number, weight = stem.groups()
        if (layer, number) == ("bn", "3"):
            return f"bn1.{weight}"
        return f"conv1.{3 * (int(number) - 1) + (layer == 'bn')}.{weight}"
    return re.sub(r"downsample\.([01])\.", lambda m: f"downsample.{int(m[1]) + 1}.", name)


class DenseHeads(nn.Module):
    """Auxiliary losses of tower and projector, dropped on export: which word each image token stands for.

    The cell head reads the tower's map; the lens reads the projected image tokens as the decoder's output
    layer would, against the (tied) embeddings of the words. So the image token of a boat points where the word
    "boat" points, and the decoder finds the one by the other instead of having to discover that they belong
    together. The scene head is an ordinary multi-label head.
    """

    word_ids: torch.Tensor
    word_mask: torch.Tensor

    def __init__(self, channels: int, tokenizer: Any) -> None:
        super().__init__()
        ids = [tokenizer(f" {word}").input_ids for word in talk.WORDS]
        longest = max(map(len, ids))
        padded = torch.tensor([i + [0] * (longest - len(i)) for i in ids])
        mask = torch.tensor([[1.0] * len(i) + [0.0] * (longest - len(i)) for i in ids])
        self.register_buffer("word_ids", padded, persistent=False)
        self.register_buffer("word_mask", (mask / mask.sum(1, keepdim=True))[:, :, None], persistent=False)
        self.cells = nn.Conv2d(channels, len(talk.WORDS) + 1, 1)  # the last is "no object"
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.no_object = nn.Parameter(torch.tensor(2.0))
        self.scene = nn.Linear(2 * channels, len(talk.SCENE_TARGETS))

    def loss(
        self,
        model: Any,
        features: torch.Tensor,
        tokens: torch.Tensor,
        cells: torch.Tensor,
        concepts: torch.Tensor,
    ) -> torch.Tensor:
        """The sum of the three heads' losses.

        features: the tower's map (B, C, 6, 6); tokens: the projector's (B, 36, D); cells (B, words, 6, 6) and
        concepts (B, concepts) as of `dense_targets`.
        """
        words = (model.get_input_embeddings()(self.word_ids) * self.word_mask).sum(1).float()
        lens = self.scale * F.rms_norm(tokens.float(), tokens.shape[-1:]) @ words.T
        lens = torch.cat([lens, self.no_object.expand(*lens.shape[:2], 1)], dim=2)
        lens = lens.transpose(1, 2).unflatten(2, cells.shape[2:])
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        scene = F.binary_cross_entropy_with_logits(self.scene(pooled).float(), concepts)
        return cell_loss(self.cells(features).float(), cells) + 0.5 * cell_loss(lens, cells) + 5 * scene


def cell_loss(logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Cross-entropies of each cell over the objects and "no object", and over the backgrounds.

    logits (B, words + 1, 6, 6); cells (B, words, 6, 6) of 1, 0 and -1. A cell with several objects has to name
    all; one with only a bit of an object doesn't count. Cells with an object are fewer and weigh three times
    as much. (A softmax over words learned twice as fast here as one sigmoid for each.)
    """
    n = len(TRAIN_OBJECTS)
    shown = (cells == 1).float()
    empty = (cells[:, :n] == 0).all(1, keepdim=True).float()
    objects = torch.cat([shown[:, :n], empty], dim=1)
    weight = (objects.amax(1) > 0) * (3 - 2 * empty[:, 0])
    log_p = F.log_softmax(torch.cat([logits[:, :n], logits[:, -1:]], dim=1), dim=1)
    named = -(log_p * objects).sum(1) / objects.sum(1).clamp_min(1)
    background = shown[:, n:]
    placed = -(F.log_softmax(logits[:, n:-1], dim=1) * background).sum(1)
    return (named * weight).sum() / weight.sum() + placed.sum() / background.sum().clamp_min(1)


def pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, 3) to what the processor gives: float (B, 3, H, W), normalised."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    scaled = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def see(model: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (B, 96, 96, 3) to the tower's map (B, C, 6, 6) and the projected image tokens (B, 36, D)."""
    features = model.model.vision_tower(pixels(images)).last_hidden_state
    return features, model.model.multi_modal_projector(features.flatten(2).permute(0, 2, 1))


def talk_loss(model: Any, image_tokens: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cross-entropy of the answers and of the captions, and the share of right answers, by the image tokens.

    Answers and captions are averaged apart, so that a few Yes/No tokens weigh as much as a long caption.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    hidden = model.model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=image_tokens)},
        use_cache=False,
    ).last_hidden_state
    taught = batch["labels"] != talk.IGNORE
    labels, is_answer = batch["labels"][taught], batch["is_answer"][taught]
    logits = model.lm_head(hidden[taught]).float()
    loss = F.cross_entropy(logits, labels, reduction="none")
    verdict = is_answer & (labels != model.config.text_config.eos_token_id)
    right = (logits[verdict].argmax(-1) == labels[verdict]).float().mean()
    return {"answer": loss[verdict].mean(), "caption": loss[~verdict].mean(), "right": right.detach()}


def export(model: Any, tokenizer: Any, out: Path) -> None:
    """Write the folder that AutoProcessor and AutoModelForImageTextToText load.

    Half precision on disk, single precision in memory (half precision is slow on a CPU).
    """
    half = copy.deepcopy(model).eval().half()
    half.generation_config.max_new_tokens = 64
    half.generation_config.do_sample = False
    # A decoder this small forgets what it has named; a penalty keeps the order of Yes and No.
    half.generation_config.repetition_penalty = 1.1
    half.save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "model.safetensors").chmod(0o644)
