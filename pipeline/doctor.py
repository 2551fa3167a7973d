"""`cuescope doctor`: what is installed, which models are there, what would be downloaded, what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config import SEAMS, Audit
from pipeline.context import Context
from pipeline.errors import UserError, plain
from pipeline.json_text import json_text
from pipeline.models import registry
from pipeline.models.published import PUBLISHED
from pipeline.store import AuditFolder

PACKAGES = {
    "torch": "runs every model",
    "torchvision": "RoIAlign, image transforms",
    "open_clip_torch": "models under test, region vectors",
    "transformers": "captions",
    "ultralytics": "YOLO-World and YOLOE (AGPL-3.0; nothing else needs it)",
    "faiss-cpu": "clusters of regions",
    "openai": "proposals by a language model",
    "prefect": "flows and schedules",
    "timm": "image towers of some CLIPs",
    "opencv-python": "edits of pictures",
}

OPTIONAL = frozenset({"ultralytics"})


def list_models() -> None:
    """Print the published models that configurations name: how, how large, under which licence, whether they are here.

    Nothing is asked of the network.
    """
    console = Console(soft_wrap=True)
    table = Table("section", "in a configuration", "download", "parameters", "memory", "licence", "here", box=None)
    for model in PUBLISHED:
        options = yaml.safe_dump(
            {"kind": model.kind, **model.options}, default_flow_style=True, sort_keys=False, width=10_000
        )
        cpu, gpu = model.memory
        table.add_row(
            ", ".join(model.seams),
            options.strip(),
            _bytes(model.download),
            f"{model.millions:.0f} M",
            f"{cpu:.1f} / {gpu:.1f} GB",
            model.licence,
            "yes" if model.here() else "no",
        )
    console.print(table, highlight=False, markup=False)
    console.print(MODELS_NOTE, highlight=False, markup=False)


MODELS_NOTE = """
Every figure is "about". Memory is that of the weights alone, on a CPU / on a GPU: a batch takes more, and batches
choose their size themselves. A YOLO also loads its text_model: see open_clip. Downloads go to the hub's cache
(HF_HOME), torch's (TORCH_HOME), or, for .pt files, where you put them. Licences are as the publishers state them: read
them before use. Cuescope's own tests use small models of the same classes, none of these."""


def _bytes(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def diagnose(config: Path | None, *, as_json: bool = False) -> bool:
    """Print the state of this installation (and of a configuration); whether nothing is wrong."""
    found = state(config)
    if as_json:
        print(json_text(found))
    else:
        _print_state(found)
    return not found["wrong"]


def state(config: Path | None) -> dict[str, Any]:
    """What is installed, where models run, which back ends there are, what a configuration names; and what is wrong."""
    wrong: list[str] = []
    packages = []
    for name, purpose in PACKAGES.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
            if name not in OPTIONAL:
                wrong.append(f"The package {name} is missing ({purpose}): pip install {name}")
        packages.append({"name": name, "version": version, "for": purpose})
    return {
        "packages": packages,
        "device": _device(),
        "free_gigabytes": round(shutil.disk_usage(".").free / 1e9),
        "back_ends": {seam: sorted(registry.names(seam)) for seam in registry.BUILT_IN},
        "configuration": None if config is None else _check(config, wrong),
        "wrong": wrong,
    }


def _print_state(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("package", "version", "for", title="Installed", title_justify="left")
    for package in found["packages"]:
        absent = "left out" if package["name"] in OPTIONAL else "missing"
        table.add_row(package["name"], package["version"] or absent, package["for"])
    console.print(table)
    console.print(f"Device: {found['device']}.  Free disk here: {found['free_gigabytes']} GB.", highlight=False)
    back_ends = Table("seam", "back ends", title="Back ends", title_justify="left")
    for seam, names in found["back_ends"].items():
        back_ends.add_row(seam, ", ".join(names))
    console.print(back_ends)
    if checked := found["configuration"]:
        line = f"{plain(checked['file'])}: {checked['classes']} classes in the data."
        console.print(line, highlight=False, markup=False)
        models = Table("section", "back end", "name", "state", title="Models", title_justify="left")
        for row in checked["models"]:
            models.add_row(row["section"], *(Text(plain(row[cell])) for cell in ("back_end", "name", "state")))
        console.print(models)
    for line in found["wrong"]:
        console.print(Text.assemble(("wrong:", "red"), f" {plain(line)}"), soft_wrap=True)
    if not found["wrong"]:
        console.print("Nothing is wrong.")


def _device() -> str:
    if importlib.util.find_spec("torch") is None:
        return "none, torch is missing"
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name(0)})"
    return "mps" if torch.backends.mps.is_available() else f"cpu ({os.cpu_count()} cores)"


def _check(config: Path, wrong: list[str]) -> dict[str, Any] | None:
    """A configuration's back ends, which are made, while no weights are read; what is wrong goes to `wrong`."""
    try:
        audit = Audit.from_yaml(config)
        context = Context(audit, AuditFolder(Path("audits") / "doctor"))
        labels = sorted({label for item in context.source for label in item.labels})
    except UserError as error:
        wrong.append(str(error))
        return None
    named = Context(audit.model_copy(update={"classes": audit.classes or labels}), context.folder)
    makers = {"model": "model", "caption": "captioner", "propose": "proposer", "detect": "detector", "embed": "encoder"}
    models = []
    for section in [name for name in SEAMS if name != "data"]:
        chosen = getattr(audit, section)
        if chosen is None:
            models.append({"section": section, "back_end": "none", "name": "", "state": "left out"})
            continue
        name = str(chosen.options.get("name", ""))
        try:
            getattr(named, makers[section])
            here = Path(name.removeprefix("local-dir:")).exists() or not name
            state = "found here" if here else "comes from its hub, or its cache"
        except UserError as error:
            wrong.append(str(error))
            state = "wrong"
        models.append({"section": section, "back_end": chosen.kind, "name": name, "state": state})
    return {"file": str(config), "classes": len(labels), "models": models}
