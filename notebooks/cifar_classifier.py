"""A small photograph classifier of one's own, and the two factories by which an audit uses it.

`classifier` is the model under test and `encoder` describes regions by the same network's middle layers, so the audit
needs no other model. The configuration names them as `factory: cifar_classifier:classifier` (kind `python`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import roi_align

SIZE = 32
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
STAGE = 2
"""The residual stage that describes regions: an 8 x 8 map whose cells still look at a small part of the picture."""
BATCH = 256
SHIFT = 3

RGB = NDArray[np.uint8]
Floats = NDArray[np.float32]


def network(classes: int) -> nn.Module:
    """timm's smallest ResNet (0.37 million weights), less the pooling that would leave little of 32 pixels."""
    model = timm.create_model("test_resnet", num_classes=classes)
    model.maxpool = nn.Identity()
    return model


def train(
    pictures: Sequence[RGB],
    labels: Sequence[int],
    classes: Sequence[str],
    checkpoint: Path,
    epochs: int = 6,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> None:
    """Train on pictures (32, 32, 3), shifted and mirrored at random; save the weights with the classes' names."""
    torch.manual_seed(seed)
    x, y = pixels(pictures), torch.tensor(np.array(labels))
    model = network(len(classes)).train()
    steps = epochs * (len(x) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x))[: len(x) // 128 * 128].split(128):
            batch = x[rows]
            batch = nn.functional.pad(batch, (SHIFT,) * 4)[..., *windows(SHIFT)]
            mirrored = torch.rand(len(rows)) < 0.5
            batch[mirrored] = batch[mirrored].flip(-1)
            loss = nn.functional.cross_entropy(model(batch), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        tell(f"epoch {epoch + 1} of {epochs}: mean loss {total / len(x):.3f}")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"classes": list(classes), "weights": model.state_dict()}, checkpoint)


def windows(shift: int) -> tuple[slice, slice]:
    """Where to cut a padded batch so that it is shifted by up to `shift` pixels each way."""
    down, right = torch.randint(2 * shift + 1, (2,)).tolist()
    return slice(down, down + SIZE), slice(right, right + SIZE)


def pixels(pictures: Sequence[RGB]) -> Tensor:
    """Pictures of any size as the network's input (n, 3, 32, 32)."""
    sized = [
        p if p.shape[:2] == (SIZE, SIZE) else np.asarray(Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.BOX))
        for p in pictures
    ]
    x = torch.from_numpy(np.array(sized)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class Network:
    """The trained network; the weights are read at first use."""

    def __init__(self, checkpoint: str, role: str) -> None:
        self._path = Path(checkpoint)
        # the fingerprint says when stored answers still hold: the weights' content and whatever else changes them
        self.fingerprint = f"{role} {hashlib.blake2b(self._path.read_bytes(), digest_size=16).hexdigest()}"

    @cached_property
    def _saved(self) -> dict:
        return torch.load(self._path, map_location="cpu", weights_only=True)

    @cached_property
    def _model(self) -> nn.Module:
        model = network(len(self._saved["classes"]))
        model.load_state_dict(self._saved["weights"])
        return model.eval()


class CifarClassifier(Network):
    """The model under test."""

    def __init__(self, checkpoint: str, classes: Sequence[str]) -> None:
        super().__init__(checkpoint, "classifier")
        self._classes = tuple(classes)

    @torch.inference_mode()
    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes), in the order that the audit asks for."""
        columns = [self._saved["classes"].index(name) for name in self._classes]
        parts = [self._model(pixels(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
        return torch.cat(parts)[:, columns].numpy()


class CifarEncoder(Network):
    """Regions as the mean of the network's own features over a box; it knows no words."""

    has_text = False

    def __init__(self, checkpoint: str) -> None:
        super().__init__(checkpoint, f"regions of stage {STAGE}")

    def _maps(self, images: Sequence[RGB]) -> Tensor:
        return self._model.forward_intermediates(pixels(images), indices=[STAGE], intermediates_only=True)[0]

    @torch.inference_mode()
    def regions(self, images: Sequence[RGB], boxes: Sequence[NDArray[np.float64]]) -> list[Floats]:
        """For each image an array (boxes, d) of unit vectors."""
        result: list[Floats] = []
        for first in range(0, len(images), BATCH):
            maps = self._maps(images[first : first + BATCH])
            places = [torch.as_tensor(b, dtype=torch.float32) * maps.shape[-1] for b in boxes[first : first + BATCH]]
            vectors = roi_align(maps, places, output_size=2, sampling_ratio=2, aligned=True).mean(dim=(2, 3))
            unit = nn.functional.normalize(vectors, dim=1)
            result += [part.numpy() for part in unit.split([len(b) for b in places])]
        return result

    def images(self, images: Sequence[RGB]) -> Floats:
        """(n, d): the box of the whole picture."""
        whole = np.array([[0.0, 0.0, 1.0, 1.0]])
        return np.concatenate(self.regions(images, [whole] * len(images)))


def classifier(classes: Sequence[str], device: str, *, checkpoint: str) -> CifarClassifier:
    """The model under test, for the audit's classes. It is so small that it runs on the CPU whatever `device` is."""
    return CifarClassifier(checkpoint, classes)


def encoder(device: str, *, checkpoint: str) -> CifarEncoder:
    """The region encoder, from the same weights."""
    return CifarEncoder(checkpoint)
