"""The tiny CLIP's training: labels that are true, a tokenizer that refuses no word, a model that open_clip loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.planted import CONCEPTS, HELD_OUT_OBJECTS
from pipeline.planted.train import data

SHIPPED = Path(__file__).parents[2] / "data" / "models" / "clip"


@pytest.fixture(scope="module")
def shard() -> data.Shard:
    return data.training_shard(3, 0, 120)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    from pipeline.planted.train import clip

    folder = tmp_path_factory.mktemp("clip")
    report = clip.train_clip(
        folder / "out", minutes=5, seed=1, work=folder / "work", recipe=small_recipe(), max_steps=2
    )
    return folder / "out", folder / "work", report


def small_recipe():
    from pipeline.planted.train.clip import Recipe

    return Recipe(batch_size=8, n_crops=3, n_regions=4, n_shards=1, shard_size=24, threads=1, snapshot_minutes=1e-6)


def test_labelled_boxes_name_what_the_truth_says_and_lie_inside(shard):
    row, slot = np.nonzero(shard.labels >= 0)
    assert len(row) > 100
    assert shard.truths[row, shard.labels[row, slot]].all()
    boxes = shard.boxes[row, slot]
    assert (boxes >= 0).all() and (boxes <= 1).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    kinds = {CONCEPTS[i].kind for i in shard.labels[row, slot]}
    assert kinds == {"object", "overlay"}


def test_every_object_that_holds_has_a_box(shard):
    objects = data.concept_indices("object")
    for i in range(len(shard)):
        assert set(np.flatnonzero(shard.truths[i])) & set(objects) == set(shard.labels[i]) & set(objects)


def test_nothing_held_out_is_trained_on(shard):
    text = " ".join(shard.captions.ravel()).lower()
    assert not [name for name in HELD_OUT_OBJECTS if name in text]
    assert not set(HELD_OUT_OBJECTS) & set(data.PHRASES)


def test_a_shard_is_the_same_twice_and_no_other_stream_repeats_it(shard):
    again = data.training_shard(3, 0, 120)
    assert (again.images == shard.images).all() and (again.captions == shard.captions).all()
    others = [data.training_shard(3, 1, 20), data.training_shard(4, 0, 20), data.held_out_shard(3, 20)]
    assert all((other.images != shard.images[:20]).any(axis=(1, 2, 3)).all() for other in others)


def test_a_shard_survives_the_disk(shard, tmp_path):
    shard.save(tmp_path / "shard_00000.npz")
    pool = data.Pool(tmp_path)
    assert pool.refresh() == 120
    batch = pool.take(np.array([[0, 7], [0, 3]]))
    assert (batch.images == shard.images[[7, 3]]).all() and (batch.labels == shard.labels[[7, 3]]).all()
    assert sum(len(b) for b in pool.batches(np.random.default_rng(0), 50)) == 100


@settings(max_examples=30, deadline=None)
@given(dx=st.integers(-4, 4), dy=st.integers(-4, 4), x=st.integers(6, 20), y=st.integers(6, 20))
def test_boxes_follow_the_pixels_when_a_picture_is_moved_or_mirrored(dx, dy, x, y):
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, y : y + 4, x : x + 5] = 255
    boxes = np.array([[[x, y, x + 5, y + 4]]], np.float32) / 32
    for moved, box in (
        data.shifted(images, boxes, dx, dy),
        data.mirrored(images, boxes, np.array([True])),
    ):
        rows, columns = np.nonzero(moved[0, :, :, 0])
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 32
        np.testing.assert_allclose(box[0, 0], seen, atol=1e-6)


def test_prompts_have_their_article_right():
    assert data.prompt("apple", "a photo of a {}") == "a photo of an apple"
    assert data.prompt("sailboat", "an image of a {}") == "an image of a sailboat"
    assert data.prompt("dark lighting", "{}") == "dark lighting"


def test_a_few_steps_give_finite_losses_and_a_model_that_open_clip_loads(trained):
    import open_clip
    import torch
    from PIL import Image

    out, _, report = trained
    assert report["steps"] == 2 and report["pictures"] == 24
    assert all(np.isfinite(v) and v > 0 for v in report["loss"].values())
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{out}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{out}")
    with torch.no_grad():
        image = model.encode_image(preprocess(Image.new("RGB", (200, 120), "red"))[None])
        text = model.encode_text(tokenize(["a photo of a boat"]))
    assert image.shape == text.shape == (1, 512)
    assert torch.isfinite(image).all() and torch.isfinite(text).all()
    assert sum(f.stat().st_size for f in out.iterdir()) <= 8e6


def test_training_goes_on_from_its_checkpoint(trained, capsys):
    from pipeline.planted.train import clip

    out, work, _ = trained
    assert clip.train_clip(out, minutes=5, seed=1, work=work, recipe=small_recipe(), max_steps=3)["steps"] == 3
    assert "step 1 " not in capsys.readouterr().out  # it did not start anew


def test_the_tokenizer_refuses_no_word_and_always_ends_the_text(trained):
    import open_clip

    from pipeline.planted.train.clip_model import CONTEXT_LENGTH, EOS_ID

    tokenize = open_clip.get_tokenizer(f"local-dir:{trained[0]}")
    texts = ["", "a xylophone", "ünïcode 漢字 \N{PILE OF POO}", "word " * 200, "<eos> <pad>", "A Photo"]
    tokens = tokenize(texts)
    assert tokens.shape == (len(texts), CONTEXT_LENGTH)
    assert (tokens == EOS_ID).any(1).all()
    assert (tokenize(["a xylophone"]) != tokenize(["a zebra"])).any()
    assert (tokenize(["A Photo"]) == tokenize(["a photo"])).all()


def test_region_features_of_a_whole_picture_come_close_to_its_own(trained):
    import torch

    from pipeline.planted.train import clip_model

    model, _ = clip_model.load(trained[0])
    images = clip_model.normalise(data.held_out_shard(0, 4).images)
    regions = torch.tensor([[i, 0.0, 0.0, 1.0, 1.0] for i in range(4)])
    with torch.no_grad():
        whole, region = clip_model.visual_features(model.visual, images, regions)
        plain = torch.nn.functional.normalize(model.encode_image(images), dim=-1)
    assert region is not None
    torch.testing.assert_close(whole, plain, atol=1e-4, rtol=1e-3)
    assert (whole * region).sum(1).min() > 0.95


def test_the_softmax_counts_only_rows_whose_label_is_asked_for():
    import torch

    from pipeline.planted.train.clip import softmax_loss

    concepts = torch.eye(4)
    features = torch.stack([concepts[1], concepts[3]])
    names, scale = torch.tensor([1, 2]), torch.tensor(20.0)
    both = softmax_loss(features, concepts, torch.tensor([1, 0]), names, scale)
    one = softmax_loss(features[:1], concepts, torch.tensor([1]), names, scale)
    wrong = softmax_loss(features[:1], concepts, torch.tensor([2]), names, scale)
    assert both == one and wrong > one + 5
    assert softmax_loss(features, concepts, torch.tensor([0, 3]), names, scale) == 0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows):
    from pipeline.planted.train.evaluate import auc

    scores, positive = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    expected = np.mean(pairs) if pairs else np.nan
    np.testing.assert_allclose(auc(scores, positive), expected)


def test_mistakes_are_told_in_words(tmp_path):
    from pipeline.planted.train import clip, clip_model

    with pytest.raises(UserError, match="minutes"):
        clip.train_clip(tmp_path, minutes=0)
    with pytest.raises(UserError, match="open_clip_config"):
        clip_model.load(tmp_path)


@pytest.fixture(scope="module")
def quality() -> dict:
    from pipeline.planted.train.evaluate import evaluate_clip

    return evaluate_clip(SHIPPED, seed=11, n=1500)


@pytest.mark.release
def test_the_shipped_clip_knows_attributes_and_backgrounds_of_worlds_it_never_saw(quality):
    assert quality["background_top1"] >= 0.95
    assert quality["attribute_auc"] >= 0.95
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 8e6


@pytest.mark.release
def test_the_shipped_clip_names_single_objects_of_worlds_it_never_saw(quality):
    assert quality["single_top1"] >= 0.95
