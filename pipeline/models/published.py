"""Published models that back ends are named by here: sizes and licences, and whether they are on this machine.

Figures are "about": parameters as the model's authors or their code give them, the download as the hub lists it or the
parameters at the width they are stored in. Nothing here uses the network, or imports a model's package.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Published:
    """A published model.

    Args:
        seams: the sections of a configuration that it serves in, by one `kind` and the same `options`.
        millions: of parameters. download: megabytes.
        licence: of the weights, as their publisher says.
        repository: on the Hugging Face hub; empty where `file` is elsewhere: in torch's cache, or by path.
        half: the back end runs it in 16 bits on a GPU by itself.
    """

    seams: tuple[str, ...]
    kind: str
    options: dict[str, Any] = field(hash=False)
    millions: float
    download: float
    licence: str
    repository: str = ""
    file: str = ""
    half: bool = True

    @property
    def memory(self) -> tuple[float, float]:
        """Gigabytes of the weights as they are held: in 32 bits on a CPU, in 16 on a GPU where the back end does so."""
        cpu = self.millions * 4 / 1000
        return cpu, cpu / 2 if self.half else cpu

    def here(self) -> bool:
        """Whether its weights are in the hub's cache, in torch's, or at the path that the configuration names."""
        if self.repository:
            return _in_hub_cache(self.repository)
        return any(path.is_file() for path in (Path(self.file), _torch_home() / "hub" / "checkpoints" / self.file))


def _clip(name: str, pretrained: str) -> dict[str, str]:
    return {"name": name, "pretrained": pretrained}


def _yolo(name: str, text_model: str, text_pretrained: str) -> dict[str, Any]:
    return {"name": name, "text_model": text_model, "text_pretrained": text_pretrained}


BOTH, SEEN, ASKED = ("model", "embed"), ("model",), ("caption",)
SMOL = "HuggingFaceTB/SmolVLM"
PUBLISHED: Sequence[Published] = (
    Published(
        BOTH, "open_clip", _clip("ViT-B-32", "laion2b_s34b_b79k"), 151, 605, "MIT",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    ),
    Published(
        BOTH, "open_clip", _clip("ViT-B-32", "openai"), 151, 605, "MIT; this copy Apache-2.0",
        "timm/vit_base_patch32_clip_224.openai",
    ),
    Published(
        BOTH, "open_clip", _clip("ViT-L-14", "laion2b_s32b_b82k"), 428, 1710, "MIT",
        "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    ),
    Published(
        BOTH, "open_clip", _clip("ViT-B-16-SigLIP", "webli"), 203, 813, "Apache-2.0", "timm/ViT-B-16-SigLIP"
    ),
    Published(
        BOTH, "open_clip", _clip("MobileCLIP-B", "datacompdr_lt"), 150, 599, "apple-amlr: for research alone",
        "apple/MobileCLIP-B-LT-OpenCLIP",
    ),
    Published(
        SEEN, "transformers_zero_shot", {"name": "google/siglip-base-patch16-224"}, 203, 813, "Apache-2.0",
        "google/siglip-base-patch16-224",
    ),
    Published(
        SEEN, "transformers_zero_shot", {"name": "google/siglip2-base-patch16-224"}, 375, 1500, "Apache-2.0",
        "google/siglip2-base-patch16-224",
    ),
    Published(
        SEEN, "transformers", {"name": "google/vit-base-patch16-224"}, 87, 346, "Apache-2.0",
        "google/vit-base-patch16-224",
    ),
    Published(SEEN, "timm", {"name": "resnet50.a1_in1k"}, 26, 102, "Apache-2.0", "timm/resnet50.a1_in1k"),
    Published(
        SEEN, "torchvision", {"name": "resnet50"}, 26, 98, "BSD-3-Clause; ImageNet's terms may apply",
        file="resnet50-11ad3fa6.pth",
    ),
    *(
        Published(seams, kind, {"name": name}, millions, download, "Apache-2.0", name)
        for name, millions, download in (
            (f"{SMOL}-256M-Instruct", 256, 513),
            (f"{SMOL}-500M-Instruct", 507, 1020),
            (f"{SMOL}-Instruct", 2250, 4500),
            ("Qwen/Qwen2-VL-2B-Instruct", 2210, 4420),
            ("Qwen/Qwen3-VL-2B-Instruct", 2130, 4260),
        )
        for seams, kind in ((SEEN, "transformers_vision"), (ASKED, "transformers"))
    ),
    Published(
        SEEN, "transformers_vision", {"name": "Qwen/Qwen2-VL-7B-Instruct"}, 8290, 16600, "Apache-2.0",
        "Qwen/Qwen2-VL-7B-Instruct",
    ),
    Published(
        ASKED, "transformers", {"name": "Salesforce/blip-image-captioning-base", "trust_pickle": True}, 247, 990,
        "BSD-3-Clause", "Salesforce/blip-image-captioning-base",
    ),
    Published(
        ASKED, "transformers", {"name": "florence-community/Florence-2-base"}, 231, 930, "MIT",
        "florence-community/Florence-2-base",  # half of the download, if it is kept in 16 bits
    ),
    Published(
        ("detect",), "owlv2", {"name": "google/owlv2-base-patch16-ensemble"}, 155, 620, "Apache-2.0",
        "google/owlv2-base-patch16-ensemble", half=False,
    ),
    Published(
        ("detect",), "grounding_dino", {"name": "IDEA-Research/grounding-dino-tiny"}, 172, 690, "Apache-2.0",
        "IDEA-Research/grounding-dino-tiny", half=False,
    ),
    Published(
        ("detect",), "grounding_dino", {"name": "IDEA-Research/grounding-dino-base"}, 233, 933, "Apache-2.0",
        "IDEA-Research/grounding-dino-base", half=False,
    ),
    Published(
        ("detect",), "yolo_world", _yolo("yolov8s-worldv2.pt", "ViT-B-32", "openai"), 13, 26, "AGPL-3.0",
        file="yolov8s-worldv2.pt", half=False,
    ),
    Published(
        ("detect",), "yoloe", _yolo("yoloe-11s-seg.pt", "MobileCLIP-B", "datacompdr_lt"), 13, 27, "AGPL-3.0",
        file="yoloe-11s-seg.pt", half=False,
    ),
)  # fmt: skip


def named_like(repository: str) -> list[str]:
    """Repositories of published models whose names are much like this one; none if it is among them."""
    known = sorted({model.repository for model in PUBLISHED if model.repository})
    return [] if repository in known else difflib.get_close_matches(repository, known, n=3, cutoff=0.8)


def _in_hub_cache(repository: str) -> bool:
    """Whether a snapshot of a repository in the hub's cache holds weights."""
    folder = _hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(file.suffix in WEIGHTS and file.is_file() for file in folder.glob("*/*"))


def _hub_cache() -> Path:
    """Where the hub's client keeps what it downloads, by the environment variables that it reads."""
    home = os.environ.get("HF_HOME") or Path(_xdg_cache(), "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()


def _torch_home() -> Path:
    return Path(os.environ.get("TORCH_HOME") or Path(_xdg_cache(), "torch")).expanduser()


def _xdg_cache() -> str:
    return os.environ.get("XDG_CACHE_HOME") or "~/.cache"
