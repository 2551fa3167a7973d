"""YOLO-World, an open-set detector, through ultralytics and without the package `clip`.

Ultralytics is licensed under the AGPL-3.0. This is the only module that imports it, and only when it is used.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.geometry import from_pixels
from pipeline.images import RGB
from pipeline.models import devices, fingerprints
from pipeline.models.batching import Batch, Batches
from pipeline.models.open_clip_loading import ClipSource, LoadedClip, check_templates
from pipeline.models.protocols import Detections, Floats

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0, le=1)]
TEMPLATES = ("a photo of a {}",)
START = 32  # images in the first forward
CANDIDATES = 30_000  # most (place, phrase) pairs of an image that enter suppression; ultralytics' number


def yolo_world(
    device: str,
    *,
    name: str,
    text_model: str,
    text_pretrained: str | None = None,
    templates: Sequence[str] = TEMPLATES,
    floor: Share = 0.02,
    image_size: Annotated[int, Field(ge=0)] = 0,
    iou: Share = 0.6,
    max_per_image: Annotated[int, Field(ge=1)] = 100,
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> YoloWorld:
    """YOLO-World (Cheng et al. 2024), driven by text embeddings of an open_clip model.

    The checkpoint must have been trained with the text embeddings of `text_model`: for the published ones
    that is ViT-B-32 with `openai`. Phrases don't compete: a place can be found as several things, and boxes
    suppress each other within a phrase only. Yet a phrase's scores depend on which other phrases are asked in
    the same call, since the network's neck is guided, at each place, by the most similar of them all (section
    3.3: max-sigmoid attention). Compare scores only within one list of phrases, and key caches by the whole
    list.

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        name: path of the checkpoint, a .pt file.
        text_model: "local-dir:FOLDER", "hf-hub:ORG/REPO" or a model name that open_clip knows.
        text_pretrained: for a plain name: a tag that open_clip knows, or the path of a checkpoint.
        templates: prompts, each with one `{}` for the phrase; their embeddings are averaged.
        floor: lowest score that is reported, in [0, 1].
        image_size: longer side in pixels to which images are brought; 0: that of the checkpoint's training.
        iou: overlap above which the weaker of two boxes of one phrase is dropped.
        max_per_image: most boxes of an image; the best box of each phrase is always kept.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: a .pt file is a pickle and can run code when it is opened. Without consent only the
            classes of ultralytics' models are allowed in it, which is enough for its own checkpoints.

    Raises:
        UserError: ultralytics isn't installed, there is no such checkpoint, or the text model isn't there.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise UserError(
            "detect: the back end 'yolo_world' needs the package ultralytics, which is licensed under the "
            "AGPL-3.0 (read what that asks of you): pip install ultralytics"
        )
    if not Path(name).is_file():
        raise UserError(
            f"detect: there is no YOLO-World checkpoint {name}. Give the path of a .pt file; "
            "yolov8s-worldv2.pt and larger ones are among the releases of ultralytics/assets on GitHub."
        )
    check_templates(templates, "detect")
    texts = ClipSource(text_model, text_pretrained, trust_pickle=trust_pickle)
    return YoloWorld(
        Path(name),
        texts,
        tuple(templates),
        device,
        floor,
        image_size,
        iou,
        max_per_image,
        Batches(batch, START),
        trust_pickle,
    )


class YoloWorld:
    """See :func:`yolo_world`."""

    def __init__(
        self,
        path: Path,
        texts: ClipSource,
        templates: tuple[str, ...],
        device: str,
        floor: float,
        image_size: int,
        iou: float,
        max_per_image: int,
        batches: Batches,
        trust_pickle: bool,
    ) -> None:
        self._path, self._texts, self._templates, self._device = path, texts, templates, device
        self._floor, self._image_size, self._iou, self._most = floor, image_size, iou, max_per_image
        self._batches, self._trust = batches, trust_pickle
        self._one_at_a_time = threading.Lock()  # the network holds the phrases that it is asked for
        options = {
            "weights": fingerprints.of_path(path),
            "texts": texts.fingerprint,
            "templates": templates,
            "floor": repr(float(floor)),
            "image_size": image_size,
            "iou": repr(float(iou)),
            "max_per_image": max_per_image,
        }
        self.fingerprint = fingerprints.of_options("yolo_world/1", options)

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, best score first: boxes normalised, scores from `floor` to 1."""
        if not phrases or not images:
            return [_nothing() for _ in images]
        with self._one_at_a_time:
            return self._detect(images, phrases)

    def _detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        import torch

        model, size = self._loaded
        self._ask(model, self._clip.prompts(phrases, self._templates))
        inputs = [_letterbox(image, size, int(model.stride.max())) for image in images]
        found: list[Detections | None] = [None] * len(images)
        # images of one padded shape share a forward, so that an answer doesn't depend on its neighbours
        shapes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, row in enumerate(inputs):
            shapes[row.shape].append(index)
        for indices in shapes.values():

            def forward(rows: slice, indices: list[int] = indices) -> None:
                some = indices[rows]
                stacked = torch.from_numpy(np.stack([inputs[index] for index in some])).to(self._on)
                output = model(stacked.permute(0, 3, 1, 2).contiguous().float() / 255)
                output = output[0] if isinstance(output, tuple) else output
                for index, rows_of_image in zip(some, output.float().cpu(), strict=True):
                    found[index] = self._select(rows_of_image, inputs[index].shape[:2], images[index].shape[:2])

            with torch.inference_mode():
                self._batches.run(len(indices), forward, self._on)
        return [detections for detections in found if detections is not None]

    @functools.cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @functools.cached_property
    def _clip(self) -> LoadedClip:
        return self._texts.load(self._device)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, int]:
        """The network, ready, and the length of the longer side of its input."""
        _quiet_ultralytics()
        from ultralytics.nn import tasks

        try:
            checkpoint, _ = tasks.torch_safe_load(str(self._path), safe_only=not self._trust)
            model = checkpoint.get("ema") or checkpoint["model"]
        except Exception as error:  # pickle, zip and torch raise many types on a bad checkpoint
            reason = " ".join(str(error).split())[:300]
            hint = "" if self._trust else " If you made this file or trust who did, set trust_pickle: true."
            raise UserError(f"detect: {self._path} can't be opened: {reason}{hint}") from error
        if not isinstance(model, tasks.WorldModel):
            raise UserError(f"detect: {self._path} holds a {type(model).__name__}, not a YOLO-World network.")
        settings = checkpoint.get("train_args") or {}
        size = self._image_size or int(settings.get("imgsz", 640))
        model = model.float().fuse(verbose=False).eval().to(self._on)
        stride = int(model.stride.max())
        size = -(-size // stride) * stride
        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = True
        return model, size

    def _ask(self, model: Any, embeddings: Floats) -> None:
        """What `set_classes` does, without the package `clip`, which it would install from the network."""
        import torch

        head = model.model[-1]
        width = head.cv3[0][-1].out_channels
        if embeddings.shape[1] != width:
            raise UserError(
                f"detect: the text model gives {embeddings.shape[1]} numbers a phrase, but {self._path} was "
                f"trained with {width}. Set text_model to the model it was trained with."
            )
        model.txt_feats = torch.from_numpy(embeddings)[None].to(self._on)
        head.nc = len(embeddings)

    def _select(self, output: Tensor, padded: tuple[int, int], original: tuple[int, int]) -> Detections:
        """The boxes that count, from the network's (4 + phrases, places): centre, size, and scores."""
        import torch
        from torchvision.ops import batched_nms, box_convert
        from ultralytics.utils import ops

        scores = output[4:].T
        places, phrases = torch.nonzero(scores >= self._floor, as_tuple=True)
        values = scores[places, phrases]
        if len(values) > CANDIDATES:
            values, best = values.topk(CANDIDATES)
            places, phrases = places[best], phrases[best]
        boxes = box_convert(output[:4].T[places], "cxcywh", "xyxy")
        kept = batched_nms(boxes, values, phrases, self._iou)
        # the best box of each phrase comes first, so that no phrase is crowded out of an image
        seen: set[int] = set()
        leaders: list[int] = []
        others: list[int] = []
        for index in kept.tolist():
            phrase = int(phrases[index])
            (others if phrase in seen else leaders).append(index)
            seen.add(phrase)
        chosen = leaders + others[: max(self._most - len(leaders), 0)]
        order = sorted(chosen, key=lambda index: (-float(values[index]), int(phrases[index]), index))
        pixels = np.asarray(ops.scale_boxes(padded, boxes[order].clone(), original))
        height, width = original
        return Detections(
            from_pixels(pixels, width, height), values[order].numpy(), phrases[order].numpy().astype(np.int64)
        )


def _nothing() -> Detections:
    return Detections(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int64))


def _letterbox(image: RGB, size: int, stride: int) -> RGB:
    from ultralytics.data.augment import LetterBox

    return np.asarray(LetterBox((size, size), auto=True, stride=stride)(image=image))


@functools.cache
def _quiet_ultralytics() -> None:
    """Ultralytics' first import: no reports home, no packages installed at run time, no network probe."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    if "YOLO_CONFIG_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "cuescope" / "ultralytics"
        cache.mkdir(parents=True, exist_ok=True)
        os.environ["YOLO_CONFIG_DIR"] = str(cache)
    with np.printoptions():  # it changes how every array prints
        from ultralytics import settings
    if settings.get("sync"):
        settings.update(sync=False)
    logger.info("YOLO-World runs through ultralytics, which is licensed under the AGPL-3.0.")
