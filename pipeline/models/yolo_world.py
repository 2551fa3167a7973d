"""YOLO-World, an open-set detector, through ultralytics and without the package `clip`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipeline.errors import UserError
from pipeline.geometry import Boxes
from pipeline.images import RGB
from pipeline.models import calibration as scales
from pipeline.models import devices, fingerprints, ultralytics_loading
from pipeline.models.batching import Batch, Batches
from pipeline.models.detections import Choice, Most, nothing, remembered, select
from pipeline.models.open_clip_loading import ClipSource, LoadedClip, check_templates
from pipeline.models.protocols import Detections, Floats

if TYPE_CHECKING:
    from torch import Tensor

TEMPLATES = ("a photo of a {}",)
START = 32  # images in the first forward


def yolo_world(
    device: str,
    *,
    name: str,
    text_model: str,
    text_pretrained: str | None = None,
    templates: Sequence[str] = TEMPLATES,
    floor: scales.Share = 0.02,
    image_size: Annotated[int, Field(ge=0)] = 0,
    iou: scales.Share = 0.6,
    max_per_image: Most = 100,
    batch: Batch = "auto",
    trust_pickle: bool = False,
    calibration: scales.Points = (),
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
        calibration: [raw, calibrated] points of the scores' common scale (see pipeline/models/calibration.py);
            none: scores as they are.

    Raises:
        UserError: ultralytics isn't installed, there is no such checkpoint, or the text model isn't there.
    """
    path = ultralytics_loading.check_checkpoint("yolo_world", "YOLO-World", name, "yolov8s-worldv2.pt")
    check_templates(templates, "detect")
    texts = ClipSource(text_model, text_pretrained, trust_pickle=trust_pickle)
    return YoloWorld(
        path,
        texts,
        tuple(templates),
        device,
        Choice(floor, iou, max_per_image, scales.check(calibration)),
        image_size,
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
        choice: Choice,
        image_size: int,
        batches: Batches,
        trust_pickle: bool,
    ) -> None:
        self._path, self._texts, self._templates, self._device = path, texts, templates, device
        self._choice, self._image_size, self._batches, self._trust = choice, image_size, batches, trust_pickle
        self._vectors: dict[str, Floats] = {}
        self._one_at_a_time = threading.Lock()  # the network holds the phrases that it is asked for
        options = {
            "weights": fingerprints.of_path(path),
            "texts": texts.fingerprint,
            "templates": templates,
            "image_size": image_size,
            **choice.options,
        }
        self.fingerprint = fingerprints.of_options("yolo_world/1", options)

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, best score first: boxes normalised, scores from `floor` to 1."""
        if not phrases or not images:
            return [nothing() for _ in images]
        with self._one_at_a_time:
            return self._detect(images, phrases)

    def _detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        from torchvision.ops import box_convert

        model, size = self._loaded
        self._ask(model, remembered(self._vectors, phrases, lambda new: self._clip.prompts(new, self._templates)))

        def choose(rows: Tensor, normalise: Callable[[Tensor], Boxes]) -> Detections:
            boxes = box_convert(rows[:4].T, "cxcywh", "xyxy")
            return select(boxes, rows[4:].T, self._choice, normalise)

        stride = int(model.stride.max())
        return ultralytics_loading.detect(images, size, stride, self._batches, self._on, model, choose)

    @functools.cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @functools.cached_property
    def _clip(self) -> LoadedClip:
        return self._texts.load(self._device)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, int]:
        """The network, ready, and the length of the longer side of its input."""
        model, size = ultralytics_loading.open_network(self._path, self._trust, self._image_size)
        from ultralytics.nn.tasks import WorldModel

        if not isinstance(model, WorldModel):
            raise UserError(f"detect: {self._path} holds a {type(model).__name__}, not a YOLO-World network.")
        return ultralytics_loading.made_ready(model, size, self._on)

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
