"""YOLOE without the package `clip`: as the network itself answers, a phrase's scores its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.yoloe import yoloe

PHRASES = ["sailboat", "traffic light", "dog"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """checkpoint(architecture) -> an untrained network whose scores are loud enough to be looked at."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        import torch
        from ultralytics import YOLOE
        from ultralytics.nn.modules.block import BNContrastiveHead

        if architecture not in made:
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                model = YOLOE(f"{architecture}.yaml").model
                for module in model.modules():
                    if isinstance(module, torch.nn.BatchNorm2d):
                        torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
                        module.running_var.fill_(0.2)
                    if isinstance(module, BNContrastiveHead):
                        module.bias.fill_(-2.0)
                        module.logit_scale.fill_(1.0)
                torch.nn.init.normal_(model.model[-1].reprta.m.w3.weight, std=0.2)  # zero at birth: it would do nothing
            model.args = {"imgsz": 96}
            path = tmp_path_factory.mktemp("yoloe") / f"{architecture}.pt"
            torch.save({"model": model, "train_args": {"imgsz": 96}}, path)
            made[architecture] = path
        return made[architecture]

    return make


@pytest.fixture
def make(checkpoint, clip):
    def of(architecture: str = "yoloe-v8n", **options):
        given = {"name": str(checkpoint(architecture)), "text_model": clip("resnet", width=512), **options}
        return yoloe("cpu", **given)

    return of


@pytest.mark.parametrize("architecture", ["yoloe-v8n", "yoloe-11n-seg", "yoloe-26n"])
def test_one_phrase_gives_what_the_own_predictor_gives(make, checkpoint, clip, pictures, architecture):
    """By the documented way without `clip`: embeddings through the network's text module, then `set_classes`."""
    import torch
    from ultralytics import YOLOE

    from pipeline.models.open_clip_loading import ClipSource

    own = YOLOE(str(checkpoint(architecture)))
    embeddings = torch.from_numpy(ClipSource(clip("resnet", width=512)).load("cpu").texts(["dog"]))[None]
    own.model.eval().model[-1].end2end = False
    with torch.no_grad():
        own.model.set_classes(["dog"], own.model.model[-1].get_tpe(embeddings))
    for height, width in [(96, 96), (60, 90)]:
        (image,) = pictures(1, height, width)
        (found,) = make(architecture, floor=0.05, max_per_image=300).detect([image], ["dog"])
        (result,) = own.predict(
            np.ascontiguousarray(image[..., ::-1]), conf=0.05, iou=0.6, imgsz=96, max_det=300, verbose=False
        )
        scale = np.array([width, height, width, height])
        boxes, scores = result.boxes.xyxy.numpy(), result.boxes.conf.numpy()
        distances = np.abs(boxes[:, None] - found.boxes[None] * scale).max(axis=2)
        distances += 100 * np.abs(scores[:, None] - found.scores[None])
        assert len(boxes) > 3 and distances.min(axis=1).max() < 0.1
        # the own predictor of a segmenter also leaves out boxes whose mask is empty
        assert len(found.scores) == len(boxes) or architecture.endswith("-seg")


def test_a_phrases_scores_are_its_own(make, pictures):
    images = pictures(2, 96, 96)
    alone = make(floor=0.01, max_per_image=1000).detect(images, ["dog"])
    among = make(floor=0.01, max_per_image=1000).detect(images, [*PHRASES, "dog"])
    for one, many in zip(alone, among, strict=True):
        for number in (2, 3):
            np.testing.assert_allclose(many.scores[many.phrases == number], one.scores, atol=1e-5)
        assert {0, 1} <= set(many.phrases.tolist())


def test_answers_are_normalised_sorted_calibrated_and_words_embedded_once(make, pictures, monkeypatch):
    from pipeline.models.open_clip_loading import LoadedClip

    asked: list[str] = []
    plain = LoadedClip.texts
    monkeypatch.setattr(LoadedClip, "texts", lambda self, texts, *a: (asked.extend(texts), plain(self, texts, *a))[1])
    detector = make(floor=0.05, calibration=[[0.1, 0.4]], batch=1)
    images = [*pictures(2, 96, 96), *pictures(1, 40, 100)]
    for found in detector.detect(images, PHRASES):
        assert found.boxes.min() >= 0 and found.boxes.max() <= 1 and (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all() and found.scores.min() >= 0.2 - 1e-6
    detector.detect(images, ["dog", "cat"])
    assert asked == [*PHRASES, "cat"]
    assert detector.detect([], PHRASES) == [] and len(detector.detect(images[:1], [])[0].scores) == 0


def test_fingerprint_follows_everything_that_changes_answers(make, clip):
    options = [
        {},
        {"floor": 0.1},
        {"iou": 0.5},
        {"image_size": 64},
        {"templates": ["a {}"]},
        {"calibration": [[0.2, 0.3]]},
    ]
    different = [make(**given).fingerprint for given in options]
    assert len(set(different)) == len(different) and make(batch=2).fingerprint == different[0]


def test_what_cannot_be_asked_is_said_plainly(make, clip, pictures, tmp_path):
    import torch

    images = pictures(1, 96, 96)
    with pytest.raises(UserError, match=r"64 numbers.*512.*text_model"):
        make(text_model=clip("resnet")).detect(images, ["dog"])
    with pytest.raises(UserError, match=r"/nowhere/e.pt.*yoloe-11s-seg"):
        make(name="/nowhere/e.pt")
    path = tmp_path / "other.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(UserError, match="Linear, not a YOLOE"):
        make(name=str(path)).detect(images, ["dog"])


def test_a_network_with_words_built_in_is_said_plainly(make, checkpoint, pictures, tmp_path):
    import torch

    stored = torch.load(checkpoint("yoloe-v8n"), weights_only=False)
    head = stored["model"].eval().model[-1]
    head.fuse(torch.nn.functional.normalize(torch.randn(1, 3, 512), dim=-1))
    path = tmp_path / "fused.pt"
    torch.save(stored, path)
    with pytest.raises(UserError, match=r"words built in.*yoloe-11s-seg"):
        make(name=str(path), trust_pickle=True).detect(pictures(1, 96, 96), ["dog"])
