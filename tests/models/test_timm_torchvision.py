"""Models of timm and torchvision: untrained, from a folder, a checkpoint, or published weights that are at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.timm_model import timm_classifier
from pipeline.models.torchvision_model import torchvision_classifier

CLASSES = ("boat", "dog")
LABELS = ["dog", "cat", "boat"]
ARCHITECTURE = "test_resnet"  # timm's own for tests: 0.5 million weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model as timm saves it for a hub, its labels named in its config."""
    import timm
    import timm.models
    import torch

    place = tmp_path_factory.mktemp("timm")
    config = {"input_size": (3, 96, 96), "crop_pct": 0.9, "mean": (0.4, 0.5, 0.6)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(ARCHITECTURE, num_classes=3, pretrained_cfg_overlay=config)
        torch.nn.init.normal_(model.get_classifier().weight, std=0.5)
    named = {"label_names": LABELS, "num_classes": 3}
    timm.models.save_for_hf(model, place, model_config=named, safe_serialization=True)
    return place


def expected(model, images, classes=CLASSES) -> np.ndarray:
    """By timm's own evaluation transform."""
    import timm.data
    import torch
    from PIL import Image

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        raw = model.eval()(torch.stack([transform(Image.fromarray(image)) for image in images])).numpy()
    return raw[:, [LABELS.index(name) for name in classes]]


def test_a_folder_is_seen_through_its_own_data_config(folder, pictures) -> None:
    import timm

    images = [*pictures(2, 96, 96), *pictures(2, 70, 140)]
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.pretrained_cfg["input_size"][-1] == 96
    for name in (f"local-dir:{folder}", str(folder)):
        found = timm_classifier(CLASSES, "cpu", name=name, batch=3).logits(images)
        np.testing.assert_allclose(found, expected(model, images), atol=1e-5)
    assert timm_classifier(CLASSES, "cpu", name=str(folder)).logits([]).shape == (0, 2)


def test_a_checkpoint_needs_labels_and_consent(folder, pictures, tmp_path) -> None:
    import timm
    import torch
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "best.pth.tar")
    model = timm.create_model(ARCHITECTURE, num_classes=3)
    model.load_state_dict(state)
    safe = {"name": ARCHITECTURE, "checkpoint": str(folder / "model.safetensors")}
    pickled = {"name": ARCHITECTURE, "checkpoint": str(tmp_path / "best.pth.tar")}
    images = pictures(3, 100, 120)
    for options in ({**safe, "labels": LABELS}, {**pickled, "labels": LABELS, "trust_pickle": True}):
        found = timm_classifier(CLASSES, "cpu", **options).logits(images)
        np.testing.assert_allclose(found, expected(model, images), atol=1e-5)
    with pytest.raises(UserError, match="is a pickle"):
        timm_classifier(CLASSES, "cpu", **pickled, labels=LABELS)
    with pytest.raises(UserError, match="'labels'"):
        timm_classifier(CLASSES, "cpu", **safe)
    with pytest.raises(UserError, match=r"can't be loaded by timm.*size mismatch"):
        timm_classifier(CLASSES, "cpu", **safe, labels=[*LABELS, "one more"]).logits(images)


def test_a_pickle_in_a_folder_is_refused_without_consent(folder, pictures, tmp_path) -> None:
    import torch
    from safetensors.torch import load_file

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    for file in copy.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match="is a pickle"):
        timm_classifier(CLASSES, "cpu", name=str(copy))
    found = timm_classifier(CLASSES, "cpu", name=str(copy), trust_pickle=True).logits(pictures(2, 96, 96))
    np.testing.assert_allclose(
        found, timm_classifier(CLASSES, "cpu", name=str(folder)).logits(pictures(2, 96, 96)), atol=1e-6
    )


def test_imagenet_labels_are_known_by_synset_and_word() -> None:
    import timm

    from pipeline.models.labels import match
    from pipeline.models.timm_model import _known

    model = timm.create_model(ARCHITECTURE, pretrained_cfg={"num_classes": 1000, "tag": "r160_in1k"}, num_classes=1000)
    known = _known(model)
    assert known and match(["n01440764", "tench", "Great White Shark"], known, {"tench": 1}).outputs == (
        (0,),
        (1,),
        (2,),
    )
    model.pretrained_cfg["tag"] = "of_my_own"
    assert _known(model) is None


def test_timm_mistakes_are_said_plainly(folder, monkeypatch, tmp_path) -> None:
    image = [np.zeros((8, 8, 3), np.uint8)]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name, words in {
        "resnet5O": ["knows no model 'resnet5O'", "Did you mean 'resnet50'"],
        "resnet50.a1_in1k": ["hf download timm/resnet50.a1_in1k --local-dir FOLDER", "name: local-dir:FOLDER"],
        "hf-hub:acme/not-here": ["hf download acme/not-here --local-dir FOLDER"],
        "local-dir:/nowhere": ["/nowhere", "config.json"],
    }.items():
        with pytest.raises(UserError) as caught:
            timm_classifier(CLASSES, "cpu", name=name).logits(image)
        for word in words:
            assert word in str(caught.value)
    with pytest.raises(UserError, match=r"'bote' is none of the model's 3 labels. Did you mean 'boat'"):
        timm_classifier(("bote", "dog"), "cpu", name=str(folder)).logits(image)


def test_bf16_is_near_fp32(folder, state, pictures) -> None:
    images = pictures(3, 96, 96)
    state_dict = {"name": "squeezenet1_1", "labels": LABELS, "checkpoint": str(state)}
    for make, options in ((timm_classifier, {"name": str(folder)}), (torchvision_classifier, state_dict)):
        exact, rough = (make(CLASSES, "cpu", **options, precision=p).logits(images) for p in ("fp32", "bf16"))
        assert rough.dtype == np.float32 and not np.array_equal(rough, exact)
        np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


def test_timm_fingerprints_follow_what_changes_answers(folder, tmp_path) -> None:
    def of(classes=CLASSES, name=str(folder), **options):
        return timm_classifier(classes, "cpu", name=name, **options).fingerprint

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert of() == of(batch=1) == of(name=f"local-dir:{copy}")
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace("0.9", "0.8"))
    others = [of(), of(CLASSES[::-1]), of(mapping={"dog": "cat"}), of(precision="bf16"), of(name=str(copy))]
    assert len(set(others)) == len(others)


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    """A state dict of torchvision's smallest model with three outputs, as safetensors."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.get_model("squeezenet1_1", num_classes=3)
        torch.nn.init.normal_(model.classifier[1].weight, std=0.3)
    file = tmp_path_factory.mktemp("torchvision") / "model.safetensors"
    save_file(model.state_dict(), file)
    return file


def test_a_state_dict_is_seen_through_the_weights_transforms(state, pictures, tmp_path) -> None:
    import torch
    import torchvision
    from PIL import Image
    from safetensors.torch import load_file

    model = torchvision.models.get_model("squeezenet1_1", num_classes=3).eval()
    model.load_state_dict(load_file(state))
    transform = torchvision.models.get_model_weights("squeezenet1_1").IMAGENET1K_V1.transforms()
    images = [*pictures(1, 224, 224), *pictures(2, 200, 300)]
    with torch.no_grad():
        raw = model(torch.stack([transform(Image.fromarray(image)) for image in images])).numpy()
    options = {"name": "squeezenet1_1", "labels": LABELS}
    found = torchvision_classifier(CLASSES, "cpu", **options, checkpoint=str(state)).logits(images)
    np.testing.assert_allclose(found, raw[:, [2, 0]], atol=1e-5)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    pickled = {**options, "checkpoint": str(tmp_path / "model.pth")}
    with pytest.raises(UserError, match="is a pickle"):
        torchvision_classifier(CLASSES, "cpu", **pickled)
    again = torchvision_classifier(CLASSES, "cpu", **pickled, trust_pickle=True).logits(images)
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_published_weights_are_taken_from_torchs_cache(monkeypatch, pictures, tmp_path) -> None:
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights("squeezenet1_1").IMAGENET1K_V1
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    classes = ("goldfish", "Egyptian cat")
    model = torchvision_classifier(classes, "cpu", name="squeezenet1_1", weights="IMAGENET1K_V1")
    target = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    with pytest.raises(UserError) as caught:
        model.logits(pictures(1, 64, 64))
    assert f"Download {weights.url}" in str(caught.value) and str(target) in str(caught.value)

    own = torchvision.models.get_model("squeezenet1_1").eval()
    target.parent.mkdir(parents=True)
    torch.save(own.state_dict(), target)
    with torch.no_grad():
        from PIL import Image

        raw = own(weights.transforms()(Image.fromarray(pictures(1, 64, 64)[0]))[None]).numpy()
    names = weights.meta["categories"]
    np.testing.assert_allclose(
        model.logits(pictures(1, 64, 64)), raw[:, [names.index("goldfish"), names.index("Egyptian cat")]], atol=1e-5
    )


def test_torchvision_mistakes_are_said_plainly(state) -> None:
    image = [np.zeros((8, 8, 3), np.uint8)]
    for options, words in (
        ({"name": "resnet5O"}, ["no classification model 'resnet5O'", "Did you mean 'resnet50'"]),
        (
            {"name": "resnet50", "weights": "IMAGENET1K_V3"},
            ["no weights 'IMAGENET1K_V3'", "Did you mean 'IMAGENET1K_V"],
        ),
        ({"name": "resnet18", "checkpoint": str(state), "labels": LABELS}, ["into resnet18", "another model"]),
        ({"name": "squeezenet1_1", "checkpoint": str(state)}, ["'labels'"]),
        ({"name": "squeezenet1_1", "checkpoint": "/nowhere.pth"}, ["no checkpoint /nowhere.pth"]),
    ):
        with pytest.raises(UserError) as caught:
            torchvision_classifier(CLASSES, "cpu", **options).logits(image)
        for word in words:
            assert word in str(caught.value)
