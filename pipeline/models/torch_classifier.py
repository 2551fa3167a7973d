"""What the classifiers of transformers, timm and torchvision have in common: a network, its pixels, its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.images import RGB
from pipeline.models import devices, fingerprints
from pipeline.models.batching import Batches
from pipeline.models.devices import Precision
from pipeline.models.labels import Labels
from pipeline.models.protocols import Floats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loaded:
    """A network ready to run: `network` from input to (n, outputs), `pixels` from images to input."""

    network: Callable[[Tensor], Tensor]
    pixels: Callable[[Sequence[RGB]], Tensor]
    labels: Labels


class TorchClassifier:
    """A classifier whose `load(device, precision)` is called at the first answer, `options()` at the fingerprint."""

    def __init__(
        self,
        kind: str,
        options: Callable[[], Mapping[str, Any]],
        load: Callable[[str, Precision], Loaded],
        classes: int,
        device: str,
        precision: Precision,
        batches: Batches,
    ) -> None:
        self._kind, self._options, self._load, self._classes = kind, options, load, classes
        self._device, self._wanted, self._batches = device, precision, batches

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, the labels and the precision."""
        return fingerprints.of_options(self._kind, {**self._options(), "precision": self._precision})

    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes), by the outputs that count for each class: see :class:`pipeline.models.labels.Labels`."""
        import torch

        loaded = self._loaded

        def prepare(rows: slice) -> Tensor:
            return devices.pinned(loaded.pixels(images[rows]), self._on)

        def forward(pixels: Tensor) -> Floats:
            pixels = pixels.to(self._on, devices.dtype(self._precision), True, memory_format=torch.channels_last)
            with torch.inference_mode():
                return loaded.labels.logits(loaded.network(pixels).float().cpu().numpy())

        parts = self._batches.run(len(images), forward, self._on, prepare)
        return np.concatenate(parts) if parts else np.zeros((0, self._classes), np.float32)

    @cached_property
    def _precision(self) -> Precision:
        return devices.precision(self._wanted, self._device)

    @cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @cached_property
    def _loaded(self) -> Loaded:
        return self._load(self._on, self._precision)
