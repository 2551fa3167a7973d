"""An image tower made quick gives what it gave."""

from __future__ import annotations

import copy

import torch

from pipeline.models.attention_pool import SummaryAttention, quicken
from pipeline.planted.train import clip_model


def test_a_quickened_tower_gives_the_embeddings_of_open_clips_own() -> None:
    torch.manual_seed(0)
    config = clip_model.model_config(300, width=8, layers=(1, 1, 1, 1), text_width=32, text_layers=1)
    own = clip_model.build_model(config).eval().visual
    for parameter in own.attnpool.parameters():  # biases are zero at first, and would hide a mistake with them
        torch.nn.init.normal_(parameter, std=0.2)
    quick = quicken(copy.deepcopy(own))
    assert isinstance(quick.attnpool, SummaryAttention)
    assert quick.state_dict().keys() == own.state_dict().keys()
    pixels = torch.randn(3, 3, clip_model.IMAGE_SIZE, clip_model.IMAGE_SIZE)
    with torch.no_grad():
        torch.testing.assert_close(quick(pixels), own(pixels), atol=1e-4, rtol=1e-4)
