"""open_clip as the model under test, and where its models come from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.open_clip_loading import ClipSource
from pipeline.models.open_clip_model import open_clip_classifier

CLASSES = ("sailboat", "traffic light", "dog")


def test_logits_are_open_clips_own_zero_shot_logits(clip, pictures):
    import open_clip
    import torch
    from PIL import Image

    name, templates = clip("resnet"), ["a photo of a {}.", "the {}"]
    images = [*pictures(2, 64, 64), *pictures(2, 50, 90)]
    found = open_clip_classifier(CLASSES, "cpu", name=name, templates=templates).logits(images)

    model, preprocess = open_clip.create_model_from_pretrained(name)
    tokenize = open_clip.get_tokenizer(name)
    with torch.no_grad():
        pixels = torch.stack([preprocess(Image.fromarray(image)) for image in images])
        seen = model.eval().encode_image(pixels, normalize=True)
        columns = []
        for word in CLASSES:
            prompts = model.encode_text(tokenize([t.format(word) for t in templates]), normalize=True)
            columns.append(torch.nn.functional.normalize(prompts.mean(0), dim=0))
        expected = model.logit_scale.exp() * seen @ torch.stack(columns).T
    assert found.shape == (4, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(64, 64), (64, 100), (33, 64), (5, 200)])
def test_pixels_equal_the_models_own_preprocessing(clip, pictures, mode, size):
    import torch
    from PIL import Image

    name = clip("resnet", resize_mode=mode, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], interpolation="bilinear")
    loaded = ClipSource(name).load("cpu")
    images = pictures(2, *size)
    expected = torch.stack([loaded.preprocess(Image.fromarray(image)) for image in images])
    assert torch.equal(loaded.normalised(loaded.sized(images)), expected)


def test_answers_depend_neither_on_the_batch_nor_on_the_neighbours(clip, pictures):
    images = [*pictures(3, 64, 64), *pictures(2, 40, 80), *pictures(2, 64, 64, seed=1)]
    name = clip("resnet")
    whole = open_clip_classifier(CLASSES, "cpu", name=name, batch=64).logits(images)
    pieces = open_clip_classifier(CLASSES, "cpu", name=name, batch=2).logits(images)
    alone = [open_clip_classifier(CLASSES, "cpu", name=name).logits([image])[0] for image in images]
    np.testing.assert_allclose(pieces, whole, atol=1e-4)
    np.testing.assert_allclose(alone, whole, atol=1e-4)
    assert open_clip_classifier(CLASSES, "cpu", name=name).logits([]).shape == (0, 3)


def test_a_bias_is_added(clip, pictures, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    name = clip("resnet")
    folder = tmp_path / "biased"
    shutil.copytree(name.removeprefix("local-dir:"), folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["init_logit_bias"] = -10.0
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file({**weights, "logit_bias": torch.tensor(-7.5)}, folder / "open_clip_model.safetensors")
    images = pictures(2, 64, 64)
    plain = open_clip_classifier(CLASSES, "cpu", name=name).logits(images)
    biased = open_clip_classifier(CLASSES, "cpu", name=f"local-dir:{folder}").logits(images)
    np.testing.assert_allclose(biased, plain - 7.5, atol=1e-4)


def test_bf16_is_near_fp32(clip, pictures):
    images = pictures(3, 64, 64)
    exact = open_clip_classifier(CLASSES, "cpu", name=clip("resnet")).logits(images)
    rough = open_clip_classifier(CLASSES, "cpu", name=clip("resnet"), precision="bf16").logits(images)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=0.5)


def test_fingerprint_follows_everything_that_changes_answers(clip, tmp_path):
    name = clip("resnet")

    def of(classes=CLASSES, name=name, **options):
        return open_clip_classifier(classes, "cpu", name=name, **options).fingerprint

    copy = tmp_path / "copy"
    shutil.copytree(name.removeprefix("local-dir:"), copy)
    (copy / "README.md").write_text("a card beside the weights")
    assert of() == of(batch=3) == of(name=f"local-dir:{copy}")
    settings = json.loads((copy / "open_clip_config.json").read_text())
    settings["preprocess_cfg"]["resize_mode"] = "squash"
    different = [
        of(),
        of(CLASSES[::-1]),
        of(templates=["a {}"]),
        of(precision="bf16"),
        of(name=clip("resnet", seed=1)),
    ]
    (copy / "open_clip_config.json").write_text(json.dumps(settings))
    different.append(of(name=f"local-dir:{copy}"))
    assert len(set(different)) == len(different)


def test_making_one_imports_no_torch_and_reads_no_weights(clip):
    code = (
        "import sys; from pipeline.models.open_clip_model import open_clip_classifier as make;"
        f"make(('a',), 'auto', name={clip('resnet')!r});"
        "make(('a',), 'auto', name='ViT-B-32', pretrained='openai');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_copy_of_the_weights_serves_all_that_hold_it(clip):
    source = ClipSource(clip("resnet"))
    held = source.load("cpu")
    assert ClipSource(clip("resnet")).load("cpu") is held
    assert ClipSource(clip("resnet", seed=1)).load("cpu") is not held


def folder_without_weights(path: Path) -> str:
    (path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    return f"local-dir:{path}"


def folder_with_another_file(path: Path) -> str:
    (path / "open_clip_config.json").write_text('{"vision": 1}')
    return f"local-dir:{path}"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("local-dir:/nowhere/clip", {}, ["/nowhere/clip", "open_clip_config.json"]),
        (lambda path: f"local-dir:{path}", {}, ["holds no open_clip_config.json"]),
        (folder_without_weights, {}, ["holds no weights"]),
        (folder_with_another_file, {}, ["no 'model_cfg'"]),
        (str, {}, ["local-dir:"]),
        ("ViT-B-23", {"pretrained": "openai"}, ["ViT-B-23", "'ViT-B-32'"]),
        ("ViT-B-32", {}, ["pretrained", "openai", "laion2b_s34b_b79k"]),
        ("ViT-B-32", {"pretrained": "opanai"}, ["opanai", "'openai'"]),
        ("ViT-B-32", {"pretrained": "openai", "templates": ["no place"]}, ["no place", "{}"]),
        ("ViT-B-32", {"pretrained": "openai", "templates": []}, ["templates"]),
    ],
)
def test_what_is_not_there_is_said_plainly(tmp_path, name, options, words):
    name = name if isinstance(name, str) else name(tmp_path)
    with pytest.raises(UserError) as caught:
        open_clip_classifier(CLASSES, "cpu", name=name, **options).logits([np.zeros((8, 8, 3), np.uint8)])
    for word in words:
        assert word in str(caught.value)


def test_damaged_weights_are_said_plainly(clip, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(clip("resnet").removeprefix("local-dir:"), folder)
    (folder / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="can't be loaded"):
        open_clip_classifier(CLASSES, "cpu", name=f"local-dir:{folder}").logits([np.zeros((8, 8, 3), np.uint8)])


def test_a_pickle_is_refused_without_consent(clip, pictures, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(clip("resnet").removeprefix("local-dir:"), folder)
    torch.save(load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    name = f"local-dir:{folder}"
    with pytest.raises(UserError, match="is a pickle"):
        open_clip_classifier(CLASSES, "cpu", name=name)
    with pytest.raises(UserError, match="is a pickle"):
        open_clip_classifier(CLASSES, "cpu", name="RN50", pretrained=str(folder / "open_clip_pytorch_model.bin"))
    trusted = open_clip_classifier(CLASSES, "cpu", name=name, trust_pickle=True).logits(pictures(2, 64, 64))
    expected = open_clip_classifier(CLASSES, "cpu", name=clip("resnet")).logits(pictures(2, 64, 64))
    np.testing.assert_allclose(trusted, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "pretrained", "words"),
    [
        ("hf-hub:acme/not-here", None, ["hf download acme/not-here --local-dir FOLDER", "name: local-dir:FOLDER"]),
        ("ViT-B-32", "laion2b_s34b_b79k", ["hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K --local-dir FOLDER"]),
    ],
)
def test_offline_says_what_to_download_and_where_to_put_it(monkeypatch, tmp_path, name, pretrained, words):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        ClipSource(name, pretrained).load("cpu")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_said_plainly(clip, device):
    with pytest.raises(UserError, match="device"):
        ClipSource(clip("resnet")).load(device)


@pytest.mark.parametrize(
    ("seam", "kind", "options", "option"),
    [
        ("model", "open_clip", {"name": "x", "batch": 0}, "batch"),
        ("model", "open_clip", {"name": "x", "precision": "int4"}, "precision"),
        ("model", "transformers_zero_shot", {"name": "x", "template": "a {}"}, "templates"),
        ("model", "transformers", {"name": "x", "mapping": ["dog"]}, "mapping"),
        ("model", "timm", {"name": "x", "batch": "many"}, "batch"),
        ("model", "torchvision", {"name": "x", "labels": "dog"}, "labels"),
        ("model", "onnx", {"path": "x", "mean": [0.5]}, "mean"),
        ("model", "predictions", {"path": "x", "key": "name"}, "key"),
        ("embed", "open_clip", {"name": "x", "context": -0.1}, "context"),
        ("embed", "open_clip", {"name": "x", "regions": "crop"}, "regions"),
        ("caption", "transformers", {"name": "x", "max_new_tokens": 0}, "max_new_tokens"),
        ("detect", "yolo_world", {"name": "x", "text_model": "y", "floor": 2}, "floor"),
    ],
)
def test_options_out_of_range_are_refused_in_the_configuration(seam, kind, options, option):
    from pipeline.models import registry

    with pytest.raises(UserError, match=option):
        registry.check_options(seam, kind, options)
