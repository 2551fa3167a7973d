"""The models of a setting: a tower cut in two is the same tower, and fine-tuning teaches what it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bench.planted import families
from pipeline.bench.planted.settings import Example
from pipeline.models import registry
from pipeline.planted import Scene, render
from pipeline.planted.train import clip_model

SHIPPED = Path(__file__).parents[2] / "data" / "models" / "clip"


def test_the_two_halves_of_a_tower_are_the_tower() -> None:
    torch.manual_seed(0)
    config = clip_model.model_config(300, width=8, layers=(1, 1, 1, 1), text_width=32, text_layers=1)
    visual = clip_model.build_model(config).eval().visual
    tower = families.halves(visual)
    pixels = torch.randn(2, 3, families.SIZE, families.SIZE)
    with torch.no_grad():
        torch.testing.assert_close(tower.upper(tower.lower(pixels)), visual(pixels), atol=1e-5, rtol=1e-4)
    own = {id(p) for p in visual.parameters()}
    assert tower.learns
    assert {id(p) for p in tower.learns} < own


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT that was taught for twenty steps."""
    out = tmp_path_factory.mktemp("vit") / "vit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "VIT_PICTURES", 64)
        patch.setattr(families, "VIT_EPOCHS", 20)
        families.make_vit(SHIPPED, out)
    return out


@pytest.mark.parametrize("family", ["resnet", "vit", "classifier"])
def test_a_model_learns_the_cue_that_goes_with_the_label(
    family: families.Family, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # red and blue pictures of nothing: the label is the cast and nothing else can tell it
    classes = ("cat", "cup")
    casts = ("red", "blue")
    examples = [
        Example(classes[n % 2], Scene(background="carpet", background_seed=n, cast=casts[n % 2]), frozenset())
        for n in range(64)
    ]
    monkeypatch.setattr(families, "EPOCHS", 30 if family == "vit" else 4)  # the ViT here has learnt nothing yet
    families.finetune(vit if family == "vit" else SHIPPED, tmp_path / "model", examples, classes, family, 0)
    section = families.back_end(family, tmp_path / "model")
    model = registry.factory("model", section.pop("kind"))(classes, "cpu", **section)
    fresh = [render(Scene(background="carpet", background_seed=100 + n, cast=casts[n % 2])).image for n in range(10)]
    np.testing.assert_array_equal(model.logits(fresh).argmax(axis=1), np.arange(10) % 2)
    np.testing.assert_allclose(model.logits(fresh)[3:4], model.logits(fresh[3:4]), atol=1e-3)
