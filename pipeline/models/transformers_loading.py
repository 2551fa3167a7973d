"""Opening models of transformers, from a local folder or a hub, and saying plainly why one can't be opened."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.models import fingerprints

Precision = Literal["fp32", "bf16", "fp16"]
# read from a model's folder: weights, configuration, tokenizer, chat template
MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")


def check_name(seam: str, kind: str, name: str) -> None:
    """A folder with a model, or a name that a hub could know; nothing is imported.

    Raises:
        UserError: transformers isn't installed, or the folder isn't there or holds no model.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{seam}: the back end '{kind}' needs the package: pip install transformers torch")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{seam}: {name} holds no config.json, so it is no transformers model.")
    elif folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise UserError(f"{seam}: there is no model folder {name}. Give one, or a name on the hub (ORG/REPO).")


def content(name: str) -> str:
    """What identifies a model: the content of its folder, or its name on the hub."""
    return fingerprints.of_path(name, MODEL_FILES) if Path(name).is_dir() else name


def load_model(seam: str, name: str, kind: Any, precision: Precision, device: str) -> Any:
    """The model of a folder or a hub by `kind.from_pretrained`, ready to run.

    Raises:
        UserError: it can't be loaded, or its weights lack something.
    """
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model, info = from_pretrained(seam, name, kind, dtype=dtype, output_loading_info=True)
    if info["missing_keys"]:  # transformers would go on with random numbers in their place
        first = sorted(info["missing_keys"])[0]
        raise UserError(
            f"{seam}: the weights in {name} lack {len(info['missing_keys'])} of the model's "
            f"tensors ({first}, ...). Get or save the model again."
        )
    return model.eval().to(device)


def from_pretrained(seam: str, name: str, kind: Any, **options: Any) -> Any:
    """`kind.from_pretrained` without progress bars, and without a network where the folder is here.

    Raises:
        UserError: whatever goes wrong.
    """
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    offline = Path(name).is_dir() or any(
        os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )
    logging.disable_progress_bar()  # the audit shows its own
    try:
        return kind.from_pretrained(name, local_files_only=offline, **options)
    except Exception as error:  # transformers, torch, safetensors and the hub raise many types
        reason = " ".join(str(error).split())[:300]
        hint = "" if Path(name).is_dir() else " Without a network, give a folder on this machine."
        raise UserError(f"{seam}: the model {name} can't be loaded: {reason}{hint}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
