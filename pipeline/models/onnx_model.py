"""A classifier under test: an ONNX file, run by ONNX Runtime."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.images import RGB
from pipeline.models import fingerprints
from pipeline.models.batching import Batch, Batches
from pipeline.models.labels import Labels, Mapped, match, named
from pipeline.models.protocols import Floats

Three = Annotated[list[float], Field(min_length=3, max_length=3)]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
READ = ("image_size", "mean", "std", "layout", "crop", "crop_share", "interpolation", "output", "labels")
"""Options that may stand in the file's metadata instead, as JSON under these names."""


def onnx_classifier(
    classes: tuple[str, ...],
    device: str,
    *,
    path: str,
    image_size: Annotated[int, Field(ge=1)] | list[int] | None = None,
    mean: Three | None = None,
    std: Three | None = None,
    layout: Literal["NCHW", "NHWC"] | None = None,
    crop: Literal["center", "squash", "border"] | None = None,
    crop_share: Annotated[float, Field(gt=0, le=1)] | None = None,
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] | None = None,
    output: Literal["logits", "probabilities"] | None = None,
    labels: list[str] = [],  # noqa: B006
    mapping: dict[str, Mapped] = {},  # noqa: B006
    batch: Batch = "auto",
) -> OnnxClassifier:
    """An ONNX file, run by ONNX Runtime: a network with one image input and an output of (n, outputs).

    What isn't said here is read from the file's metadata, where it stands as JSON under the option's name; the size
    and the layout also from the shape of the input. Only mean, std and the labels have no default after that.

    Args:
        classes: the audit's, each to be found among the labels.
        device: auto, cpu, cuda, cuda:1, mps (CoreML).
        path: the .onnx file; data that it keeps in files beside it are found there.
        image_size: pixels, one number or [height, width].
        mean: of the three channels, on a scale of 0 to 1.
        std: the same.
        layout: of the input: NCHW (channels first) or NHWC.
        crop: center (the shorter side is brought to size / crop_share, then the middle is cut out), squash (nothing is
            cut off) or border (padded); center unless said.
        crop_share: share of the shorter side that is kept; 0.875 unless said.
        interpolation: bilinear unless said.
        output: logits, or probabilities (whose logarithm is taken); logits unless said.
        labels: names of the outputs in order.
        mapping: for a class of another name, or of several of the labels: `{dog: [beagle, pug]}`.
        batch: most images in one forward, or auto: as many as fit. A file of a fixed batch keeps it.

    Raises:
        UserError: onnxruntime isn't installed, or there is no such file.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError("model: the back end 'onnx' needs the package: pip install onnxruntime")
    if not Path(path).is_file():
        raise UserError(f"model: there is no file {path}. Give the path of an .onnx file.")
    options = {
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "layout": layout,
        "crop": crop,
        "crop_share": crop_share,
        "interpolation": interpolation,
        "output": output,
        "labels": labels or None,
    }
    said = {name: value for name, value in options.items() if value is not None}
    return OnnxClassifier(tuple(classes), Path(path), said, mapping, device, Batches(batch))


class OnnxClassifier:
    """See :func:`onnx_classifier`."""

    def __init__(
        self,
        classes: tuple[str, ...],
        path: Path,
        said: Mapping[str, Any],
        mapping: Mapping[str, Mapped],
        device: str,
        batches: Batches,
    ) -> None:
        self._classes, self._path, self._said, self._mapping = classes, path, said, mapping
        self._device, self._batches = device, batches

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, the options and the labels."""
        options = {"weights": _content(self._path), "classes": self._classes, "said": self._said}
        return fingerprints.of_options("onnx_classifier/1", {**options, "mapping": self._mapping})

    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes), by the outputs that count for each class: see :class:`pipeline.models.labels.Labels`."""

        def forward(rows: slice) -> Floats:
            raw = self._run(np.stack([self._pixels(image) for image in images[rows]]))
            if self._settings.get("output") == "probabilities":
                raw = np.log(np.clip(raw, 1e-12, None))
            return self._labels(raw.shape[1]).logits(raw)

        parts = self._batches.run(len(images), forward)
        return np.concatenate(parts) if parts else np.zeros((0, len(self._classes)), np.float32)

    def _run(self, pixels: Floats) -> Floats:
        """(n, outputs) for (n, 3, height, width); a file of a fixed batch gets as many, the last repeated."""
        network = self._session.get_inputs()[0]
        inputs = pixels if self._layout == "NCHW" else pixels.transpose(0, 2, 3, 1)
        inputs = inputs.astype(np.float16 if network.type == "tensor(float16)" else np.float32)
        fixed = network.shape[0] if isinstance(network.shape[0], int) else len(inputs)
        parts = []
        for start in range(0, len(inputs), fixed):
            some = inputs[start : start + fixed]
            filled = np.concatenate([some, np.repeat(some[-1:], fixed - len(some), axis=0)])
            (answer, *_) = self._session.run(None, {network.name: np.ascontiguousarray(filled)})
            if answer.ndim != 2:
                raise UserError(f"model: {self._path} answers {answer.shape}, not one row of numbers an image.")
            parts.append(answer[: len(some)].astype(np.float32))
        return np.concatenate(parts)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        there = onnxruntime.get_available_providers()
        kind, _, number = self._device.partition(":")
        if kind == "auto":
            kind = "cuda" if PROVIDERS["cuda"] in there else "cpu"
        if kind not in PROVIDERS or PROVIDERS[kind] not in there:
            raise UserError(
                f"device: this build of ONNX Runtime has no '{self._device}' (it has {', '.join(there)}). Use auto or "
                "cpu, or install onnxruntime-gpu."
            )
        provider: Any = (PROVIDERS[kind], {"device_id": number}) if number else PROVIDERS[kind]
        try:
            session = onnxruntime.InferenceSession(self._path, providers=[provider])
        except Exception as error:  # ONNX Runtime raises many types on a bad file
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"model: {self._path} can't be opened by ONNX Runtime: {reason}") from error
        if len(session.get_inputs()) != 1 or len(session.get_inputs()[0].shape) != 4:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in session.get_inputs())
            raise UserError(f"model: {self._path} must have one input of images with four dimensions; it has {shapes}.")
        return session

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """The options, completed from the file's metadata."""
        found = {}
        for name, text in self._session.get_modelmeta().custom_metadata_map.items():
            if name in READ:
                try:
                    found[name] = json.loads(text)
                except ValueError:
                    found[name] = text  # a word without quotes
        settings = {**found, **self._said}
        for name in ("mean", "std"):
            if name not in settings:
                raise UserError(
                    f"model: neither the option '{name}' nor the metadata of {self._path} says what its images are "
                    "normalised by. Give mean and std as in its training, such as mean: [0.485, 0.456, 0.406]."
                )
        return settings

    @cached_property
    def _layout(self) -> str:
        shape = self._session.get_inputs()[0].shape
        return self._settings.get("layout") or ("NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW")

    @cached_property
    def _pixels(self) -> Any:
        """An image to (3, height, width), by timm's evaluation transform."""
        from PIL import Image
        from timm.data import create_transform

        settings, shape = self._settings, self._session.get_inputs()[0].shape
        fixed = shape[2:4] if self._layout == "NCHW" else shape[1:3]
        size = settings.get("image_size") or fixed
        height, width = [size, size] if isinstance(size, int) else size
        if not (isinstance(height, int) and isinstance(width, int)):
            raise UserError(f"model: {self._path} takes images of any size. Give that of its training: image_size: 224")
        for wanted, has in zip((height, width), fixed, strict=True):
            if isinstance(has, int) and has != wanted:
                raise UserError(f"model: {self._path} takes images of {fixed} pixels; image_size says {size}.")
        transform: Any = create_transform(
            (3, height, width),
            is_training=False,
            interpolation=settings.get("interpolation", "bilinear"),
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
            crop_pct=settings.get("crop_share"),
            crop_mode=settings.get("crop"),
        )
        return lambda image: transform(Image.fromarray(image)).numpy()

    def _labels(self, outputs: int) -> Labels:
        return match(self._classes, named(self._settings.get("labels") or [], None, outputs), self._mapping)


def _content(path: Path) -> list[str]:
    """The content of an .onnx file and of the files beside it whose names stand in it: large weights lie there."""
    text = path.read_bytes()
    beside = [file for file in sorted(path.parent.iterdir()) if file.is_file() and file.name.encode() in text]
    return [fingerprints.of_path(file) for file in (path, *beside)]
