"""YOLO-World without the package `clip`: as ultralytics' own predictor, but labels don't compete."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.yolo_world import yolo_world

PHRASES = ["sailboat", "traffic light", "dog"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained network whose scores are loud enough to be looked at."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
    import torch
    from ultralytics import YOLOWorld
    from ultralytics.nn.modules import C2fAttn

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        world = YOLOWorld("yolov8n-worldv2.yaml")
        for module in world.model.modules():
            if isinstance(module, C2fAttn):
                module.attn.gl.weight.mul_(50)  # so that the guidance by the phrases can be seen
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
                module.running_var.fill_(0.2)
        for head in world.model.model[-1].cv4:
            head.bias.fill_(-2.0)
            head.logit_scale.fill_(2.0)
    world.model.args = {"imgsz": 96}
    path = tmp_path_factory.mktemp("detector") / "tiny.pt"
    torch.save({"model": world.model, "train_args": {"imgsz": 96}}, path)
    return path


@pytest.fixture
def make(checkpoint, clip):
    def of(**options):
        given = {
            "name": str(checkpoint),
            "text_model": clip("resnet", width=512),
            "templates": ["{}"],
            **options,
        }
        return yolo_world("cpu", **given)

    return of


def test_one_phrase_gives_what_the_own_predictor_gives(make, checkpoint, clip, pictures):
    """With one phrase no label can compete, so ultralytics' predictor must find the same boxes."""
    import torch
    from ultralytics import YOLOWorld

    from pipeline.models.open_clip_loading import ClipSource

    own = YOLOWorld(str(checkpoint))
    own.model.txt_feats = torch.from_numpy(ClipSource(clip("resnet", width=512)).load("cpu").texts(["dog"]))[None]
    own.model.model[-1].nc = 1
    own.model.names = {0: "dog"}
    for height, width in [(96, 96), (60, 90), (200, 70)]:
        (image,) = pictures(1, height, width)
        (found,) = make(floor=0.05, max_per_image=300).detect([image], ["dog"])
        (result,) = own.predict(
            np.ascontiguousarray(image[..., ::-1]), conf=0.05, iou=0.6, imgsz=96, max_det=300, verbose=False
        )
        assert len(found.scores) == len(result.boxes) > 3
        np.testing.assert_allclose(found.scores, result.boxes.conf.numpy(), atol=1e-4)
        scale = np.array([width, height, width, height])
        order, other = (
            np.lexsort((b[:, 0], b[:, 1], -s))
            for b, s in (
                (found.boxes, found.scores.round(3)),
                (result.boxes.xyxyn.numpy(), result.boxes.conf.numpy().round(3)),
            )
        )
        np.testing.assert_allclose(found.boxes[order] * scale, result.boxes.xyxy.numpy()[other], atol=0.05)


def test_answers_are_normalised_and_sorted_and_above_the_floor(make, pictures):
    for found in make(floor=0.2).detect([*pictures(2, 96, 96), *pictures(1, 40, 100)], PHRASES):
        assert len(found.boxes) == len(found.scores) == len(found.phrases) > 0
        assert found.boxes.min() >= 0 and found.boxes.max() <= 1
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all() and found.scores.min() >= 0.2
        assert found.scores.dtype == np.float32 and found.phrases.dtype == np.int64


def test_labels_do_not_compete_for_a_box(make, pictures):
    """The same words twice are two phrases that see the same boxes with the same scores."""
    (found,) = make(floor=0.05, max_per_image=1000).detect(pictures(1, 96, 96), ["dog", "dog"])
    first, second = (found.phrases == number for number in (0, 1))
    assert first.sum() == second.sum() > 3
    np.testing.assert_allclose(found.scores[first], found.scores[second], atol=1e-5)
    np.testing.assert_allclose(found.boxes[first], found.boxes[second], atol=1e-5)


def test_a_higher_overlap_leaves_more_boxes(make, pictures):
    counts = [
        len(make(iou=iou, floor=0.05, max_per_image=1000).detect(pictures(1, 96, 96), PHRASES)[0].scores)
        for iou in (0.3, 0.6, 0.9)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_every_phrase_keeps_its_best_box_when_few_are_allowed(make, pictures):
    images = pictures(1, 96, 96)
    (all_,) = make(floor=0.01, max_per_image=1000).detect(images, PHRASES)
    (few,) = make(floor=0.01, max_per_image=4).detect(images, PHRASES)
    assert len(few.scores) == 4
    for number in range(3):
        assert few.scores[few.phrases == number].max() == all_.scores[all_.phrases == number].max()


def test_answers_depend_neither_on_the_batch_nor_on_the_neighbours(make, pictures):
    images = [*pictures(2, 96, 96), *pictures(2, 50, 96), *pictures(1, 96, 96, seed=4)]
    whole = make().detect(images, PHRASES)
    small = make(batch=1).detect(images, PHRASES)
    alone = [make().detect([image], PHRASES)[0] for image in images]
    for one, two, three in zip(whole, small, alone, strict=True):
        for other in (two, three):
            assert len(one.scores) == len(other.scores)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_scores_are_of_one_list_of_phrases(make, pictures):
    """Documented: the neck is guided by all phrases, so a score holds within its list; order is no matter."""
    detector, images = make(floor=0.001, max_per_image=1000), pictures(1, 96, 96)

    def best(phrases, phrase):
        (found,) = detector.detect(images, phrases)
        return found.scores[found.phrases == phrases.index(phrase)].max()

    assert best(["dog", "cat", "house"], "dog") == pytest.approx(best(["house", "dog", "cat"], "dog"), abs=1e-5)
    assert best(["dog"], "dog") != pytest.approx(best(["dog", "cat", "house"], "dog"), abs=1e-6)


def test_nothing_asked_nothing_found(make, pictures):
    detector = make()
    assert detector.detect([], PHRASES) == []
    (found,) = detector.detect(pictures(1, 20, 20), [])
    assert found.boxes.shape == (0, 4) and len(found.scores) == len(found.phrases) == 0


def test_one_pixel_and_one_line_are_images_too(make):
    for shape in [(1, 1, 3), (1, 300, 3), (300, 2, 3)]:
        (found,) = make().detect([np.full(shape, 200, np.uint8)], ["dog"])
        assert np.isfinite(found.boxes).all()


def test_fingerprint_follows_everything_that_changes_answers(make, clip):
    different = [
        make(**options).fingerprint
        for options in (
            {},
            {"floor": 0.1},
            {"iou": 0.5},
            {"image_size": 64},
            {"max_per_image": 5},
            {"templates": ["a {}"]},
            {"text_model": clip("resnet", width=512, seed=1)},
        )
    ]
    assert len(set(different)) == len(different)
    assert make(batch=2).fingerprint == make(trust_pickle=True).fingerprint == different[0]


def test_a_text_model_of_another_width_is_said_plainly(make, clip, pictures):
    with pytest.raises(UserError, match=r"64 numbers.*512.*text_model"):
        make(text_model=clip("resnet")).detect(pictures(1, 96, 96), ["dog"])


def test_a_checkpoint_that_is_not_there_is_said_plainly(make):
    with pytest.raises(UserError, match=r"/nowhere/world.pt.*yolov8s-worldv2"):
        make(name="/nowhere/world.pt")


class Hostile:
    """Unpickling this writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_hostile_checkpoint_is_refused_unless_trusted(make, tmp_path, pictures):
    import torch

    trace, path = tmp_path / "trace", tmp_path / "hostile.pt"
    torch.save({"model": Hostile(str(trace))}, path, pickle_module=pickle)
    with pytest.raises(UserError, match="trust_pickle"):
        make(name=str(path)).detect(pictures(1, 96, 96), ["dog"])
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_said_plainly(make, checkpoint, tmp_path, pictures, content):
    path = tmp_path / "damaged.pt"
    path.write_bytes(checkpoint.read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match="can't be opened"):
        make(name=str(path)).detect(pictures(1, 96, 96), ["dog"])


def test_another_kind_of_network_is_said_plainly(make, tmp_path, pictures):
    import torch

    path = tmp_path / "other.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(UserError, match="Linear, not a YOLO-World"):
        make(name=str(path)).detect(pictures(1, 96, 96), ["dog"])


def test_a_missing_ultralytics_is_said_plainly(make, monkeypatch):
    import importlib.util

    plain = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ultralytics" else plain(name))
    with pytest.raises(UserError, match=r"ultralytics.*AGPL-3.0.*pip install ultralytics"):
        make()


def test_ultralytics_is_imported_late_and_kept_quiet(checkpoint, clip, tmp_path):
    """Not imported at making; then offline, nothing reported or installed, one line of licence."""
    code = f"""
import logging, sys, io
import numpy as np
log = io.StringIO()
logging.basicConfig(stream=log, level=logging.INFO, format="%(message)s")
from pipeline.models.yolo_world import yolo_world
detector = yolo_world("cpu", name={str(checkpoint)!r}, text_model={clip("resnet", width=512)!r})
assert "torch" not in sys.modules and "ultralytics" not in sys.modules
style = np.get_printoptions()
for _ in range(2):
    detector.detect([np.zeros((96, 96, 3), np.uint8)], ["dog"])
assert np.get_printoptions() == style
from ultralytics.utils import ONLINE, AUTOINSTALL, SETTINGS
assert not ONLINE and not AUTOINSTALL and not SETTINGS["sync"]
assert "clip" not in sys.modules
assert log.getvalue().count("AGPL-3.0") == 1, log.getvalue()
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("YOLO_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cuescope" / "ultralytics").is_dir()
