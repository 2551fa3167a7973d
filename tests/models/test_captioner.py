"""Captions through transformers, on untrained models of each kind, saved and loaded as the large ones are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.transformers_captioner import TransformersCaptioner, transformers_captioner

WORDS = "describe the image. is there a dog in yes no Yes No cat on mat with red blue and ?".split()  # noqa: SIM905
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ANSWER:{% endif %}"
)


def tokenizer(**special: str):
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    names = [
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "<image>",
        "USER:",
        "ANSWER:",
        "Describe",
        *dict.fromkeys(WORDS),
    ]
    model = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    model.pre_tokenizer = Split(Regex(r"\s+"), "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        **special,
    )


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> str:
    """A decoder that sees the image among its words: chat template, image placeholders."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer(additional_special_tokens=["<image>"])
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        initializer_range=0.6,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> str:
    """A captioner that takes no prompt."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    words = tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(
        "<s> $A </s>", special_tokens=[(name, words.convert_tokens_to_ids(name)) for name in ("<s>", "</s>")]
    )
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={
            **size,
            "vocab_size": len(words),
            "encoder_hidden_size": 16,
            "bos_token_id": words.bos_token_id,
            "pad_token_id": words.pad_token_id,
            "eos_token_id": words.eos_token_id,
            "sep_token_id": words.eos_token_id,
            "initializer_range": 0.6,
        },
        vision_config={**size, "image_size": 32, "patch_size": 8},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BlipForConditionalGeneration(config)
    folder = tmp_path_factory.mktemp("blip")
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)
    return str(folder)


def make(name: str, **options) -> TransformersCaptioner:
    return transformers_captioner("cpu", name=name, **{"max_new_tokens": 8, **options})


@pytest.mark.parametrize("kind", ["llava", "blip"])
def test_a_caption_for_each_image_whatever_the_batch(request, pictures, kind):
    name = request.getfixturevalue(kind)
    images = [*pictures(2, 32, 32), *pictures(2, 50, 20), *pictures(1, 90, 90)]
    whole = make(name).captions(images)
    assert len(whole) == 5 and any(whole)
    assert make(name, batch=2).captions(images) == whole
    assert [make(name).captions([image])[0] for image in images] == whole
    assert make(name).captions([]) == []


def test_a_chat_model_is_asked_the_prompt_and_only_its_answer_returned(llava, pictures):
    """The answer is what the model's own generate adds to the words of the chat template."""
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    (image,) = pictures(1, 32, 32)
    processor, model = (
        AutoProcessor.from_pretrained(llava),
        AutoModelForImageTextToText.from_pretrained(llava),
    )
    asked = processor(
        images=[Image.fromarray(image)], text="USER: <image> Describe the image. ANSWER:", return_tensors="pt"
    )
    with torch.no_grad():
        tokens = model.eval().generate(**asked, do_sample=False, max_new_tokens=8)[0, asked["input_ids"].shape[1] :]
    expected = processor.decode(tokens, skip_special_tokens=True)
    assert make(llava).captions([image]) == [" ".join(expected.split())]
    assert "USER" not in expected


def test_the_prompt_reaches_a_chat_model(llava, pictures):
    images = pictures(4, 32, 32)
    assert make(llava).captions(images) != make(llava, prompt="is there a dog on the mat ?").captions(images)


def test_a_captioner_without_prompts_continues_another_one(blip, pictures):
    images = pictures(3, 32, 32)
    free, empty = make(blip).captions(images), make(blip, prompt="").captions(images)
    assert free == empty
    for caption in make(blip, prompt="a red cat").captions(images):
        assert caption.startswith("a red cat")


def test_yes_probability_is_that_of_the_first_word(llava, pictures):
    """Equal to reading the logits of one plain forward."""
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    images = pictures(3, 32, 32)
    questions = ["is there a dog ?", "is there a cat on the mat ?", "is there a dog ?"]
    found = make(llava, batch=2).yes_probability(images, questions)
    assert found.shape == (3,) and ((found > 0) & (found < 1)).all() and len(set(found.tolist())) == 3

    processor, model = (
        AutoProcessor.from_pretrained(llava),
        AutoModelForImageTextToText.from_pretrained(llava),
    )
    ids = {word: processor.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "Yes", "no", "No")}
    for image, question, probability in zip(images, questions, found, strict=True):
        asked = processor(
            images=[Image.fromarray(image)], text=f"USER: <image> {question} ANSWER:", return_tensors="pt"
        )
        with torch.no_grad():
            chance = model.eval()(**asked).logits[0, -1].softmax(0)
        yes, no = chance[[ids["yes"], ids["Yes"]]].sum(), chance[[ids["no"], ids["No"]]].sum()
        assert probability == pytest.approx(float(yes / (yes + no)), abs=1e-4)


def test_fingerprint_follows_everything_that_changes_answers(llava, blip, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(llava, copy)
    (copy / "README.md").write_text("a card")
    assert make(llava).fingerprint == make(str(copy)).fingerprint == make(llava, batch=3).fingerprint
    different = [
        make(llava).fingerprint,
        make(blip).fingerprint,
        make(llava, prompt="What is it?").fingerprint,
        make(llava, max_new_tokens=9).fingerprint,
        make(llava, precision="bf16").fingerprint,
        make("some/model").fingerprint,
    ]
    (copy / "chat_template.jinja").write_text("another")
    assert len({*different, make(str(copy)).fingerprint}) == len(different) + 1


def test_making_one_imports_no_torch(llava):
    code = (
        "import sys; from pipeline.models.transformers_captioner import transformers_captioner as make;"
        f"make('auto', name={llava!r});"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "just-a-name", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_plainly(name):
    with pytest.raises(UserError, match=re.escape(name)):
        make(name)


def test_a_folder_without_a_model_is_said_plainly(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        make(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no weights"):
        make(str(tmp_path))


def test_a_hub_name_without_a_network_is_said_plainly(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"some/model-that-is-not-here.*hf download"):
        make("some/model-that-is-not-here").captions([np.zeros((8, 8, 3), np.uint8)])


def test_weights_that_are_missing_are_said_plainly(llava, tmp_path):
    import shutil

    shutil.copytree(llava, tmp_path / "model")
    for file in Path(tmp_path / "model").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match="holds no weights"):
        make(str(tmp_path / "model"))
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(UserError, match="is a pickle"):
        make(str(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="can't be loaded"):
        make(str(tmp_path / "model")).captions([np.zeros((8, 8, 3), np.uint8)])


def test_weights_with_a_gap_are_refused(llava, tmp_path):
    """transformers would fill the gap with random numbers and go on."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(llava, tmp_path / "model")
    (file,) = (tmp_path / "model").glob("*.safetensors")
    weights = load_file(file)
    gone = next(name for name in sorted(weights) if "mlp" in name)
    weights.pop(gone)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lack 1 of the model's tensors"):
        make(str(tmp_path / "model")).captions([np.zeros((8, 8, 3), np.uint8)])
