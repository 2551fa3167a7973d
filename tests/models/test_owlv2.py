"""OWLv2 as the library's own forward gives it, with the image embedded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.owlv2 import Owlv2, owlv2

PHRASES = ["red dog", "blue cat", "sky"]
WORDS = ["a", "photo", "of", "red", "dog", "blue", "cat", "sky", "sea"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """An untrained OWLv2 of 64 pixels whose scores spread."""
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

    names = ["!", "<unk>", *WORDS, "<s>", "</s>"]
    model = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    model.pre_tokenizer = Split(Regex(r"\s+"), "removed")
    model.post_processor = TemplateProcessing(
        "<s> $A </s>", special_tokens=[(name, names.index(name)) for name in ("<s>", "</s>")]
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="!", unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=16
    )
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config={
            **size,
            "vocab_size": len(names),
            "max_position_embeddings": 16,
            "bos_token_id": names.index("<s>"),
            "eos_token_id": names.index("</s>"),
            "pad_token_id": 0,
        },
        vision_config={**size, "image_size": 64, "patch_size": 8},
        projection_dim=32,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = Owlv2ForObjectDetection(config)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    path = tmp_path_factory.mktemp("owlv2")
    network.save_pretrained(path)
    Owlv2Processor(Owlv2ImageProcessor(size={"height": 64, "width": 64}), words).save_pretrained(path)
    return str(path)


@pytest.fixture
def make(folder, tmp_path):
    def of(**options: Any) -> Owlv2:
        given = {"name": folder, "templates": ["{}"], "calibration": (), "floor": 0.0, "iou": 1.0, **options}
        return owlv2("cpu", tmp_path / "cache", **{"max_per_image": 100_000, **given})

    return of


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """How many images each forward of the image tower saw."""
    from transformers import Owlv2ForObjectDetection

    seen: list[int] = []
    plain = Owlv2ForObjectDetection.image_embedder

    def counted(self, pixel_values, *args, **options):
        seen.append(len(pixel_values))
        return plain(self, pixel_values, *args, **options)

    monkeypatch.setattr(Owlv2ForObjectDetection, "image_embedder", counted)
    return seen


def full_forward(folder: str, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places, phrases) scores and (places, 4) pixel boxes of the library's own forward and post-processing."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Owlv2ForObjectDetection

    processor, model = AutoProcessor.from_pretrained(folder), Owlv2ForObjectDetection.from_pretrained(folder).eval()
    inputs = processor(text=[PHRASES], images=Image.fromarray(image), return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    (best,) = processor.post_process_grounded_object_detection(
        outputs, threshold=-1.0, target_sizes=[image.shape[:2]], text_labels=[PHRASES]
    )
    scores = outputs.logits.sigmoid()[0].numpy()
    np.testing.assert_allclose(scores.max(axis=1), best["scores"].numpy(), atol=1e-6)
    return scores, best["boxes"].numpy()


@pytest.mark.parametrize("shape", [(64, 64), (40, 90), (120, 50)])
def test_scores_and_boxes_are_the_librarys_for_the_same_image_and_queries(make, folder, pictures, shape):
    (image,) = pictures(1, *shape)
    scores, boxes = full_forward(folder, image)
    assert scores.max() - scores.min() > 0.1
    (found,) = make().detect([image], PHRASES)
    height, width = shape
    pixels = np.clip(boxes, 0, [width, height, width, height])
    for number in range(len(PHRASES)):
        mine = found.phrases == number
        assert mine.sum() == len(boxes) == 64
        order = np.argsort(-scores[:, number], kind="stable")
        np.testing.assert_allclose(found.scores[mine], scores[order, number], atol=1e-5)
        # places with equal scores may come in any order: compare as sets of boxes
        scale = np.array([width, height, width, height])
        ours, theirs = found.boxes[mine] * scale, pixels
        nearest = np.abs(ours[:, None] - theirs[None]).max(axis=2).min(axis=1)
        assert nearest.max() < 1e-2


def test_labels_do_not_compete(make, pictures):
    """The library's post-processing keeps the best label of each place; here each keeps its own."""
    (image,) = pictures(1, 64, 64)
    (together,) = make().detect([image], [*PHRASES, "red dog"])
    for number, phrase in enumerate([*PHRASES, "red dog"]):
        (alone,) = make().detect([image], [phrase])
        np.testing.assert_allclose(together.scores[together.phrases == number], alone.scores, atol=1e-5)


def test_an_image_is_embedded_once_whatever_is_asked(make, pictures, forwards):
    images = pictures(5, 64, 64)
    make(batch=2).detect(images, PHRASES)
    assert forwards == [2, 2, 1]


def test_phrases_added_later_need_no_forward_of_the_image(make, pictures, forwards):
    images = pictures(3, 40, 64)
    first = make(remember=True)
    before = first.detect(images, PHRASES)
    assert sum(forwards) == 3
    more = first.detect(images, [*PHRASES, "sea"])
    again = make(remember=True).detect(images, ["sea", *PHRASES])  # another process would find them on disk too
    assert sum(forwards) == 3
    for old, new, other in zip(before, more, again, strict=True):
        assert (new.phrases == 3).any()
        # up to the rounding of products of other sizes
        np.testing.assert_allclose(old.scores[old.phrases == 0], new.scores[new.phrases == 0], rtol=1e-4)
        np.testing.assert_allclose(old.scores[old.phrases == 0], other.scores[other.phrases == 1], rtol=1e-4)
    exact = make().detect(images, PHRASES)
    np.testing.assert_allclose(before[0].scores, exact[0].scores, atol=5e-3)  # kept in half precision


def test_a_damaged_memory_is_made_again(make, pictures, forwards, tmp_path):
    images = pictures(1, 64, 64)
    (before,) = make(remember=True).detect(images, PHRASES)
    (file,) = (tmp_path / "cache").rglob("*.npz")
    for content in (b"", b"PK not a zip", file.read_bytes()[:200]):
        file.write_bytes(content)
        (after,) = make(remember=True).detect(images, PHRASES)
        np.testing.assert_array_equal(before.scores, after.scores)
    assert sum(forwards) == 4


def test_few_places_are_the_ones_most_like_an_object(make, folder, pictures):
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Owlv2ForObjectDetection

    (image,) = pictures(1, 64, 64)
    processor, model = AutoProcessor.from_pretrained(folder), Owlv2ForObjectDetection.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = model(**processor(text=[PHRASES], images=Image.fromarray(image), return_tensors="pt"))
    best = outputs.objectness_logits[0].topk(10).indices
    expected = outputs.logits.sigmoid()[0, best, 0].sort(descending=True).values.numpy()
    (found,) = make(places=10).detect([image], PHRASES)
    np.testing.assert_allclose(found.scores[found.phrases == 0], expected, atol=1e-5)


def test_answers_are_sorted_above_the_floor_suppressed_and_calibrated(make, pictures):
    images = pictures(2, 64, 64)
    raw = make(floor=0.3, iou=0.5).detect(images, PHRASES)
    mapped = make(floor=0.3, iou=0.5, calibration=[[0.1, 0.25]]).detect(images, PHRASES)
    for plain, common in zip(raw, mapped, strict=True):
        assert len(plain.scores) and plain.scores.min() >= 0.3 and (np.diff(plain.scores) <= 0).all()
        np.testing.assert_allclose(common.scores, 0.25 + (plain.scores - 0.1) / 0.9 * 0.75, atol=1e-5)
        np.testing.assert_array_equal(common.boxes, plain.boxes)


def test_a_long_phrase_is_cut_and_templates_are_averaged(make, pictures):
    images = pictures(1, 64, 64)
    assert len(make().detect(images, ["red " * 40])[0].scores) == 64
    assert not np.allclose(
        make(templates=["{}", "a photo of a {}"]).detect(images, PHRASES)[0].scores,
        make().detect(images, PHRASES)[0].scores,
    )
    assert make().detect([], PHRASES) == [] and len(make().detect(images, [])[0].scores) == 0


def test_fingerprint_follows_everything_that_changes_answers(make):
    different = [
        make(**options).fingerprint
        for options in (
            {},
            {"floor": 0.1},
            {"iou": 0.4},
            {"places": 7},
            {"remember": True},
            {"max_per_image": 5},
            {"templates": ["a {}"]},
            {"calibration": [[0.1, 0.3]]},
            {"precision": "bf16"},
            {"name": "some/model"},
        )
    ]
    assert len(set(different)) == len(different)
    assert make(batch=2).fingerprint == different[0]


def test_another_model_is_said_plainly(make, tmp_path, pictures):
    with pytest.raises(UserError, match="no model folder /nowhere"):
        make(name="/nowhere/owl")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"type 'bert', not 'owlv2'"):
        make(name=str(tmp_path)).detect(pictures(1, 64, 64), PHRASES)
    Path(tmp_path / "config.json").unlink()
