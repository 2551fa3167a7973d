"""The model under test's own backbone as the encoder of regions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.model_encoder import model_encoder
from pipeline.models.open_clip_encoder import open_clip_encoder
from pipeline.models.open_clip_model import open_clip_classifier
from tests.fakes import PatchLover


@pytest.mark.parametrize("tower", ["resnet", "vit_token"])
@pytest.mark.parametrize(("regions", "context"), [("roi_align", 0.0), ("crops", 0.25)])
def test_it_is_the_model_with_its_weights(clip, pictures, tower, regions, context):
    model = open_clip_classifier(("a", "b"), "cpu", name=clip(tower))
    own = model_encoder("cpu", model, regions=regions, context=context, batch=2)
    same = open_clip_encoder("cpu", name=clip(tower), regions=regions, context=context)
    images, boxes = pictures(3, 64, 80), [np.array([[0.1, 0.2, 0.6, 0.7], [0, 0, 1, 1]])] * 3
    for one, two in zip(own.regions(images, boxes), same.regions(images, boxes), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    assert own.fingerprint == same.fingerprint  # so the cache is shared


def test_its_image_vectors_are_what_the_model_decides_by(clip, pictures):
    model = open_clip_classifier(("a", "b"), "cpu", name=clip("resnet"), templates=["{}"])
    encoder = model_encoder("cpu", model)
    images = pictures(4, 64, 64)
    cosines = encoder.images(images) @ encoder.texts(["a", "b"]).T
    logits = model.logits(images)
    scale = np.polyfit(cosines.ravel(), logits.ravel(), 1)[0]
    np.testing.assert_allclose(logits, scale * cosines, atol=1e-3)


def test_a_model_that_nobody_can_look_into_is_said_plainly():
    with pytest.raises(UserError, match=r"PatchLover.*no backbone.*open_clip"):
        model_encoder("cpu", PatchLover(("a", "b"), "cpu"))
