"""An image tower made quick gives what it gave."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipeline.models.fast_tower import SummaryAttention, fold, quicken
from pipeline.planted.train import clip_model


@pytest.fixture
def own() -> nn.Module:
    """A tower as open_clip makes it, with numbers that hide nothing: biases are zero at first."""
    torch.manual_seed(0)
    config = clip_model.model_config(300, width=8, layers=(1, 1, 1, 1), text_width=32, text_layers=1)
    own = clip_model.build_model(config).eval().visual
    for parameter in own.attnpool.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values)
    return own


def test_a_quickened_tower_gives_the_embeddings_of_open_clips_own(own: nn.Module) -> None:
    quick = quicken(copy.deepcopy(own))
    assert isinstance(quick.attnpool, SummaryAttention)
    assert quick.state_dict().keys() == own.state_dict().keys()
    pixels = torch.randn(3, 3, clip_model.IMAGE_SIZE, clip_model.IMAGE_SIZE)
    with torch.no_grad():
        torch.testing.assert_close(quick(pixels), own(pixels), atol=1e-4, rtol=1e-4)


def test_a_folded_tower_gives_the_same_without_batch_normalisation(own: nn.Module) -> None:
    folded = fold(copy.deepcopy(own))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    pixels = torch.randn(3, 3, clip_model.IMAGE_SIZE, clip_model.IMAGE_SIZE)
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels), own(pixels), atol=1e-4, rtol=1e-4)


def test_normalisation_that_is_kept_in_full_precision_stays(own: nn.Module) -> None:
    for module in own.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)
    assert fold(own).bn1.weight.dtype == torch.float32
