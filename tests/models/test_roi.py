"""Alignment of regions gives what torchvision's RoIAlign gives; what is made before it, what would be made after."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from pipeline.models.fast_tower import fold, quicken
from pipeline.models.roi import align, region_features, samples, stages_of
from pipeline.planted.train import clip_model

SIDE = st.integers(1, 9)


def boxes_of(number: int, seed: int) -> torch.Tensor:
    """(number, 4), the first the whole image and the second without an area."""
    ends = torch.rand(number, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(dim=1).values.flatten(1)
    ends[0] = torch.tensor([0.0, 0, 1, 1])
    ends[1, 2:] = ends[1, :2]
    return ends


@settings(max_examples=40, deadline=None)
@given(SIDE, SIDE, st.integers(0, 1000))
def test_regions_are_aligned_as_torchvision_does(height: int, width: int, seed: int) -> None:
    number, boxes = 2, boxes_of(5, seed)
    maps = torch.randn(number, 3, height, width)
    owners = torch.arange(number).repeat_interleave(len(boxes))
    asked = boxes.repeat(number, 1)
    scaled = asked * torch.tensor([width, height, width, height])
    expected = roi_align(maps, torch.cat([owners[:, None], scaled], 1), (height, width), sampling_ratio=1, aligned=True)
    places, weights = samples(asked, height, width)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(asked), height, width))
    table = maps.permute(0, 2, 3, 1).flatten(0, 2)
    places = places + (owners * height * width)[:, None, None, None]
    found = align(table, places, weights)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    if min(height, width) >= 2:
        pooled = align(table, places, weights, 2)
        torch.testing.assert_close(pooled, torch.nn.functional.avg_pool2d(expected, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (1, 2, 1, 3)])
@pytest.mark.parametrize("quick", [False, True])
def test_a_resnets_regions_are_those_of_the_aligned_map_of_its_third_layer(layers, quick: bool) -> None:
    torch.manual_seed(0)
    config = clip_model.model_config(300, width=8, layers=layers, text_width=32, text_layers=1)
    visual = clip_model.build_model(config).eval().visual
    for module in visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # biases are zero at first, and means
            for values in (module.weight, module.running_var):
                torch.nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.bias, module.running_mean):
                torch.nn.init.normal_(values)
    if quick:
        visual = fold(quicken(visual))
    pixels = torch.randn(2, 3, clip_model.IMAGE_SIZE, clip_model.IMAGE_SIZE)
    boxes = [boxes_of(4, 1), boxes_of(3, 2)]
    with torch.inference_mode():
        maps = visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels))))
        height, width = maps.shape[-2:]
        scaled = [each * torch.tensor([width, height, width, height]) for each in boxes]
        aligned = roi_align(maps, scaled, (height, width), sampling_ratio=1, aligned=True)
        expected = visual.attnpool(visual.layer4(aligned))
        found = region_features(stages_of(visual), pixels, boxes, at_once=3)
        whole = visual(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[[0, 4]], whole, atol=1e-4, rtol=1e-4)
