"""ONNX files: the same answers as the network they were made from, by options or metadata."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.onnx_model import onnx_classifier

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

CLASSES = ("boat", "dog")
LABELS = ["dog", "cat", "boat"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
SAID = {"mean": MEAN, "std": STD, "labels": LABELS}


def network(layout: str = "NCHW", probabilities: bool = False):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
            )

        def forward(self, x):
            answer = 10 * self.body(x.permute(0, 3, 1, 2) if layout == "NHWC" else x)
            return answer.softmax(1) if probabilities else answer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def export(file: Path, layout: str = "NCHW", fixed: bool = False, probabilities: bool = False, **how) -> str:
    import torch

    shape = (2, 3, 40, 40) if layout == "NCHW" else (2, 40, 40, 3)
    batch = None if fixed else {"x": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        network(layout, probabilities), (torch.zeros(shape),), file, dynamic_shapes=batch, verbose=False, **how
    )
    return str(file)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> str:
    return export(tmp_path_factory.mktemp("onnx") / "model.onnx")


def by_torch(images) -> np.ndarray:
    """The network's own answers, by torchvision's transforms."""
    import torch
    from PIL import Image
    from torchvision import transforms as t

    transform = t.Compose([t.Resize(45), t.CenterCrop(40), t.ToTensor(), t.Normalize(MEAN, STD)])  # 40 / 0.875
    with torch.no_grad():
        return network()(torch.stack([transform(Image.fromarray(image)) for image in images])).numpy()


def test_answers_are_those_of_the_torch_model(plain, pictures) -> None:
    images = [*pictures(2, 40, 40), *pictures(3, 60, 90)]
    found = onnx_classifier(CLASSES, "cpu", path=plain, **SAID, batch=2).logits(images)
    np.testing.assert_allclose(found, by_torch(images)[:, [2, 0]], atol=1e-4)
    assert np.ptp(found, axis=0).min() > 1e-2
    assert onnx_classifier(CLASSES, "cpu", path=plain, **SAID).logits([]).shape == (0, 2)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_fixed_batch_and_the_layout_are_read_from_the_file(pictures, tmp_path, layout) -> None:
    file = export(tmp_path / "model.onnx", layout, fixed=True)
    images = pictures(5, 60, 90)
    found = onnx_classifier(CLASSES, "cpu", path=file, **SAID).logits(images)
    np.testing.assert_allclose(found, by_torch(images)[:, [2, 0]], atol=1e-4)


def test_metadata_says_what_no_option_says(plain, pictures, tmp_path) -> None:
    model = onnx.load(plain)
    metadata = {"mean": MEAN, "std": STD, "labels": LABELS, "crop": "squash", "author": "nobody"}
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    file = str(tmp_path / "model.onnx")
    onnx.save(model, file)
    images = pictures(2, 60, 90)
    said = onnx_classifier(CLASSES, "cpu", path=plain, **SAID, crop="squash").logits(images)
    np.testing.assert_array_equal(onnx_classifier(CLASSES, "cpu", path=file).logits(images), said)
    other = onnx_classifier(CLASSES, "cpu", path=file, crop="center").logits(images)
    np.testing.assert_allclose(other, by_torch(images)[:, [2, 0]], atol=1e-4)


def test_probabilities_give_the_same_shares(plain, pictures, tmp_path) -> None:
    file = export(tmp_path / "model.onnx", probabilities=True)
    images = pictures(3, 60, 90)
    classes = ("boat", "cat", "dog")
    found = onnx_classifier(classes, "cpu", path=file, **SAID, output="probabilities").logits(images)
    logits = onnx_classifier(classes, "cpu", path=plain, **SAID).logits(images)
    shares = [np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True) for rows in (found, logits)]
    np.testing.assert_allclose(*shares, atol=1e-5)


def test_the_fingerprint_follows_weights_that_lie_beside_the_file(plain, tmp_path) -> None:
    def of(path=plain, **options):
        return onnx_classifier(CLASSES, "cpu", path=path, **{**SAID, **options}).fingerprint

    assert of() == of(batch=1)
    assert len({of(), of(crop="squash"), of(mean=[0.0, 0.0, 0.0]), of(mapping={"dog": "cat"})}) == 4
    model = onnx.load(plain)
    folder = tmp_path / "first"
    folder.mkdir()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "note.txt").write_text("nothing that the model names")
    assert of(str(copy / "m.onnx")) == of(str(folder / "m.onnx"))
    data = bytearray((copy / "weights.bin").read_bytes())
    data[0] ^= 1
    (copy / "weights.bin").write_bytes(data)
    assert of(str(copy / "m.onnx")) != of(str(folder / "m.onnx"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": LABELS}, ["'mean'", "mean: [0.485"]),
        ({**SAID, "labels": LABELS[:2]}, ["3 outputs", "'labels' lists 2"]),
        ({"mean": MEAN, "std": STD}, ["doesn't name its 3 outputs"]),
        ({**SAID, "image_size": 224}, ["[40, 40]", "224"]),
        ({**SAID, "labels": ["dog", "cat", "boot"]}, ["'boat'", "Did you mean 'boot'"]),
    ],
)
def test_mistakes_are_said_plainly(plain, options, words) -> None:
    with pytest.raises(UserError) as caught:
        onnx_classifier(CLASSES, "cpu", path=plain, **options).logits([np.zeros((8, 8, 3), np.uint8)])
    for word in words:
        assert word in str(caught.value)


def test_what_is_no_onnx_file_or_no_device_is_said_plainly(plain, tmp_path) -> None:
    image = [np.zeros((8, 8, 3), np.uint8)]
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="can't be opened by ONNX Runtime"):
        onnx_classifier(CLASSES, "cpu", path=str(tmp_path / "model.onnx"), **SAID).logits(image)
    with pytest.raises(UserError, match="no file /nowhere"):
        onnx_classifier(CLASSES, "cpu", path="/nowhere.onnx")
    with pytest.raises(UserError, match="no 'cuda:0'"):
        onnx_classifier(CLASSES, "cuda:0", path=plain, **SAID).logits(image)
