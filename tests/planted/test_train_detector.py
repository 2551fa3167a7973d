"""The open-set detector's training: targets of any part of the vocabulary, a checkpoint that ultralytics loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.planted.train import data, detector
from pipeline.planted.train.evaluate import match

MODELS = Path(__file__).parents[2] / "data" / "models"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("detector")
    text = torch.randn(len(data.PHRASES), 2, 512, generator=torch.Generator().manual_seed(0))
    recipe = detector.Recipe(batch_size=4, n_shards=1, shard_size=12, threads=1, sizes=(96,))
    report = detector.train_detector(
        folder / "out",
        folder / "no clip",
        minutes=5,
        work=folder / "work",
        recipe=recipe,
        max_steps=2,
        text=torch.nn.functional.normalize(text, dim=-1),
    )
    return folder / "out" / detector.FILE, report


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_targets_are_the_boxes_whose_word_is_asked_for(draw):
    labels = np.array(
        draw.draw(st.lists(st.lists(st.integers(-1, 9), min_size=3, max_size=3), min_size=1, max_size=4)),
        np.int16,
    )
    words = np.array(draw.draw(st.lists(st.integers(0, 9), min_size=1, max_size=10, unique=True)))
    boxes = np.random.default_rng(0).random((*labels.shape, 4)).astype(np.float32)
    boxes[..., 2:] += boxes[..., :2]
    targets = detector.choose_targets(labels, boxes, words)
    found = {
        (int(i), int(words[int(w)]), tuple(np.round(b.numpy(), 4)))
        for i, w, b in zip(targets.picture, targets.word[:, 0], targets.xywh, strict=True)
    }
    expected = set()
    for i, slot in np.argwhere(np.isin(labels, words)):
        x0, y0, x1, y1 = boxes[i, slot]
        xywh = np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float32)
        expected.add((int(i), int(labels[i, slot]), tuple(np.round(xywh, 4))))
    assert found == expected


def test_a_batch_asks_for_varying_parts_of_the_vocabulary():
    rng, recipe = np.random.default_rng(0), detector.Recipe()
    drawn = [detector.draw_words(rng, recipe) for _ in range(40)]
    sizes = {len(words) for words in drawn}
    assert min(sizes) <= 8 and max(sizes) <= len(detector.vocabulary()) and len(sizes) > 5
    assert all(len(set(words)) == len(words) for words in drawn)
    assert set(np.concatenate(drawn)) == set(detector.vocabulary())


def test_the_loss_falls_on_one_batch_and_empty_pictures_are_fine():
    torch.manual_seed(0)
    shard = data.training_shard(5, 0, 6)
    words = detector.vocabulary()
    text = torch.nn.functional.normalize(torch.randn(len(words), 512), dim=-1)
    targets = detector.choose_targets(shard.labels, shard.boxes, words)
    model = detector.build_model(len(words)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        loss = detector.step_loss(model, detector.to_pixels(shard.images, 96), targets, text).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]
    nothing = detector.choose_targets(np.full_like(shard.labels, -1), shard.boxes, words[:3])
    empty = detector.step_loss(model, detector.to_pixels(shard.images, 96), nothing, text[:3])
    assert torch.isfinite(empty).all()


def test_the_checkpoint_loads_by_ultralytics_and_takes_any_words(trained):
    path, report = trained
    assert report["steps"] == 2 and np.isfinite(report["loss"]).all()
    assert path.stat().st_size <= 8.5e6
    picture = data.held_out_shard(0, 1).images[0]
    for n in (1, 3):
        text = torch.nn.functional.normalize(torch.randn(n, 512), dim=-1)
        loaded = detector.load(path, [f"word {i}" for i in range(n)], text)
        result = loaded.predict(picture[..., ::-1], imgsz=96, conf=1e-6, verbose=False)[0]
        assert result.names == {i: f"word {i}" for i in range(n)}
        assert np.isfinite(result.boxes.data.numpy()).all()
        assert set(result.boxes.cls.numpy().astype(int)) <= set(range(n))


def test_it_loads_with_ultralytics_alone_with_the_trained_vocabulary(trained):
    from ultralytics import YOLOWorld
    from ultralytics.nn.tasks import torch_safe_load

    torch_safe_load(trained[0], safe_only=True)  # nothing in the pickle but ultralytics' own classes
    model = YOLOWorld(str(trained[0]))
    assert list(model.names.values()) == [data.PHRASES[w] for w in detector.vocabulary()]
    assert next(model.model.parameters()).dtype == torch.float32
    model.predict(np.zeros((96, 96, 3), np.uint8), imgsz=96, verbose=False)


def test_a_true_box_is_found_once_and_only_under_its_name():
    box = np.array([[0.1, 0.1, 0.5, 0.5]])
    found = np.repeat(box, 3, axis=0)
    assert match(found, np.array([1, 0, 0]), box, np.array([0])).tolist() == [False, True, False]
    assert match(found + 0.4, np.zeros(3, int), box, np.array([0])).tolist() == [False] * 3
    assert match(found, np.zeros(3, int), np.zeros((0, 4)), np.zeros(0, int)).tolist() == [False] * 3


def test_mistakes_are_told_in_words(tmp_path):
    with pytest.raises(UserError, match="minutes"):
        detector.train_detector(tmp_path, tmp_path, minutes=-1)
    with pytest.raises(UserError, match="Train one"):
        detector.load(tmp_path / "none.pt", ["a"], torch.ones(1, 512))


def test_training_goes_on_from_the_weights_of_a_detector(trained, tmp_path):
    from ultralytics.nn.tasks import torch_safe_load

    text = torch.nn.functional.normalize(torch.randn(len(data.PHRASES), 1, 512), dim=-1)
    recipe = detector.Recipe(batch_size=4, n_shards=1, shard_size=8, threads=1)
    again = {"work": tmp_path / "work", "recipe": recipe, "max_steps": 0, "text": text}
    detector.train_detector(tmp_path / "out", tmp_path, start=trained[0], **again)
    before, after = (
        torch_safe_load(path, safe_only=True)[0]["model"].state_dict()
        for path in (trained[0], tmp_path / "out" / detector.FILE)
    )
    assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(UserError, match="go on from"):
        detector.train_detector(tmp_path / "out", tmp_path, start=tmp_path / "none.pt", **again)


@pytest.fixture(scope="module")
def quality() -> dict:
    from pipeline.planted.train.evaluate import evaluate_detector

    return evaluate_detector(MODELS / "detector", MODELS / "clip", seed=11, n=800)


@pytest.mark.release
def test_the_shipped_detector_is_small_and_has_learned_every_word(quality):
    assert set(quality["ap50_by_word"]) == {data.PHRASES[w] for w in detector.vocabulary()}
    assert min(quality["ap50_by_word"].values()) > 0.2
    assert (MODELS / "detector" / detector.FILE).stat().st_size <= 8.5e6


@pytest.mark.release
def test_the_shipped_detector_finds_things_in_scenes_it_never_saw(quality):
    assert quality["map50"] >= 0.90
