"""Zero-shot and image classification models of transformers: untrained, saved and loaded as the large ones are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.transformers_classifier import transformers_classifier
from pipeline.models.transformers_zero_shot import transformers_zero_shot

CLASSES = ("sailboat", "traffic light", "dog")
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<unk>", "</s>", *"a photo of the . sailboat traffic light dog".split()]  # noqa: SIM905
    model = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    model.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def save_zero_shot(kind: str, folder: Path) -> str:
    """An untrained two-tower model in `folder`."""
    import torch
    import transformers as t

    text = {**SMALL, "vocab_size": 12, "max_position_embeddings": 16, "pad_token_id": 0, "eos_token_id": 2}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    if kind == "clip":
        model_class, config = t.CLIPModel, t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        processor = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    elif kind == "siglip":
        text = {**text, "projection_size": 16}
        model_class, config = t.SiglipModel, t.SiglipConfig(text_config=text, vision_config=vision)
        processor = t.SiglipImageProcessor(size={"height": 32, "width": 32})
    else:
        text = {**text, "projection_size": 16}
        vision = {**SMALL, "patch_size": 8, "num_patches": 16}
        model_class, config = t.Siglip2Model, t.Siglip2Config(text_config=text, vision_config=vision)
        processor = t.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config)
        for parameter in model.parameters():  # an untrained model says the same of every image
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        if kind != "clip":
            torch.nn.init.constant_(model.logit_scale, 3.0)
            torch.nn.init.constant_(model.logit_bias, -7.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def zero_shot(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("zero-shot"), dict[str, str]()

    def make(kind: str) -> str:
        if kind not in made:
            made[kind] = save_zero_shot(kind, root / kind)
        return made[kind]

    return make


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_logits_are_the_models_own(zero_shot, pictures, kind) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForZeroShotImageClassification, AutoTokenizer

    folder, template = zero_shot(kind), "a photo of the {} ."
    images = [*pictures(2, 32, 32), *pictures(2, 50, 90)]
    found = transformers_zero_shot(CLASSES, "cpu", name=folder, templates=[template], batch=3).logits(images)

    model = AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
    texts = AutoTokenizer.from_pretrained(folder)(
        [template.format(word) for word in CLASSES],
        padding=True if kind == "clip" else "max_length",
        max_length=16,
        truncation=True,
        return_tensors="pt",
    )
    pixels = AutoImageProcessor.from_pretrained(folder)([Image.fromarray(i) for i in images], return_tensors="pt")
    with torch.no_grad():
        expected = model(**texts, **pixels).logits_per_image.numpy()
    assert found.shape == (4, 3) and found.dtype == np.float32
    assert np.ptp(expected, axis=0).min() > 1e-2  # or equality would show nothing
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_bf16_is_near_fp32(zero_shot, pictures, kind) -> None:
    exact, rough = (
        transformers_zero_shot(CLASSES, "cpu", name=zero_shot(kind), precision=p).logits(pictures(3, 32, 32))
        for p in ("fp32", "bf16")
    )
    assert rough.dtype == np.float32 and not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


def test_prompts_of_a_class_are_averaged(zero_shot, pictures) -> None:
    def of(*templates):
        model = transformers_zero_shot(CLASSES, "cpu", name=zero_shot("clip"), templates=templates)
        return model.logits(pictures(2, 32, 32))

    both, one, other = of("a photo of a {}", "the {}"), of("a photo of a {}"), of("the {}")
    assert not np.allclose(both, one, atol=1e-3) and not np.allclose(both, other, atol=1e-3)
    assert transformers_zero_shot(CLASSES, "cpu", name=zero_shot("clip")).logits([]).shape == (0, 3)


def save_classifier(folder: Path, labels: list[str] | None = None) -> str:
    import torch
    import transformers as t

    named = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = t.ViTConfig(
            **SMALL, image_size=32, patch_size=8, initializer_range=0.3, **(named or {"num_labels": 4})
        )
        t.ViTForImageClassification(config).save_pretrained(folder)
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    return save_classifier(tmp_path_factory.mktemp("classifier"), ["dog, hound", "Traffic_Light", "sailboat", "pug"])


def test_a_classifiers_probabilities_are_the_pipelines(classifier, pictures) -> None:
    from PIL import Image
    from transformers import pipeline

    images = [*pictures(2, 32, 32), *pictures(1, 60, 41)]
    model = transformers_classifier(CLASSES, "cpu", name=classifier, mapping={"dog": ["dog, hound", "pug"]})
    logits = model.logits(images)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said = pipeline("image-classification", classifier, device="cpu")([Image.fromarray(i) for i in images], top_k=4)
    scores = [{entry["label"]: entry["score"] for entry in of_image} for of_image in said]
    expected = [[s["sailboat"], s["Traffic_Light"], s["dog, hound"] + s["pug"]] for s in scores]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_labels_are_matched_before_any_weight_is_read(classifier, tmp_path) -> None:
    with pytest.raises(UserError, match=r"'sailbaot' is none of the model's 4 labels. Did you mean 'sailboat'"):
        transformers_classifier(("sailbaot", "dog"), "cpu", name=classifier)
    nameless = save_classifier(tmp_path / "nameless")
    with pytest.raises(UserError, match=r"doesn't name its .*outputs.*'labels'"):
        transformers_classifier(("dog", "cat"), "cpu", name=nameless)
    with pytest.raises(UserError, match="'labels' lists 2"):
        transformers_classifier(("dog", "cat"), "cpu", name=nameless, labels=["dog", "cat"])
    model = transformers_classifier(("dog", "cat"), "cpu", name=nameless, labels=["cat", "dog", "x", "y"])
    assert model.logits([np.zeros((9, 9, 3), np.uint8)]).shape == (1, 2)


def test_fingerprints_follow_what_changes_answers(classifier, zero_shot, tmp_path) -> None:
    def of(classes=CLASSES, name=classifier, **options):
        return transformers_classifier(classes, "cpu", name=name, **options).fingerprint

    copy = tmp_path / "copy"
    shutil.copytree(classifier, copy)
    assert of() == of(batch=3) == of(precision="fp32") == of(name=str(copy))
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.4, 0.4, 0.4]}))
    others = [of(), of(CLASSES[::-1]), of(mapping={"dog": "pug"}), of(precision="bf16"), of(name=str(copy))]
    assert len(set(others)) == len(others)

    def shot(classes=CLASSES, **options):
        return transformers_zero_shot(classes, "cpu", name=zero_shot("clip"), **options).fingerprint

    assert len({shot(), shot(CLASSES[::-1]), shot(templates=["a {}"]), shot(precision="fp16")}) == 4
    assert shot() == shot(batch=1)


def pickled(folder: Path) -> str:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return str(folder)


def test_a_pickle_is_refused_without_consent(classifier, zero_shot, tmp_path, pictures) -> None:
    for original, make in (
        (classifier, transformers_classifier),
        (zero_shot("clip"), transformers_zero_shot),
    ):
        copy = tmp_path / Path(original).name
        shutil.copytree(original, copy)
        expected = make(CLASSES, "cpu", name=original).logits(pictures(2, 32, 32))
        name = pickled(copy)
        with pytest.raises(UserError, match=r"is a pickle, .* trust_pickle: true"):
            make(CLASSES, "cpu", name=name)
        found = make(CLASSES, "cpu", name=name, trust_pickle=True).logits(pictures(2, 32, 32))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_weights_that_are_missing_or_damaged_are_said_plainly(classifier, zero_shot, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    image = [np.zeros((8, 8, 3), np.uint8)]
    copy = tmp_path / "copy"
    shutil.copytree(classifier, copy)
    weights = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lack 2 of the model's tensors"):
        transformers_classifier(CLASSES, "cpu", name=str(copy)).logits(image)
    (copy / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        transformers_classifier(CLASSES, "cpu", name=str(copy)).logits(image)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        transformers_zero_shot(CLASSES, "cpu", name=str(copy))
    with pytest.raises(UserError, match="no model folder"):
        transformers_zero_shot(CLASSES, "cpu", name="/nowhere/at/all")


@pytest.mark.parametrize("make", [transformers_classifier, transformers_zero_shot])
def test_offline_says_what_to_download_and_where_to_put_it(make, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"hf download acme/not-here --local-dir FOLDER; .*name: FOLDER"):
        make(CLASSES, "cpu", name="acme/not-here").logits([np.zeros((8, 8, 3), np.uint8)])
