"""Loading open_clip models, from a local folder, a checkpoint or a hub, and running their two towers."""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError, nearest
from pipeline.images import DECODERS, RGB
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batches
from pipeline.models.devices import Precision
from pipeline.models.protocols import Floats

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = (".safetensors", ".bin", ".pth")  # what open_clip looks for in a local-dir
MODEL_FILES = (*WEIGHTS, ".json", ".txt", ".model")  # and its configuration and tokenizer
CONFIG = "open_clip_config.json"
LOCAL, HUB = "local-dir:", "hf-hub:"
TEXTS = 256  # texts in one forward


@dataclass(frozen=True)
class ClipSource:
    """Where an open_clip model comes from; checked when it is made, loaded when it is first used.

    `name` is "local-dir:FOLDER", "hf-hub:ORG/REPO" or a model name that open_clip knows; the latter needs
    `pretrained`, a tag that open_clip knows or the path of a checkpoint. A local file that is a pickle is opened
    only with `trust_pickle`; of what comes from a hub nothing but the weights is read.
    """

    name: str
    pretrained: str | None = None
    precision: Precision = "fp32"
    trust_pickle: bool = False

    def __post_init__(self) -> None:
        if importlib.util.find_spec("open_clip") is None:
            raise UserError("An open_clip model needs the package open_clip: pip install open_clip_torch")
        if self.name.startswith(LOCAL):
            _check_folder(Path(self.name[len(LOCAL) :]), self.trust_pickle)
        elif not self.name.startswith(HUB):
            _check_name(self.name, self.pretrained)
            if self.pretrained and Path(self.pretrained).is_file():
                hub.refuse_pickle("open_clip", Path(self.pretrained), self.trust_pickle)

    def on(self, device: str) -> ClipSource:
        """The same with the precision that "auto" means on a device."""
        return replace(self, precision=devices.precision(self.precision, device))

    @cached_property
    def fingerprint(self) -> str:
        """By the content of local files; for a hub by name and tag, even if it is rewritten. See `on`."""
        content = None
        if self.name.startswith(LOCAL):
            content = fingerprints.of_path(self.name[len(LOCAL) :], MODEL_FILES)
        elif self.pretrained and Path(self.pretrained).is_file():
            content = fingerprints.of_path(self.pretrained)
        # a local model is its content, so that moving the folder loses no cache
        where = LOCAL if self.name.startswith(LOCAL) else self.name
        tag = None if content else self.pretrained
        return fingerprints.of_options("open_clip", {"from": [where, tag, content], "precision": self.precision})

    def load(self, device: str) -> LoadedClip:
        """The model on a device, with preprocessing and tokenizer; one copy a process while anyone holds it.

        Raises:
            UserError: the weights are damaged, don't fit the configuration, or can't be downloaded.
        """
        device = devices.pick(device)
        source = self.on(device)
        key = (source.fingerprint, device)
        with _LOCK:
            loaded = _LOADED.get(key)
            if loaded is None:
                loaded = _LOADED[key] = source._load(device)
            return loaded

    def _load(self, device: str) -> LoadedClip:
        import open_clip

        from pipeline.models.fast_tower import fold, quicken

        if self.pretrained and not self.name.startswith((LOCAL, HUB)):
            _check_tag(self.name, self.pretrained)
        logging.disable(logging.ERROR)  # open_clip logs what its error says too
        try:
            if self.name.startswith(HUB):
                from huggingface_hub import hf_hub_download

                repository, _, revision = self.name[len(HUB) :].partition("@")
                config = hf_hub_download(repository, CONFIG, revision=revision or None)
                _refuse_code(json.loads(Path(config).read_text(encoding="utf-8")), self.name)
            model, preprocess = open_clip.create_model_from_pretrained(
                self.name,
                self.pretrained,
                precision=self.precision,
                device=device,
                weights_only=not self.trust_pickle,
            )
            tokenizer = open_clip.get_tokenizer(self.name)
        except UserError:
            raise
        except Exception as error:  # open_clip, torch, safetensors and the hub raise many types for bad weights
            reason = " ".join(str(error).split())
            reason = reason if len(reason) <= 300 else f"{reason[:300].rsplit('. ', 1)[0].rstrip('.')}."
            raise UserError(f"The open_clip model {self._words()} can't be loaded: {reason} {self._hint()}") from error
        finally:
            logging.disable(logging.NOTSET)
        fold(quicken(model.eval().visual))
        return LoadedClip(model, preprocess, tokenizer, device, self.precision)

    def _hint(self) -> str:
        import open_clip

        if self.name.startswith(LOCAL) or (self.pretrained and Path(self.pretrained).is_file()):
            return "Its files don't belong together or are damaged."
        if self.name.startswith(HUB):
            return hub.how_to_fetch(self.name[len(HUB) :], f"{LOCAL}FOLDER")
        known = open_clip.get_pretrained_cfg(self.name.replace("/", "-"), self.pretrained)
        if known.get("hf_hub"):
            return hub.how_to_fetch(known["hf_hub"].strip("/"), f"{LOCAL}FOLDER")
        return (
            f"If it isn't on this machine, download {known['url']} where there is a network; bring the file here and "
            "write pretrained: FILE and, since it is a pickle, trust_pickle: true"
        )

    def _words(self) -> str:
        return f"'{self.name}'" + (f" with '{self.pretrained}'" if self.pretrained else "")


@dataclass(frozen=True, eq=False)
class LoadedClip:
    """An open_clip model ready to run; every method runs without gradients."""

    model: Any  # open_clip's CLIP, CustomTextCLIP or CoCa
    preprocess: Any
    tokenizer: Any
    device: str
    precision: Precision

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of what the image tower sees."""
        size = self.model.visual.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @cached_property
    def width(self) -> int:
        """The number of dimensions of an embedding."""
        return int(self.texts([""]).shape[1])

    @cached_property
    def squash(self) -> Any:
        """The model's own preprocessing with the whole image squeezed into the input: nothing is cut off."""
        import open_clip

        own = self.model.visual.preprocess_cfg
        return open_clip.image_transform(
            self.size,
            False,
            own["mean"],
            own["std"],
            resize_mode="squash",
            interpolation=own["interpolation"],
        )

    def sized(self, images: Sequence[RGB], transform: Any = None) -> Tensor:
        """(n, height, width, 3) bytes of the size that the image tower sees, by the model's own `preprocess` or
        `transform`, in the processor's memory. No transform of open_clip changes an image that has the size already.
        """
        import torch
        from PIL import Image

        *geometry, _, _ = (transform or self.preprocess).transforms  # then to numbers, and normalised

        def of_size(image: RGB) -> RGB:
            if image.shape[:2] == self.size:
                return image
            picture = Image.fromarray(image)
            for step in geometry:
                picture = step(picture)
            return np.asarray(picture)

        if sum(image.shape[:2] != self.size for image in images) > 1:
            with ThreadPoolExecutor(min(DECODERS, len(images))) as pool:
                images = list(pool.map(of_size, images))
        else:
            images = [of_size(image) for image in images]
        return devices.pinned(torch.from_numpy(np.stack(images)), self.device)

    def normalised(self, sized: Tensor) -> Tensor:
        """(n, 3, height, width) input of the image tower on its device, from what :meth:`sized` gives."""
        numbers = sized.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div(255)
        return self.preprocess.transforms[-1](numbers).to(devices.dtype(self.precision))

    def images(self, images: Sequence[RGB], batches: Batches) -> Floats:
        """(n, d) unit-length embeddings of whole images, by the model's own preprocessing."""
        import torch

        def encode(sized: Tensor) -> Floats:
            return unit(self.model.encode_image(self.normalised(sized)))

        with torch.inference_mode():
            parts = batches.run(len(images), encode, self.device, lambda rows: self.sized(images[rows]))
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def texts(self, texts: Sequence[str]) -> Floats:
        """(n, d) unit-length embeddings of texts, which are cut at the model's context length."""
        import torch

        def encode(rows: slice) -> Floats:
            return unit(self.model.encode_text(self.tokenizer(list(texts[rows])).to(self.device)))

        with torch.inference_mode():
            parts = Batches(TEXTS).run(len(texts), encode, self.device)
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def prompts(self, words: Sequence[str], templates: Sequence[str]) -> Floats:
        """(words, d): of each word the mean of its prompts' embeddings, back at unit length.

        Prompt ensembling of CLIP (Radford et al. 2021, section 3.1.4).
        """
        rows = self.texts([template.format(word) for word in words for template in templates])
        mean = rows.reshape(len(words), len(templates), -1).mean(axis=1) if len(words) else rows
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


_LOCK = threading.Lock()
_LOADED: weakref.WeakValueDictionary[tuple[str, str], LoadedClip] = weakref.WeakValueDictionary()


def unit(rows: Tensor) -> Floats:
    """Rows at unit length as a float32 array in memory."""
    import torch.nn.functional as F

    return F.normalize(rows.float(), dim=-1).cpu().numpy()


def check_templates(templates: Sequence[str], where: str) -> None:
    """Each template must hold exactly one `{}`, the place of the words.

    Raises:
        UserError: there is no template, or one that isn't so.
    """
    if not templates:
        raise UserError(f"{where}: the option 'templates' is empty. Give at least one, such as: a photo of a {{}}.")
    for template in templates:
        if template.count("{") != 1 or template.count("}") != 1 or "{}" not in template:
            raise UserError(f"{where}: the template '{template}' must hold one {{}} where the words go.")


def _check_folder(folder: Path, trust_pickle: bool) -> None:
    config = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"There is no model folder {folder}. Give one that holds open_clip_config.json and weights.")
    if not config.is_file():
        raise UserError(f"{folder} holds no open_clip_config.json, so it is no open_clip model. Give another folder.")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{config} is not JSON ({error}). Save the model again.") from None
    if not isinstance(settings, dict) or "model_cfg" not in settings:
        raise UserError(f"{config} has no 'model_cfg', so it is no open_clip configuration. Save the model again.")
    _refuse_code(settings, str(folder))
    weights = sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS)
    if not weights:
        raise UserError(f"{folder} holds no weights (such as open_clip_model.safetensors). Save the model again.")
    if not any(file.suffix == ".safetensors" for file in weights):
        hub.refuse_pickle("open_clip", weights[0], trust_pickle)


def _refuse_code(settings: Any, where: str) -> None:
    """Of a model's configuration open_clip hands the tokenizer's options on as they are: one lets Python files that
    come with the model run."""
    text = settings["model_cfg"].get("text_cfg") if isinstance(settings.get("model_cfg"), dict) else None
    if isinstance(text, dict) and "trust_remote_code" in (text.get("tokenizer_kwargs") or {}):
        raise UserError(
            f"The open_clip model {where} asks in its configuration (tokenizer_kwargs) to run Python code that comes "
            "with it, which is refused. Remove 'trust_remote_code' there, or take another model."
        )


def _check_name(name: str, pretrained: str | None) -> None:
    """A plain name must be one that open_clip knows, and needs weights; imports torch only on a fault."""
    if Path(name).is_dir():
        raise UserError(f"'{name}' is a folder; for open_clip write it as: name: {LOCAL}{name}")
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.submodule_search_locations
    shipped = Path(spec.submodule_search_locations[0]) / "model_configs" / f"{name.replace('/', '-')}.json"
    if pretrained and shipped.is_file():
        return
    import open_clip

    if open_clip.get_model_config(name.replace("/", "-")) is None:
        raise UserError(f"open_clip knows no model '{name}'. {nearest(name, open_clip.list_models())}")
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name.replace("/", "-"))) or "none known"
        raise UserError(f"The open_clip model '{name}' needs the option 'pretrained': a file or one of: {tags}.")


def _check_tag(name: str, pretrained: str) -> None:
    import open_clip

    name = name.replace("/", "-")
    if not open_clip.get_pretrained_cfg(name, pretrained) and not Path(pretrained).is_file():
        hint = nearest(pretrained, open_clip.list_pretrained_tags_by_model(name))
        raise UserError(f"open_clip knows no weights '{pretrained}' for '{name}', and there is no such file. {hint}")
