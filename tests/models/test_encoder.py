"""Region embeddings: one forward an image gives what each architecture's own path to the embedding would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.models import fingerprints
from pipeline.models.open_clip_encoder import open_clip_encoder

WHOLE = np.array([[0.0, 0.0, 1.0, 1.0]])
TOWERS = [
    "resnet",
    "vit_token",
    "vit_mean",
    "vit_attention",
    "timm_convnext",
    "timm_vit_map",
    "timm_vit_token",
]
EXACT = ["resnet", "vit_mean", "timm_convnext", "timm_vit_map"]  # their pooling sees places only


def side(tower: str) -> int:
    return 160 if tower.startswith("timm_vit") else 64


@pytest.mark.parametrize("tower", EXACT)
def test_the_whole_image_as_a_region_is_the_image(clip, pictures, tower):
    encoder = open_clip_encoder("cpu", name=clip(tower))
    images = pictures(3, side(tower), side(tower))
    regions = encoder.regions(images, [WHOLE] * 3)
    np.testing.assert_allclose(np.concatenate(regions), encoder.images(images), atol=1e-4)


def test_the_whole_image_is_nearly_the_image_where_the_pooling_also_saw_a_class_token(clip, pictures):
    encoder = open_clip_encoder("cpu", name=clip("vit_attention"))
    images = pictures(3, 64, 64)
    regions = np.concatenate(encoder.regions(images, [WHOLE] * 3))
    assert ((regions * encoder.images(images)).sum(axis=1) > 0.98).all()


def test_a_class_token_transformer_gives_the_mean_of_its_tokens_by_the_value_path(clip, pictures):
    """An independent reading of MaskCLIP: attention of the last block replaced by the identity."""
    import torch

    from pipeline.models.open_clip_loading import ClipSource

    loaded = ClipSource(clip("vit_token")).load("cpu")
    visual, images = loaded.model.visual, pictures(2, 64, 64)
    with torch.no_grad():
        tokens = visual.transformer.resblocks[0](visual._embeds(loaded.normalised(loaded.sized(images))))
        last = visual.transformer.resblocks[1]
        mask = torch.full((tokens.shape[1],) * 2, float("-inf")).fill_diagonal_(0.0)
        tokens = last(tokens, attn_mask=mask)
        expected = (visual.ln_post(tokens)[:, 1:].mean(1) @ visual.proj).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = np.concatenate(open_clip_encoder("cpu", name=clip("vit_token")).regions(images, [WHOLE] * 2))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_region_answers_to_its_own_pixels(clip, pictures, tower):
    encoder = open_clip_encoder("cpu", name=clip(tower))
    size = side(tower)
    image = pictures(1, size, size)[0]
    rng = np.random.default_rng(1)
    quarter = size // 4
    noise = rng.integers(0, 256, (quarter, quarter, 3), dtype=np.uint8)
    near, far = image.copy(), image.copy()
    near[:quarter, :quarter] = noise
    far[-quarter:, -quarter:] = noise
    box = np.array([[0.0, 0.0, 0.25, 0.25]])
    plain, own, other = np.concatenate(encoder.regions([image, near, far], [box] * 3))
    assert 1 - plain @ own > 10 * (1 - plain @ other)


@pytest.mark.parametrize("regions", ["roi_align", "crops"])
@pytest.mark.parametrize(("height", "width"), [(64, 192), (192, 64), (50, 70)])
def test_boxes_are_of_the_original_image_whatever_its_shape(clip, regions, height, width):
    """Two different halves: each half's embedding is near that of a picture made of that half alone."""
    encoder = open_clip_encoder("cpu", name=clip("vit_mean"), regions=regions)
    rng = np.random.default_rng(3)
    image = np.zeros((height, width, 3), np.uint8)
    if width > height:
        image[:, : width // 2] = [220, 40, 30]
        image[:, width // 2 :] = rng.integers(0, 256, (height, width - width // 2, 3))
        halves = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]])
        alone = [image[:, : width // 2], image[:, width // 2 :]]
    else:
        image[: height // 2] = [220, 40, 30]
        image[height // 2 :] = rng.integers(0, 256, (height - height // 2, width, 3))
        halves = np.array([[0, 0, 1, 0.5], [0, 0.5, 1, 1]])
        alone = [image[: height // 2], image[height // 2 :]]
    found = encoder.regions([image], [halves])[0]
    pure = np.concatenate(encoder.regions(alone, [WHOLE, WHOLE]))
    likeness = found @ pure.T
    assert likeness[0, 0] > likeness[0, 1] and likeness[1, 1] > likeness[1, 0]


def test_a_box_at_the_edge_of_an_oblong_image_is_not_cut_off(clip, pictures):
    """The model's own preprocessing would cut the sides of this image away."""
    encoder = open_clip_encoder("cpu", name=clip("vit_mean"))
    image = pictures(1, 64, 256)[0]
    changed = image.copy()
    changed[:, :32] = 255 - changed[:, :32]
    edge = np.array([[0.0, 0.0, 0.125, 1.0]])
    before, after = np.concatenate(encoder.regions([image, changed], [edge, edge]))
    assert before @ after < 0.99
    np.testing.assert_allclose(*encoder.images([image, changed]), atol=1e-6)


@pytest.mark.parametrize("regions", ["roi_align", "crops"])
def test_rows_come_in_order_whatever_the_batch(clip, pictures, regions):
    rng = np.random.default_rng(5)
    images = [*pictures(3, 64, 64), *pictures(2, 40, 90), *pictures(1, 64, 64, seed=9)]
    boxes = [np.sort(rng.random((count, 2, 2)), axis=1).reshape(-1, 4) for count in (2, 0, 5, 1, 0, 3)]
    name = clip("resnet")
    whole = open_clip_encoder("cpu", name=name, regions=regions).regions(images, boxes)
    small = open_clip_encoder("cpu", name=name, regions=regions, batch=1).regions(images, boxes)
    alone = [
        open_clip_encoder("cpu", name=name, regions=regions).regions([image], [of_image])[0]
        for image, of_image in zip(images, boxes, strict=True)
    ]
    assert [part.shape for part in whole] == [(count, 64) for count in (2, 0, 5, 1, 0, 3)]
    for one, two, three in zip(whole, small, alone, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
        np.testing.assert_allclose(three, one, atol=1e-5)


def test_nothing_in_nothing_out(clip, pictures):
    encoder = open_clip_encoder("cpu", name=clip("resnet"))
    assert encoder.regions([], []) == []
    assert encoder.images([]).shape == encoder.texts([]).shape == (0, 64)
    (empty,) = encoder.regions(pictures(1, 64, 64), [np.zeros((0, 4))])
    assert empty.shape == (0, 64) and empty.dtype == np.float32


@pytest.fixture(scope="module")
def both(clip):
    return [open_clip_encoder("cpu", name=clip("vit_mean"), regions=regions) for regions in ("roi_align", "crops")]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4), st.sampled_from([0, 1]))
def test_any_box_gives_a_unit_row(both, box, way):
    low, high = np.sort(np.array(box).reshape(2, 2), axis=0)
    image = np.random.default_rng(0).integers(0, 256, (30, 47, 3), dtype=np.uint8)
    (row,) = both[way].regions([image], [np.array([[*low, *high]])])
    assert row.shape == (1, 64) and row.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(row), 1.0, atol=1e-5)


@pytest.mark.parametrize("tower", ["resnet", "vit_token", "timm_convnext"])
def test_regions_in_bf16_are_near_those_in_fp32(clip, pictures, tower):
    images, boxes = pictures(2, 64, 64), [np.array([[0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1]])] * 2
    exact = np.concatenate(open_clip_encoder("cpu", name=clip(tower)).regions(images, boxes))
    rough = np.concatenate(open_clip_encoder("cpu", name=clip(tower), precision="bf16").regions(images, boxes))
    assert rough.dtype == np.float32 and ((exact * rough).sum(axis=1) > 0.99).all()


def test_a_crop_is_the_picture_cut_out_with_its_context(clip, pictures):
    name = clip("resnet")
    image = pictures(1, 100, 100)[0]
    box = np.array([[0.3, 0.4, 0.5, 0.8]])
    bare = open_clip_encoder("cpu", name=name, regions="crops")
    wide = open_clip_encoder("cpu", name=name, regions="crops", context=0.5)
    np.testing.assert_allclose(
        bare.regions([image], [box])[0], bare.regions([image[40:80, 30:50]], [WHOLE])[0], atol=1e-5
    )
    np.testing.assert_allclose(
        wide.regions([image], [box])[0], bare.regions([image[20:100, 20:60]], [WHOLE])[0], atol=1e-5
    )


def test_texts_and_images_share_a_space_of_unit_rows(clip, pictures):
    encoder = open_clip_encoder("cpu", name=clip("resnet"))
    texts = encoder.texts(["a sailboat", "", "word " * 100])
    assert encoder.has_text and texts.shape == (3, 64)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(encoder.texts(["a sailboat"]), texts[:1], atol=1e-5)


def test_an_unknown_tower_asks_for_crops():
    from pipeline.models.roi import stages_of

    with pytest.raises(UserError, match="regions: crops"):
        stages_of(object())


def test_fingerprint_follows_everything_that_changes_answers(clip):
    name = clip("resnet")

    def of(name=name, **options):
        return open_clip_encoder("cpu", name=name, **options).fingerprint

    different = [
        of(),
        of(regions="crops"),
        of(regions="crops", context=0.1),
        of(clip("vit_mean")),
        of(precision="bf16"),
    ]
    assert len(set(different)) == len(different)
    assert of() == of(batch=2) == of(context=0.3)  # context is of crops alone


def test_content_counts_and_nothing_else(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "model.bin").write_bytes(b"weights" * 1000)
        (folder / "config.json").write_text("{}")
    assert fingerprints.of_path(one) == fingerprints.of_path(two)
    (two / "note.md").write_text("a note")
    assert fingerprints.of_path(one) != fingerprints.of_path(two)
    assert fingerprints.of_path(one, (".bin", ".json")) == fingerprints.of_path(two, (".bin", ".json"))
    (two / "inner" / "model.bin").write_bytes(b"weights" * 999 + b"weight!")
    assert fingerprints.of_path(one, (".bin",)) != fingerprints.of_path(two, (".bin",))
    (one / "inner" / "model.bin").rename(one / "model.bin")
    assert fingerprints.of_path(one / "model.bin") != fingerprints.of_path(one)
    with pytest.raises(FileNotFoundError):
        fingerprints.of_path(tmp_path / "three")


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    import builtins

    file = tmp_path / "weights.bin"
    file.write_bytes(b"x" * 3_000_000)
    first = fingerprints.of_path(file)
    opened: list[object] = []
    plain = builtins.open
    monkeypatch.setattr(builtins, "open", lambda *a, **k: (opened.append(a[0]), plain(*a, **k))[1])
    assert fingerprints.of_path(file) == first and not opened
    file.write_bytes(b"y" * 3_000_001)
    assert fingerprints.of_path(file) != first and opened


def test_options_in_any_order_are_the_same():
    one = fingerprints.of_options("kind", {"a": 1, "b": ["x"]})
    assert one == fingerprints.of_options("kind", {"b": ("x",), "a": 1})
    assert one != fingerprints.of_options("kind", {"a": 1, "b": ["y"]})
    assert one != fingerprints.of_options("other", {"a": 1, "b": ["x"]})
