"""Embeddings of many regions from one forward of an image: RoIAlign on the last map that still has places.

Each architecture keeps its own way from that map to the embedding, so that the box of the whole image gives
the embedding of the image wherever the architecture allows it:

- ModifiedResNet (CLIP's RN50 family): align the map of layer3, then layer4 and attention pooling for each
  region (RegionCLIP, Zhong et al. 2022). Exact for the whole image.
- VisionTransformer pooled by its class token: the patch tokens of the last block through its value path alone
  (MaskCLIP, Zhou et al. 2022; as CLIPSelf, Wu et al. 2024, does for boxes), for the class token
  sees the whole image and plain patch tokens aren't trained to lie in the joint space. A mean, not exact;
  with such a model crops describe small regions better.
- VisionTransformer pooled by mean or attention, and timm trunks: align the final map, then the model's own
  pooling and projection. Exact for the whole image, except for timm transformers with a class token (mean of
  patches).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from pipeline.errors import UserError


@dataclass(frozen=True)
class Stages:
    """An image tower cut in two where places end: `dense` once for each image, `pool` for each region.

    dense: (n, 3, height, width) -> (n, c, h, w).  pool: (r, c, h, w), aligned -> (r, d), not normalised.
    """

    dense: Callable[[Tensor], Tensor]
    pool: Callable[[Tensor], Tensor]


def region_features(stages: Stages, pixels: Tensor, boxes: Sequence[Tensor], at_once: int = 256) -> Tensor:
    """(sum of boxes, d) embeddings, not normalised, image after image.

    Args:
        stages: the tower, from :func:`stages_of`.
        pixels: (n, 3, height, width), preprocessed.
        boxes: for each image (r, 4) normalised xyxy in the frame of `pixels`.
        at_once: regions that are pooled together, which bounds the memory.
    """
    maps = stages.dense(pixels)
    height, width = maps.shape[-2:]
    scale = torch.tensor([width, height, width, height], dtype=torch.float32, device=maps.device)
    owners = torch.repeat_interleave(torch.tensor([len(of_image) for of_image in boxes])).to(scale)
    rows = torch.cat([owners[:, None], torch.cat(list(boxes)).to(scale) * scale], dim=1)
    parts = []
    for some in rows.split(at_once):
        # aligned and with one sample a bin: the box of the whole image gives the map back
        aligned = roi_align(maps.float(), some, (height, width), sampling_ratio=1, aligned=True)
        parts.append(stages.pool(aligned.to(maps.dtype, memory_format=torch.channels_last)))
    return torch.cat(parts)


def stages_of(visual: Any) -> Stages:
    """How to cut an open_clip image tower.

    Raises:
        UserError: an architecture that isn't known here; crops work with any.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, ModifiedResNet):
        return Stages(
            lambda pixels: visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))),
            lambda regions: visual.attnpool(visual.layer4(regions)),
        )
    if isinstance(visual, VisionTransformer):
        return _transformer_stages(visual)
    if isinstance(visual, TimmModel):
        trunk = timm_stages(visual.trunk)
        return Stages(trunk.dense, lambda regions: visual.head(trunk.pool(regions)))
    raise UserError(f"embed: RoIAlign isn't known for the image tower {type(visual).__name__}. Use regions: crops.")


def timm_stages(trunk: Any) -> Stages:
    """How to cut a timm model: `forward_features` as the map, `forward_head` for each region.

    The head includes the classifier if the model has one; make it with num_classes=0 for an encoder.
    """
    prefix = int(getattr(trunk, "num_prefix_tokens", 0))
    last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"

    def dense(pixels: Tensor) -> Tensor:
        features = trunk.forward_features(pixels)
        if features.dim() == 3:
            tokens = features[:, prefix:]
            height, width = trunk.patch_embed.grid_size
            return tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)
        return features.permute(0, 3, 1, 2) if last else features

    def pool(regions: Tensor) -> Tensor:
        if not hasattr(trunk, "patch_embed") or last:
            return trunk.forward_head(regions.permute(0, 2, 3, 1) if last else regions)
        tokens = regions.flatten(2).transpose(1, 2)
        if getattr(trunk, "attn_pool", None) is not None:
            pooled = trunk.attn_pool(tokens)
        else:
            # a class token has seen the whole image, so it can't stand for a region
            pooled = tokens.mean(dim=1)
        return trunk.head(trunk.head_drop(trunk.fc_norm(pooled)))

    return Stages(dense, pool)


def _transformer_stages(visual: Any) -> Stages:
    by_class_token = visual.attn_pool is None and visual.pool_type == "tok"

    def dense(pixels: Tensor) -> Tensor:
        tokens = visual._embeds(pixels)
        *early, final = visual.transformer.resblocks
        for block in early:
            tokens = block(tokens)
        tokens = _value_path(final, tokens) if by_class_token else final(tokens)
        height, width = visual.grid_size
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, height, width)

    def pool(regions: Tensor) -> Tensor:
        tokens = regions.flatten(2).transpose(1, 2)
        if by_class_token:
            pooled = visual.ln_post(tokens).mean(dim=1)
        elif visual.attn_pool is None:
            # `_pool` expects a class token before the patches and leaves it out of the mean
            pooled, _ = visual._pool(torch.cat([tokens[:, :1], tokens], dim=1))
        else:
            pooled, _ = visual._pool(tokens)
        return pooled if visual.proj is None else pooled @ visual.proj

    return Stages(dense, pool)


def _value_path(block: Any, tokens: Tensor) -> Tensor:
    """The last block with each token attending only to itself, without its own residual (MaskCLIP)."""
    attention = getattr(block, "attn", None)
    if not isinstance(attention, nn.MultiheadAttention):
        return block(tokens)
    width = attention.embed_dim
    weight, bias = attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
    values = nn.functional.linear(block.ln_1(tokens), weight, bias)
    x = tokens + block.ls_1(attention.out_proj(values))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
