"""The families of captioners through their own classes and processors: tiny untrained models, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.transformers_captioner import TransformersCaptioner, transformers_captioner

WORDS = "describe Describe the image. image detail what is shown in this a red dog cat on mat ? with blue sky".split()  # noqa: SIM905
MARKS = {
    "idefics3": ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<video>", "User:"],
    "qwen": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>"],
    "florence2": ["<image>"],
}
ROWS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
IDEFICS_CHAT = (
    "{% for m in messages %}User: {% for p in m['content'] %}{% if p['type'] == 'image' %}<image>"
    "{% else %} {{ p['text'] }}{% endif %}{% endfor %}<end_of_utterance>{% endfor %} Assistant:"
)
QWEN_CHAT = (
    "{% for m in messages %}<|im_start|> {% for p in m['content'] %}{% if p['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %} {{ p['text'] }}{% endif %}{% endfor %}<|im_end|>"
    "{% endfor %}<|im_start|>"
)


def tokenizer(marks: list[str], **named: str):
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<unk>", "<s>", "</s>", *marks, *dict.fromkeys(WORDS), "Assistant:"]
    model = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    model.pre_tokenizer = Split(Regex(r"\s+"), "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=marks,
        **named,
    )


def llama(words: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
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


def tiled(words: Any) -> dict[str, Any]:
    """Of SmolVLM and Idefics3: 32-pixel tiles of 4 tokens, and the whole image as one more."""
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    return {
        "text_config": llama(words),
        "vision_config": vision,
        "image_token_id": words.convert_tokens_to_ids("<image>"),
        "pad_token_id": words.pad_token_id,
        "scale_factor": 2,
    }


def idefics3() -> tuple[Any, Any]:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

    words = tokenizer([*MARKS["idefics3"], *ROWS])
    images = Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    model = Idefics3ForConditionalGeneration(Idefics3Config(**tiled(words)))
    return model, Idefics3Processor(images, words, image_seq_len=4, chat_template=IDEFICS_CHAT)


def smolvlm() -> tuple[Any, Any]:
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    pytest.importorskip("num2words")  # the processor of transformers asks for it
    words = tokenizer([*MARKS["idefics3"], *ROWS])
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**sizes),
        words,
        SmolVLMVideoProcessor(**sizes),
        image_seq_len=4,
        chat_template=IDEFICS_CHAT,
    )
    return SmolVLMForConditionalGeneration(SmolVLMConfig(**tiled(words))), processor


def qwen(words: Any, rope: dict[str, Any]) -> dict[str, Any]:
    ids = {
        f"{name}_token_id": words.convert_tokens_to_ids(f"<|{mark}|>")
        for name, mark in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    text = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **rope},
        "initializer_range": 0.6,
    }
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 8,
        "out_hidden_size": 32,
    }
    return {"text_config": text, "vision_config": vision, **ids}


def qwen2_5_vl() -> tuple[Any, Any]:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    words = tokenizer(MARKS["qwen"])
    options = qwen(words, {"mrope_section": [2, 3, 3]})
    options["vision_config"] |= {"window_size": 32, "fullatt_block_indexes": [1]}
    sizes = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), words, Qwen2VLVideoProcessor(**sizes), chat_template=QWEN_CHAT
    )
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**options)), processor


def qwen3_vl() -> tuple[Any, Any]:
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    words = tokenizer(MARKS["qwen"])
    options = qwen(words, {"mrope_section": [3, 3, 2], "mrope_interleaved": True})
    options["text_config"] |= {"head_dim": 16}
    options["vision_config"] |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    sizes = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}}
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(**sizes), words, Qwen3VLVideoProcessor(**sizes), chat_template=QWEN_CHAT
    )
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**options)), processor


def florence2() -> tuple[Any, Any]:
    from transformers import (
        BartConfig,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        Florence2VisionConfig,
    )

    words = tokenizer(MARKS["florence2"], extra_special_tokens={"image_token": "<image>"})
    vision = Florence2VisionConfig(
        depths=(1, 1, 1, 1),
        embed_dim=(8, 16, 16, 16),
        num_heads=(2, 2, 2, 2),
        num_groups=(2, 2, 2, 2),
        window_size=4,
        projection_dim=32,
    )
    text = BartConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        decoder_start_token_id=words.eos_token_id,
        forced_eos_token_id=words.eos_token_id,
        init_std=0.6,
    )
    config = Florence2Config(
        text_config=text,
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        decoder_start_token_id=words.eos_token_id,
    )
    images = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5  # a 2 x 2 map, and its mean
    return Florence2ForConditionalGeneration(config), Florence2Processor(
        images, words, post_processor_config={"pure_text": {}}
    )


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "florence2": florence2,
}
CHATS = [name for name in MAKERS if name != "florence2"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Callable[[str], str]:
    """folder(family) -> where an untrained model of it lies, made once a session."""
    import torch

    made: dict[str, str] = {}

    def make(family: str) -> str:
        if family not in made:
            path: Path = tmp_path_factory.mktemp(family)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model, processor = MAKERS[family]()
            model.save_pretrained(path)
            processor.save_pretrained(path)
            made[family] = str(path)
        return made[family]

    return make


def make(name: str, **options: Any) -> TransformersCaptioner:
    return transformers_captioner("cpu", name=name, **{"max_new_tokens": 6, **options})


def by_hand(name: str, image: np.ndarray, prompt: str) -> str:
    """One image as the documentation of transformers shows it."""
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor, model = AutoProcessor.from_pretrained(name), AutoModelForImageTextToText.from_pretrained(name).eval()
    picture = Image.fromarray(image)
    if prompt.startswith("<"):
        inputs = processor(text=prompt, images=picture, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=1)
        text = processor.batch_decode(tokens, skip_special_tokens=False)[0]
        return processor.post_process_generation(text, task=prompt)[prompt].replace("<pad>", "")
    talk = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]}]
    inputs = processor.apply_chat_template(
        talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(tokens, skip_special_tokens=True)[0]


@pytest.mark.parametrize("family", list(MAKERS))
def test_a_caption_is_what_the_library_gives_for_one_image_whatever_the_batch(folder, pictures, family):
    name = folder(family)
    images = [*pictures(2, 32, 32), *pictures(1, 40, 80), *pictures(1, 64, 33)]
    prompt = "<DETAILED_CAPTION>" if family == "florence2" else "Describe the image."
    expected = [" ".join(by_hand(name, image, prompt).split()) for image in images]
    found = make(name).captions(images)
    assert found == expected and all(found)
    assert len(set(found)) > 1 or family == "florence2"  # whose untrained decoder repeats one word whatever it sees
    assert make(name, batch=3).captions(images) == found
    assert make(name).captions([]) == []


@pytest.mark.parametrize("family", CHATS)
def test_the_prompt_reaches_a_chat_model(folder, pictures, family):
    images = pictures(6, 32, 32)
    assert make(folder(family)).captions(images) != make(folder(family), prompt="what is on the mat ?").captions(images)


@pytest.mark.parametrize("family", CHATS)
def test_a_chat_model_can_be_asked_yes_or_no(folder, pictures, family):
    """These tokenizers know neither word, which is said rather than guessed."""
    with pytest.raises(UserError, match="yes from no"):
        make(folder(family)).yes_probability(pictures(1, 32, 32), ["is a dog in this image ?"])


def test_florence_takes_its_own_tasks_alone(folder, pictures):
    name, images = folder("florence2"), pictures(2, 64, 64)
    for given, words in (
        ({}, "Describe in detail what is shown in the image."),
        ({"prompt": "<DETAILED_CAPTION>"}, "Describe in detail what is shown in the image."),
        ({"prompt": "<MORE_DETAILED_CAPTION>"}, "Describe with a <unk> what is shown in the image."),
    ):
        captioner = make(name, **given)
        ids = captioner._inputs(images, [captioner._asked] * 2)["input_ids"][0]
        assert captioner._processor.tokenizer.decode(ids).split("<s>")[1].replace("</s>", "").strip() == words
        assert not any(mark in text for text in captioner.captions(images) for mark in ("<s>", "</s>", "<pad>"))
    for wrong in ("<DETAILED CAPTION>", "<OD>", "<CAPTION> of the dog"):
        with pytest.raises(UserError, match=r"is no task by which .* captions\. Did you mean '<\w+>'"):
            make(name, prompt=wrong).captions(images)


def test_an_image_is_made_smaller_and_never_larger(folder, pictures):
    from PIL import Image

    name, (large,) = folder("qwen2_5_vl"), pictures(1, 90, 60)
    small = np.asarray(Image.fromarray(large).copy())
    thumbnail = Image.fromarray(small)
    thumbnail.thumbnail((45, 45))
    assert make(name, longest_side=45).captions([large]) == make(name).captions([np.asarray(thumbnail)])
    assert make(name, longest_side=400).captions([large]) == make(name).captions([large])
    assert make(name, longest_side=45).fingerprint != make(name).fingerprint
