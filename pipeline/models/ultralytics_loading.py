"""Opening the networks of ultralytics and running them on images, for the YOLO back ends.

Ultralytics is licensed under the AGPL-3.0. This is the only module that imports it, and only when it is used.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.geometry import Boxes, from_pixels
from pipeline.images import RGB
from pipeline.models.batching import Batches
from pipeline.models.detections import nothing
from pipeline.models.protocols import Detections

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


def check_checkpoint(kind: str, network: str, path: str, example: str) -> Path:
    """The path of a checkpoint, before anything is imported.

    Raises:
        UserError: ultralytics isn't installed, or there is no such file.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise UserError(
            f"detect: the back end '{kind}' needs the package ultralytics, which is licensed under the "
            "AGPL-3.0 (read what that asks of you): pip install ultralytics. Without it use owlv2, "
            "grounding_dino or clip_regions."
        )
    if not Path(path).is_file():
        raise UserError(
            f"detect: there is no {network} checkpoint {path}. Give the path of a .pt file; "
            f"{example} and larger ones are among the releases of ultralytics/assets on GitHub."
        )
    return Path(path)


def open_network(path: Path, trust: bool, image_size: int) -> tuple[Any, int]:
    """The network of a checkpoint in float32, not fused and not moved, and the longer side of its input.

    Args:
        trust: open a pickle that holds more than the classes of ultralytics' models.
        image_size: the longer side wished for in pixels; 0: that of the checkpoint's training.

    Raises:
        UserError: it can't be opened.
    """
    quiet()
    from ultralytics.nn import tasks

    if not trust and not getattr(getattr(tasks, "_SafeLoad", None), "SUPPORTED", False):
        raise UserError(  # older ones open the whole pickle, whatever they are told
            f"detect: {path} is a pickle, which can run code when it is opened, and this version of ultralytics or "
            "torch can't open it safely. Update both (pip install -U ultralytics torch), or, if you trust who made "
            "the file, set trust_pickle: true."
        )
    try:
        checkpoint, _ = tasks.torch_safe_load(str(path), safe_only=not trust)
        model = checkpoint.get("ema") or checkpoint["model"]
    except Exception as error:  # pickle, zip and torch raise many types on a bad checkpoint
        reason = " ".join(str(error).split())[:300]
        hint = "" if trust else " If you made this file or trust who did, set trust_pickle: true."
        raise UserError(f"detect: {path} can't be opened: {reason}{hint}") from error
    settings = checkpoint.get("train_args") or {}
    return model, image_size or int(settings.get("imgsz", 640))


def made_ready(model: Any, size: int, device: str) -> tuple[Any, int]:
    """The network fused and on its device, and the side of its input as a multiple of its stride."""
    import torch

    model = model.float().fuse(verbose=False).eval().to(device, memory_format=torch.channels_last)
    stride = int(model.stride.max())
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = True
    return model, -(-size // stride) * stride


def detect(
    images: Sequence[RGB],
    size: int,
    stride: int,
    batches: Batches,
    device: str,
    run: Callable[[Tensor], Any],
    choose: Callable[[Tensor, Callable[[Tensor], Boxes]], Detections],
) -> list[Detections]:
    """What `choose` makes of the network's (rows, places) output for each image and of what normalises boxes of its
    input. Images of one padded shape share a forward, so that an answer doesn't depend on its neighbours.
    """
    import torch

    inputs = [_letterbox(image, size, stride) for image in images]
    shapes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(inputs):
        shapes[row.shape].append(index)
    found = [nothing() for _ in images]
    for indices in shapes.values():

        def forward(rows: slice, indices: list[int] = indices) -> None:
            some = indices[rows]
            stacked = torch.from_numpy(np.stack([inputs[index] for index in some])).to(device)
            output = run(stacked.permute(0, 3, 1, 2).float() / 255)  # channels last, as convolutions like it
            while isinstance(output, tuple):  # the raw maps come along, and of a segmenter the masks
                output = output[0]
            for index, of_image in zip(some, output.float().cpu(), strict=True):
                found[index] = choose(of_image, _normaliser(inputs[index].shape[:2], images[index].shape[:2]))

        with torch.inference_mode():
            batches.run(len(indices), forward, device)
    return found


def _normaliser(padded: tuple[int, int], original: tuple[int, int]) -> Callable[[Tensor], Boxes]:
    from ultralytics.utils import ops

    height, width = original
    return lambda boxes: from_pixels(np.asarray(ops.scale_boxes(padded, boxes, original)), width, height)


def _letterbox(image: RGB, size: int, stride: int) -> RGB:
    from ultralytics.data.augment import LetterBox

    return np.asarray(LetterBox((size, size), auto=True, stride=stride)(image=image))


@functools.cache
def quiet() -> None:
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
    logger.info("The YOLO back ends run through ultralytics, which is licensed under the AGPL-3.0.")
