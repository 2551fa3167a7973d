"""YOLOE, an open-set detector, through ultralytics and without the package `clip`."""

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

TEMPLATES = ("{}",)
"""Ultralytics gives YOLOE the bare name."""
START = 32  # images in the first forward


def yoloe(
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
) -> Yoloe:
    """YOLOE (Wang et al. 2025) with text prompts, driven by text embeddings of an open_clip model.

    Ultralytics embeds the words with MobileCLIP's text tower from a TorchScript file. The same towers are in
    open_clip: for yoloe-v8 and yoloe-11 checkpoints text_model MobileCLIP-B with `datacompdr_lt`, for yoloe-26
    MobileCLIP2-B with `dfndr2b`. The network's own text module (RepRTA) then refines them. Phrases neither compete nor
    guide the network: a phrase's scores are the same in every list.

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        name: path of the checkpoint, a .pt file; with masks (-seg) or without. Not one without prompts (-pf).
        text_model: "local-dir:FOLDER", "hf-hub:ORG/REPO" or a model name that open_clip knows.
        text_pretrained: for a plain name: a tag that open_clip knows, or the path of a checkpoint.
        templates: prompts, each with one `{}` for the phrase; their embeddings are averaged.
        floor: lowest raw score that is reported, in [0, 1].
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
    path = ultralytics_loading.check_checkpoint("yoloe", "YOLOE", name, "yoloe-11s-seg.pt")
    check_templates(templates, "detect")
    return Yoloe(
        path,
        ClipSource(text_model, text_pretrained, trust_pickle=trust_pickle),
        tuple(templates),
        device,
        Choice(floor, iou, max_per_image, scales.check(calibration)),
        image_size,
        Batches(batch, START),
        trust_pickle,
    )


class Yoloe:
    """See :func:`yoloe`."""

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
        self._one_at_a_time = threading.Lock()  # the head keeps the number of phrases that it is asked for
        options = {
            "weights": fingerprints.of_path(path),
            "texts": texts.fingerprint,
            "templates": templates,
            "image_size": image_size,
            **choice.options,
        }
        self.fingerprint = fingerprints.of_options("yoloe/1", options)

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, best score first: boxes normalised, raw scores from `floor` to 1."""
        if not phrases or not images:
            return [nothing() for _ in images]
        import torch
        from torchvision.ops import box_convert

        with self._one_at_a_time:
            model, size = self._loaded
            embeddings = remembered(self._vectors, phrases, lambda new: self._clip.prompts(new, self._templates))
            width = model.model[-1].embed
            if embeddings.shape[1] != width:
                raise UserError(
                    f"detect: the text model gives {embeddings.shape[1]} numbers a phrase, but {self._path} was "
                    f"trained with {width}. Set text_model to the model it was trained with."
                )
            asked = torch.from_numpy(embeddings)[None].to(self._on)

            def choose(rows: Tensor, normalise: Callable[[Tensor], Boxes]) -> Detections:
                boxes = box_convert(rows[:4].T, "cxcywh", "xyxy")
                scores = rows[4 : 4 + len(phrases)].T  # what follows in a segmenter are its masks' coefficients
                return select(boxes, scores, self._choice, normalise)

            stride = int(model.stride.max())
            return ultralytics_loading.detect(
                images, size, stride, self._batches, self._on, lambda pixels: model(pixels, tpe=asked), choose
            )

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
        from ultralytics.nn.tasks import YOLOEModel

        if not isinstance(model, YOLOEModel):
            raise UserError(f"detect: {self._path} holds a {type(model).__name__}, not a YOLOE network.")
        head: Any = model.model[-1]  # type: ignore[index]  # torch's types know no lists of modules
        if hasattr(head, "lrpc") or head.is_fused:
            raise UserError(
                f"detect: {self._path} has its words built in and can't be asked for others. "
                "Give a YOLOE checkpoint with prompts, such as yoloe-11s-seg.pt."
            )
        if head.cv2 is None:
            raise UserError(f"detect: {self._path} was fused for export. Give the checkpoint as it was published.")
        # the branch with one box a thing lets labels compete for it; the other's boxes we suppress ourselves
        head.end2end = False
        return ultralytics_loading.made_ready(model, size, self._on)
