"""Embeddings of many regions from one forward of an image: RoIAlign on the last map that still has places.

Each architecture keeps its own way from that map to the embedding, so that the box of the whole image gives
the embedding of the image wherever the architecture allows it:

- ModifiedResNet (CLIP's RN50 family): align the map of layer3, then layer4 and attention pooling for each
  region (RegionCLIP, Zhong et al. 2022). Exact for the whole image. The two 1 x 1 convolutions that layer4 starts with
  are made of the map, before it is aligned: what is linear in the channels of a place and what is linear in the places
  of a channel may change their order. That is a quarter of a region's operations.
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
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError


@dataclass(frozen=True)
class Stages:
    """An image tower cut in two where places end: `dense` once for each image, `pool` for each region.

    dense: (n, 3, height, width) -> one map or more, each (n, c, h, w).
    pool: these maps aligned, each (r, c, h // bin, w // bin) -> (r, d), not normalised.
    bins: of each map, the places on a side of what is averaged, as an average pooling after RoIAlign would.
    """

    dense: Callable[[Tensor], tuple[Tensor, ...]]
    pool: Callable[..., Tensor]
    bins: tuple[int, ...] = (1,)


def region_features(stages: Stages, pixels: Tensor, boxes: Sequence[Tensor], at_once: int = 256) -> Tensor:
    """(sum of boxes, d) embeddings, not normalised, image after image.

    Args:
        stages: the tower, from :func:`stages_of`.
        pixels: (n, 3, height, width), preprocessed.
        boxes: for each image (r, 4) normalised xyxy in the frame of `pixels`.
        at_once: regions that are pooled together, which bounds the memory.
    """
    maps = stages.dense(pixels)
    height, width = maps[0].shape[-2:]
    tables = [each.permute(0, 2, 3, 1).flatten(0, 2).float() for each in maps]
    owners = torch.repeat_interleave(torch.tensor([len(of_image) for of_image in boxes])).to(pixels.device)
    rows = torch.cat(list(boxes)).to(tables[0])
    parts = []
    for some, owner in zip(rows.split(at_once), owners.split(at_once), strict=True):
        places, weights = samples(some, height, width)
        places += (owner * height * width)[:, None, None, None]
        aligned = [
            align(table, places, weights, bin).to(maps[0].dtype) for table, bin in zip(tables, stages.bins, strict=True)
        ]
        parts.append(stages.pool(*aligned))
    return torch.cat(parts)


def samples(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What RoIAlign (He et al. 2017, section 3) takes of a map, with as many bins as the map has places and one sample
    in the middle of each, so that the box of the whole image gives the map back: (r, height, width, 4) places, row by
    row, and their weights, which sum to 1.

    Args:
        boxes: (r, 4) normalised xyxy, in [0, 1].
        height: places of the map from top to bottom.
        width: places from left to right.
    """

    def on_axis(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
        middles = (torch.arange(size, device=boxes.device) + 0.5) / size
        at = ((low[:, None] + (high - low)[:, None] * middles) * size - 0.5).clamp(0, size - 1)
        before = at.floor().long()
        beyond = at - before
        return torch.stack([before, (before + 1).clamp(max=size - 1)], -1), torch.stack([1 - beyond, beyond], -1)

    x0, y0, x1, y1 = boxes.unbind(1)
    (down, by_row), (across, by_column) = on_axis(y0, y1, height), on_axis(x0, x1, width)
    places = down[:, :, None, :, None] * width + across[:, None, :, None, :]
    weights = by_row[:, :, None, :, None] * by_column[:, None, :, None, :]
    return places.flatten(-2), weights.flatten(-2)


def align(table: Tensor, places: Tensor, weights: Tensor, bin: int = 1) -> Tensor:
    """(r, c, h // bin, w // bin), channels last in memory: of a map's rows (places, c) the sums of :func:`samples`,
    averaged over squares of `bin` by `bin`.

    torchvision's roi_align gives the same, with channels first, and takes several times as long on a CPU.
    """
    r, height, width, corners = places.shape
    high, wide = height // bin, width // bin

    def of_square(values: Tensor) -> Tensor:
        cut = values[:, : high * bin, : wide * bin].reshape(r, high, bin, wide, bin, corners)
        return cut.transpose(2, 3).reshape(r * high * wide, bin * bin * corners)

    weighted = of_square(weights) / (bin * bin)
    rows = F.embedding_bag(of_square(places), table, per_sample_weights=weighted, mode="sum")
    return rows.view(r, high, wide, -1).permute(0, 3, 1, 2)


def stages_of(visual: Any) -> Stages:
    """How to cut an open_clip image tower.

    Raises:
        UserError: an architecture that isn't known here; crops work with any.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, ModifiedResNet):
        return _resnet_stages(visual)
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

    def dense(pixels: Tensor) -> tuple[Tensor, ...]:
        features = trunk.forward_features(pixels)
        if features.dim() == 3:
            tokens = features[:, prefix:]
            height, width = trunk.patch_embed.grid_size
            return (tokens.transpose(1, 2).reshape(len(tokens), -1, height, width),)
        return (features.permute(0, 3, 1, 2) if last else features,)

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


def _resnet_stages(visual: Any) -> Stages:
    first, *others = visual.layer4
    _, shortcut, normalise = first.downsample  # what pools before it, the alignment does

    def dense(pixels: Tensor) -> tuple[Tensor, ...]:
        places = visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels))))
        return first.bn1(first.conv1(places)), normalise(shortcut(places))

    def pool(squeezed: Tensor, short: Tensor) -> Tensor:
        regions = first.act2(first.bn2(first.conv2(first.act1(squeezed))))
        regions = first.act3(first.bn3(first.conv3(first.avgpool(regions))) + short)
        for block in others:
            regions = block(regions)
        return visual.attnpool(regions)

    return Stages(dense, pool, (1, first.stride))


def _transformer_stages(visual: Any) -> Stages:
    by_class_token = visual.attn_pool is None and visual.pool_type == "tok"

    def dense(pixels: Tensor) -> tuple[Tensor, ...]:
        tokens = visual._embeds(pixels)
        *early, final = visual.transformer.resblocks
        for block in early:
            tokens = block(tokens)
        tokens = _value_path(final, tokens) if by_class_token else final(tokens)
        height, width = visual.grid_size
        return (tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, height, width),)

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
