"""Models from a folder or the Hugging Face hub: names, refusal of pickles, and what to do without a network."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.models import fingerprints
from pipeline.models.published import named_like

# read from a transformers model's folder: weights, configuration, tokenizer, chat template
MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")


def offline() -> bool:
    """Whether the user has told the hub's clients to use no network."""
    return any(
        os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def how_to_fetch(repository: str, name: str = "FOLDER") -> str:
    """What to download where there is a network, and where to put it; `name` is how the folder is then written."""
    alike = named_like(repository)
    return (
        f"If it isn't on this machine, run where there is a network: hf download {repository} --local-dir FOLDER; "
        f"bring that folder here and write name: {name}"
        + (f". Published models of a similar name: {', '.join(alike)}." if alike else "")
    )


def refuse_pickle(where: str, path: Path, trust_pickle: bool) -> None:
    """Weights that aren't safetensors are a pickle, which can run code when it is opened.

    Raises:
        UserError: it is one, and the user hasn't said that it may be opened.
    """
    if path.suffix != ".safetensors" and not trust_pickle:
        raise UserError(
            f"{where}: {path} is a pickle, which can run code when it is opened. Save the weights as .safetensors; "
            "or, if you made the file or trust who did, set trust_pickle: true."
        )


def check_transformers(where: str, name: str, trust_pickle: bool) -> None:
    """A transformers model's name: a folder with a configuration and weights, or ORG/REPO. Nothing is imported.

    Raises:
        UserError: it is neither, the folder's weights are a pickle that isn't trusted, or transformers isn't installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{where}: models of transformers need the package: pip install transformers torch")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{where}: {name} holds no config.json, so it is no transformers model.")
        weights = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pt", ".pth"))
        if not weights:
            raise UserError(f"{where}: {name} holds no weights (such as model.safetensors). Save the model again.")
        if not any(file.suffix == ".safetensors" for file in weights):
            refuse_pickle(where, weights[0], trust_pickle)
    elif folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise UserError(f"{where}: there is no model folder {name}. Give one, or a name on the hub (ORG/REPO).")


def content(name: str) -> str:
    """What identifies a transformers model: the content of its folder, or its name on the hub."""
    return fingerprints.of_path(name, MODEL_FILES) if Path(name).is_dir() else name


def load_transformers(where: str, kind: Any, name: str, **options: Any) -> Any:
    """`kind.from_pretrained(name, **options)`, quietly, and never from the network for a folder or offline.

    Python files that come with a model are never run.

    Raises:
        UserError: it isn't there, is damaged, or can't be downloaded.
    """
    from transformers.utils import logging

    if kind.__name__.startswith("Auto"):  # these could run Python files that lie beside the weights
        options["trust_remote_code"] = False
    local, bars = Path(name).is_dir(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # the audit shows its own
    try:
        return kind.from_pretrained(name, local_files_only=local or offline(), **options)
    except Exception as error:  # transformers, torch, safetensors and the hub raise many types
        reason = " ".join(str(error).split())[:300]
        hint = "Its files don't belong together or are damaged." if local else how_to_fetch(name)
        if options.get("use_safetensors") and not local and "safetensors" in reason:
            hint = f"Weights of another kind are a pickle: if you trust who made it, set trust_pickle: true. {hint}"
        raise UserError(f"{where}: the model {name} can't be loaded: {reason} {hint}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def load_transformers_model(where: str, kind: Any, name: str, trust_pickle: bool, **options: Any) -> Any:
    """A model of transformers in evaluation mode, with every weight read from its files.

    Raises:
        UserError: as `load_transformers`; or weights are missing, which transformers would make up at random.
    """
    safe = None if trust_pickle else True
    model, info = load_transformers(where, kind, name, use_safetensors=safe, output_loading_info=True, **options)
    if info["missing_keys"]:
        first = sorted(info["missing_keys"])[0]
        raise UserError(
            f"{where}: the weights of {name} lack {len(info['missing_keys'])} of the model's tensors ({first}, ...). "
            "Give a model that was trained for this task, or save it again."
        )
    return model.eval()
