"""Image towers of open_clip that give what they gave, but for rounding, in less time.

Attention pooling, for the one token that is kept, takes a tenth of the arithmetic: open_clip's AttentionPool2d projects
queries, keys, values and outputs of all places and returns the first. With one query the projections of keys and values
can be moved past the sums over places: q . (W k) = (W' q) . k and sum a (W v) = W (sum a v).

Batch normalisation, at inference a scaling of each channel, goes into the convolution before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class SummaryAttention(nn.Module):
    """Takes the place of an open_clip AttentionPool2d, with its parameters by their own names."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.positional_embedding = pool.positional_embedding
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.num_heads = int(pool.num_heads)

    def forward(self, features: Tensor) -> Tensor:
        """(n, c, h, w) to (n, d)."""
        places = features.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        n, _, width = tokens.shape
        heads = (self.num_heads, width // self.num_heads)
        query = self.q_proj(tokens[:, 0]).view(n, *heads) * heads[1] ** -0.5
        # a bias of the keys adds the same to every place's score, which the softmax takes out again
        toward = torch.einsum("nhd,hdc->nhc", query, self.k_proj.weight.view(*heads, width))
        attention = (toward @ tokens.transpose(1, 2)).softmax(dim=-1)
        mixed = torch.einsum("nhc,hdc->nhd", attention @ tokens, self.v_proj.weight.view(*heads, width))
        return self.c_proj((mixed + self.v_proj.bias.view(heads)).flatten(1))


def quicken(visual: Any) -> Any:
    """The image tower made for speed, in place: channels last in memory (2-D convolutions and poolings run several
    times as fast on CPUs), and of attention pooling only what is kept."""
    from open_clip.modified_resnet import AttentionPool2d

    if isinstance(getattr(visual, "attnpool", None), AttentionPool2d):
        visual.attnpool = SummaryAttention(visual.attnpool)
    return visual.to(memory_format=torch.channels_last)


def fold(visual: Any) -> Any:
    """A ResNet's tower for inference alone, in place: convolutions do the work of the batch normalisation after them.

    Where the two have one type: of a model in half precision the normalisation may be kept in full.
    """
    from open_clip.modified_resnet import Bottleneck, ModifiedResNet

    for block in visual.modules():
        if isinstance(block, Bottleneck | ModifiedResNet):
            for number in ("1", "2", "3"):
                _fold(block, f"conv{number}", f"bn{number}")
        if isinstance(block, Bottleneck) and block.downsample is not None:
            _fold(block.downsample, "0", "1")
    return visual.to(memory_format=torch.channels_last)


def _fold(block: nn.Module, convolution: str, normalisation: str) -> None:
    before, after = block.get_submodule(convolution), block.get_submodule(normalisation)
    assert isinstance(before, nn.Conv2d)
    if isinstance(after, nn.BatchNorm2d) and before.weight.dtype == after.weight.dtype:
        block.register_module(convolution, fuse_conv_bn_eval(before, after))
        block.register_module(normalisation, nn.Identity())
