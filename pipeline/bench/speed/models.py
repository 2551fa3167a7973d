"""Models and pictures to measure with: sizes of published ones, with weights drawn at random."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.images import RGB


def clip_of_size(name: str, work: Path) -> str:
    """An open_clip model of this architecture, written once to `work`: `local-dir:FOLDER`."""
    folder = work / f"clip-{name}"
    if not (folder / "open_clip_config.json").is_file():
        import open_clip
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        model = open_clip.create_model(name)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        settings = {
            "model_cfg": open_clip.get_model_config(name),
            "preprocess_cfg": {
                "mean": list(open_clip.OPENAI_DATASET_MEAN),
                "std": list(open_clip.OPENAI_DATASET_STD),
                "interpolation": "bicubic",
                "resize_mode": "shortest",
            },
        }
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
    return f"local-dir:{folder}"


def pictures(number: int, side: int, seed: int = 0) -> list[RGB]:
    """Rendered scenes (side, side, 3); beyond a hundred the first come again, mirrored or with other noise."""
    from pipeline.planted import render, sample_scene

    rng = np.random.default_rng(seed)
    drawn = [render(sample_scene(rng), side).image for _ in range(min(number, 100))]
    found = []
    for index in range(number):
        image = drawn[index % len(drawn)]
        noise = rng.integers(-6, 7, image.shape, dtype=np.int16)
        found.append(np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8))
    return found


TEMPLATE = ("a", "photo", "of")
THINGS = ("red", "blue", "green", "old", "dog", "cat", "buoy", "boat", "wheel", "road", "sky", "sea", "snow", "tree")
"""Words that the bench's detector knows."""
SIDE = 384
"""Pixels of what it sees."""


def owlv2_of_size(work: Path) -> str:
    """An OWLv2 folder of a small model, in which a phrase costs as large a share of an image as in the base model.

    That is 1.2 of 1,090 GFLOP there (12 blocks of width 768 on 3,600 patches; 12 of 512 on 16 tokens), and 5 of 4,600
    MFLOP here.
    """
    folder = work / "owlv2"
    if (folder / "config.json").is_file():
        return str(folder)
    import torch
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
        PreTrainedTokenizerFast,
    )

    names = ["!", "<unk>", *TEMPLATE, *THINGS, "<s>", "</s>"]
    ends = [(name, names.index(name)) for name in ("<s>", "</s>")]
    tokens = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokens.pre_tokenizer = Split(Regex(r"\s+"), "removed")
    tokens.post_processor = TemplateProcessing("<s> $A </s>", special_tokens=ends)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="!",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=16,
    )
    blocks = {"num_hidden_layers": 6, "num_attention_heads": 6}
    text = {
        **blocks,
        "hidden_size": 48,
        "intermediate_size": 192,
        "vocab_size": len(names),
        "max_position_embeddings": 16,
        "pad_token_id": 0,
    }
    text |= {"bos_token_id": ends[0][1], "eos_token_id": ends[1][1]}
    torch.manual_seed(0)
    network = Owlv2ForObjectDetection(
        Owlv2Config(
            text_config=text,
            vision_config={
                **blocks,
                "hidden_size": 192,
                "intermediate_size": 768,
                "image_size": SIDE,
                "patch_size": 16,
            },
            projection_dim=text["hidden_size"],
        )
    )
    network.save_pretrained(folder)
    Owlv2Processor(Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer).save_pretrained(folder)
    return str(folder)
