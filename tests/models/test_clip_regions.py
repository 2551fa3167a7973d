"""Windows of an image against phrases, by the region encoder alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.geometry import area, iou
from pipeline.models.clip_regions import clip_regions, windows
from pipeline.models.open_clip_encoder import open_clip_encoder
from tests.fakes import Colors


class Reds:
    """An encoder of two dimensions: how red a region is, and how little."""

    fingerprint, has_text = "reds", True

    def regions(self, images, boxes):
        rows = []
        for image, mine in zip(images, boxes, strict=True):
            height, width = image.shape[:2]
            cuts = [
                image[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)] for x0, y0, x1, y1 in mine
            ]
            red = np.array([(cut[..., 0] > 200).mean() for cut in cuts])
            rows.append(np.stack([red, 1 - red], axis=1).astype(np.float32))
        return [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]

    def texts(self, texts):
        return np.array([[1.0, 0.0] if "red" in text else [0.0, 1.0] for text in texts], dtype=np.float32)


@pytest.mark.parametrize("place", [(0, 0), (40, 60), (70, 10)])
def test_it_finds_where_the_thing_is(place):
    top, left = place
    image = np.full((100, 100, 3), 60, np.uint8)
    image[top : top + 30, left : left + 30] = [250, 10, 10]
    blank = np.full((80, 100, 3), 60, np.uint8)
    found, nothing = clip_regions("cpu", Reds(), scale=10.0).detect([image, blank], ["a red patch", "a cat"])
    (box,) = found.boxes[found.phrases == 0][:1]
    truth = np.array([[left, top, left + 30, top + 30]]) / 100
    assert iou(box[None], truth)[0, 0] > 0.4 and found.scores[found.phrases == 0][0] > 0.9
    assert nothing.scores[nothing.phrases == 0].max(initial=0) < 0.02


def test_a_score_is_the_probability_against_the_likeliest_neutral_text(clip, pictures):
    """Read from the encoder's own vectors; a phrase's scores are the same in every list."""
    encoder = open_clip_encoder("cpu", name=clip("vit_mean"))
    images = pictures(2, 64, 64)
    options = {
        "templates": ["{}"],
        "neutral": ["a photo", "nothing"],
        "floor": 0.0,
        "iou": 1.0,
        "max_per_image": 10_000,
    }
    both = clip_regions("cpu", encoder, **options).detect(images, ["dog", "cat"])
    alone = clip_regions("cpu", encoder, **options).detect(images, ["cat"])
    boxes = windows((0.25, 0.4, 0.65), 0.5)
    for image, many, one in zip(images, both, alone, strict=True):
        vectors = encoder.regions([image], [boxes])[0]
        cat, photo, nothing = encoder.texts(["cat", "a photo", "nothing"])
        expected = 1 / (1 + np.exp(-100 * (vectors @ cat - np.maximum(vectors @ photo, vectors @ nothing))))
        np.testing.assert_allclose(one.scores, np.sort(expected)[::-1], atol=1e-4)
        np.testing.assert_allclose(many.scores[many.phrases == 1], one.scores, atol=1e-5)


def test_windows_cover_the_image_evenly():
    boxes = windows((0.25, 0.4, 0.65), 0.5)
    assert len(np.unique(boxes, axis=0)) == len(boxes) < 250 and (area(boxes) > 0).all()
    assert boxes.min() == 0 and boxes.max() == 1 and [0, 0, 1, 1] in boxes.tolist()
    points = np.random.default_rng(0).random((200, 2))
    small = boxes[area(boxes) < 0.07]
    covered = (small[None, :, :2] <= points[:, None]).all(2) & (points[:, None] <= small[None, :, 2:]).all(2)
    assert covered.any(1).all()


def test_what_it_needs_is_said_plainly():
    with pytest.raises(UserError, match="needs the section 'embed'"):
        clip_regions("cpu", None)
    with pytest.raises(UserError, match="embeds words"):
        clip_regions("cpu", Colors("cpu"))
    with pytest.raises(UserError, match="neutral"):
        clip_regions("cpu", Reds(), neutral=[])


def test_fingerprint_follows_everything_that_changes_answers(clip):
    one, two = (open_clip_encoder("cpu", name=clip("vit_mean"), regions=way) for way in ("roi_align", "crops"))
    options = [{}, {"floor": 0.1}, {"scale": 50.0}, {"sides": [0.5]}, {"neutral": ["a photo"]}, {"overlap": 0.2}]
    different = [clip_regions("cpu", one, **given).fingerprint for given in options]
    different.append(clip_regions("cpu", two).fingerprint)
    assert len(set(different)) == len(different)
