"""`cuescope doctor`: what is installed, which models are there, what would be downloaded, what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config import SEAMS, Audit
from pipeline.context import Context
from pipeline.errors import UserError, plain
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


def diagnose(config: Path | None) -> bool:
    """Print the state of this installation (and of a configuration); whether nothing is wrong."""
    console = Console()
    wrong: list[str] = []
    table = Table("package", "version", "for", title="Installed", title_justify="left")
    for name, purpose in PACKAGES.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "left out" if name in OPTIONAL else "missing"
            if name not in OPTIONAL:
                wrong.append(f"The package {name} is missing ({purpose}): pip install {name}")
        table.add_row(name, version, purpose)
    console.print(table)
    console.print(f"Device: {_device()}.  Free disk here: {shutil.disk_usage('.').free / 1e9:.0f} GB.", highlight=False)
    back_ends = Table("seam", "back ends", title="Back ends", title_justify="left")
    for seam in registry.BUILT_IN:
        back_ends.add_row(seam, ", ".join(sorted(registry.names(seam))))
    console.print(back_ends)
    if config is not None:
        wrong += _check(console, config)
    for line in wrong:
        console.print(Text.assemble(("wrong:", "red"), f" {plain(line)}"), soft_wrap=True)
    if not wrong:
        console.print("Nothing is wrong.")
    return not wrong


def _device() -> str:
    if importlib.util.find_spec("torch") is None:
        return "none, torch is missing"
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name(0)})"
    return "mps" if torch.backends.mps.is_available() else f"cpu ({os.cpu_count()} cores)"


def _check(console: Console, config: Path) -> list[str]:
    """What is wrong with a configuration: its back ends are made, no weights are read."""
    try:
        audit = Audit.from_yaml(config)
        context = Context(audit, AuditFolder(Path("audits") / "doctor"))
        labels = sorted({label for item in context.source for label in item.labels})
    except UserError as error:
        return [str(error)]
    console.print(f"{plain(str(config))}: {len(labels)} classes in the data.", highlight=False, markup=False)
    table = Table("section", "back end", "name", "state", title="Models", title_justify="left")
    named = Context(audit.model_copy(update={"classes": audit.classes or labels}), context.folder)
    wrong = []
    makers = {
        "model": "model",
        "caption": "captioner",
        "propose": "proposer",
        "detect": "detector",
        "embed": "encoder",
    }
    for section in [name for name in SEAMS if name != "data"]:
        chosen = getattr(audit, section)
        if chosen is None:
            table.add_row(section, "none", "", "left out")
            continue
        name = str(chosen.options.get("name", ""))
        try:
            getattr(named, makers[section])
            state = (
                "found here"
                if Path(name.removeprefix("local-dir:")).exists() or not name
                else "comes from its hub, or its cache"
            )
        except UserError as error:
            wrong.append(str(error))
            state = "wrong"
        table.add_row(section, *(Text(plain(cell)) for cell in (chosen.kind, name, state)))
    console.print(table)
    return wrong
