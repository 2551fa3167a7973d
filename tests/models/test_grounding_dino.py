"""Grounding DINO: a few phrases in a caption, each phrase's score from its own tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.grounding_dino import GroundingDino, grounding_dino

PHRASES = ["dog", "snow field", "blue cat", "sky", "sea gull"]
WORDS = ["dog", "snow", "field", "blue", "cat", "sky", "sea", "gul", "##l"]
MARKS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}  # as BERT has them


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """An untrained network with a text tower of BERT's kind and an image tower of Swin's."""
    import torch
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    vocabulary = {f"[unused{number}]": number for number in range(1040) if number not in MARKS.values()}
    for mark, number in MARKS.items():
        vocabulary[mark] = number
    for number, word in enumerate(WORDS):
        del vocabulary[f"[unused{200 + number}]"]
        vocabulary[word] = 200 + number
    words = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=64)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[2, 2, 2, 2],
            window_size=4,
            out_indices=[2, 3, 4],
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=1040,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            pad_token_id=0,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
        max_text_len=16,
        num_feature_levels=3,  # a fourth would be one number a channel, which torch won't normalise
        disable_custom_kernels=True,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = GroundingDinoForObjectDetection(config)
        network.model.text_projection.weight.mul_(4)
        network.model.text_projection.bias.add_(torch.randn(32) * 0.05)
    path = tmp_path_factory.mktemp("grounding_dino")
    network.save_pretrained(path)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    GroundingDinoProcessor(images, words).save_pretrained(path)
    return str(path)


@pytest.fixture
def make(folder):
    def of(**options: Any) -> GroundingDino:
        given = {"name": folder, "floor": 0.0, "iou": 1.0, "max_per_image": 10_000, **options}
        return grounding_dino("cpu", **given)

    return of


def full_forward(folder: str, image: np.ndarray, caption: str) -> tuple[Any, Any]:
    import torch
    from PIL import Image
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    inputs = processor(images=Image.fromarray(image), text=caption, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    return processor, outputs


@pytest.mark.parametrize("shape", [(64, 64), (64, 110)])
def test_a_phrase_of_one_token_alone_is_as_the_library_says(make, folder, pictures, shape):
    (image,) = pictures(1, *shape)
    processor, outputs = full_forward(folder, image, "dog.")
    # of the library's own post-processing: its score is the best token's, here that of the word or of a mark
    (result,) = processor.post_process_grounded_object_detection(outputs, threshold=0.0, target_sizes=[shape])
    words = outputs.logits[0, :, 1].sigmoid().numpy()
    (found,) = make().detect([image], ["dog"])
    assert len(found.scores) == len(words) == 20 and words.std() > 1e-4
    np.testing.assert_allclose(found.scores, np.sort(words)[::-1], atol=1e-4)
    order = np.argsort(-words, kind="stable")
    scale = np.array([shape[1], shape[0]] * 2)
    boxes = np.clip(result["boxes"].numpy(), 0, scale)[order]
    np.testing.assert_allclose(found.boxes * scale, boxes, atol=0.05)


def test_a_phrase_is_the_mean_of_its_own_tokens(make, folder, pictures):
    (image,) = pictures(1, 64, 64)
    _, outputs = full_forward(folder, image, "dog. snow field. sea gull.")
    tokens = outputs.logits[0].sigmoid().numpy()
    # [CLS] dog . snow field . sea gul ##l . [SEP]
    spans = [[1], [3, 4], [6, 7, 8]]
    (found,) = make().detect([image], ["dog", "Snow  field.", "sea gull?"])
    for number, span in enumerate(spans):
        expected = np.sort(tokens[:, span].mean(axis=1))[::-1]
        np.testing.assert_allclose(found.scores[found.phrases == number], expected, atol=1e-4)


def test_captions_hold_so_many_phrases_as_are_wanted_and_as_fit(make):
    detector = make(together=2)
    assert [(caption, asked) for caption, asked, _ in detector._captions(PHRASES)] == [
        ("dog. snow field.", [0, 1]),
        ("blue cat. sky.", [2, 3]),
        ("sea gull.", [4]),
    ]
    # 16 tokens: [CLS], [SEP] and 14 of words and full stops
    long = list(make(together=8)._captions(["snow field", "sea gull", "blue cat", "blue sky", "dog"]))
    assert [asked for _, asked, _ in long] == [[0, 1], [2, 3, 4]]
    for _, asked, shares in long:
        assert shares.shape[0] == len(asked)
        np.testing.assert_allclose(shares.sum(1).numpy(), 1.0, atol=1e-6)


def test_a_phrase_that_is_too_long_or_empty_harms_no_other(make, pictures):
    images = pictures(1, 64, 64)
    (alone,) = make(together=1).detect(images, ["dog"])
    (found,) = make(together=1).detect(images, ["...", "dog", "", "snow " * 30])
    assert set(found.phrases.tolist()) <= {0, 1, 2, 3}
    np.testing.assert_allclose(found.scores[found.phrases == 1][:20], alone.scores, atol=1e-5)
    assert found.scores[(found.phrases == 0) | (found.phrases == 2)].max() == 0.0


def test_alone_in_a_caption_nothing_competes_and_together_it_does(make, pictures):
    images = pictures(2, 64, 64)

    def best(together: int, phrases: list[str]) -> float:
        found = make(together=together, floor=1e-6).detect(images, phrases)[0]
        return float(found.scores[found.phrases == phrases.index("dog")].max())

    assert best(1, ["dog"]) == pytest.approx(best(1, ["blue cat", "dog", "snow field"]), abs=1e-6)
    assert best(8, ["dog"]) != pytest.approx(best(8, ["blue cat", "dog", "snow field"]), abs=1e-7)


def test_answers_depend_neither_on_the_batch_nor_on_the_neighbours(make, pictures):
    images = [*pictures(2, 64, 64), *pictures(1, 64, 100), *pictures(1, 64, 64, seed=4)]
    whole = make(floor=1e-6).detect(images, PHRASES)
    small = make(floor=1e-6, batch=1).detect(images, PHRASES)
    for one, two in zip(whole, small, strict=True):
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)
        assert one.boxes.min() >= 0 and one.boxes.max() <= 1 and (np.diff(one.scores) <= 0).all()
    assert make().detect([], PHRASES) == [] and len(make().detect(images[:1], [])[0].scores) == 0


def test_fingerprint_follows_everything_that_changes_answers(make):
    options = [{}, {"floor": 0.1}, {"iou": 0.4}, {"together": 3}, {"calibration": [[0.2, 0.3]]}, {"name": "some/model"}]
    different = [make(**given).fingerprint for given in options]
    assert len(set(different)) == len(different) and make(batch=1).fingerprint == different[0]


def test_another_model_is_said_plainly(make, tmp_path, pictures):
    (tmp_path / "config.json").write_text('{"model_type": "owlv2"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"type 'owlv2', not one of grounding-dino"):
        make(name=str(tmp_path)).detect(pictures(1, 64, 64), PHRASES)
