"""docs/back-ends.md: every back end of the registry in one table, written by `cuescope doctor --back-ends`."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from pipeline.models import registry
from pipeline.models.registry import BackEnd

HEAD = """\
# Back ends

Written by `cuescope doctor --back-ends > docs/back-ends.md`: change the registry (`pipeline/models/registry.py`) or a
factory, and write it again. `cuescope doctor` lists the back ends of this installation, other packages' too;
`cuescope doctor --models` published models, with sizes and licences. [Your own](your-own-back-end.md) is a factory and
one line.

The third column stands in a configuration as it is (an exporter's on the command line). The options of the fourth may
be added to it; the factory's docstring explains them, and "..." is a default too long to show. Sources at s3, gs and
https URLs need `cuescope[remote]`. A package's licence is not that of the weights, which have their own. Tests on tiny
models show that a back end asks the real classes rightly, not how good a published model is.

| seam | back end | in a configuration | other options, with their defaults | needs | licence | tested by |
| --- | --- | --- | --- | --- | --- | --- |
"""

SECTIONS = {"source": "data", **{name: name for name in ("model", "caption", "propose", "detect", "embed")}}
WIDEST = 48
"""A default longer than this is shown as an ellipsis."""

EXTRAS = {"pycocotools": "data", "datasets": "data", "onnxruntime": "onnx", "num2words": "smolvlm"}
"""Which of Cuescope's extras brings a package that doesn't come with it."""

WRITTEN = {
    "torch": "BSD-3-Clause, parts under others",
    "torchvision": "BSD-3-Clause",
    "ultralytics": "AGPL-3.0",
    "pycocotools": "BSD-2-Clause",
    "datasets": "Apache-2.0",
    "onnxruntime": "MIT",
    "num2words": "LGPL-2.1",
}
"""Licences of packages that need not be installed, or whose metadata don't name theirs exactly."""

PLAIN = {
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "MIT License": "MIT",
}


def markdown() -> str:
    """The whole of docs/back-ends.md: built-in back ends alone, so that it is the same on every machine."""
    rows = [_row(seam, kind, back_end) for seam, kinds in registry.BUILT_IN.items() for kind, back_end in kinds.items()]
    return HEAD + "\n".join(rows) + "\n"


def example(seam: str, kind: str, back_end: BackEnd) -> str:
    """The line of a configuration that chooses a back end; of an exporter the command."""
    if seam == "fill":
        return f"ablate: {{fills: [{kind}]}}"
    if seam == "export":
        return f"cuescope export AUDIT --to {kind} --out FILE"
    key = "source" if seam == "source" else "kind"
    options = f", {back_end.example}" if back_end.example else ""
    return f"{SECTIONS[seam]}: {{{key}: {kind}{options}}}"


def given(back_end: BackEnd) -> dict[str, Any]:
    """The options of a back end's example."""
    return yaml.safe_load(f"{{{back_end.example}}}")


def licence(package: str) -> str:
    """A package's licence: as written down here, or as its own metadata have it; "unknown" where neither tells."""
    if package in WRITTEN:
        return WRITTEN[package]
    try:
        about: Any = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
    found = about.get("License-Expression") or about.get("License") or "unknown"
    return PLAIN.get(found, found)


def first_sentence(text: str) -> str:
    """Up to the first full stop before a capital letter or the end: "et al. 2024" ends no sentence."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph)[0]


def _row(seam: str, kind: str, back_end: BackEnd) -> str:
    what = first_sentence(inspect.getdoc(registry.factory(seam, kind)) or "")
    needs = [need.partition(" ") for need in back_end.needs]
    cells = [
        seam,
        f"`{kind}`: {what}",
        f"`{example(seam, kind, back_end)}`",
        ", ".join(_options(seam, kind, back_end)) or "none",
        ", ".join(_need(package, why) for package, _, why in needs) or "nothing more",
        "; ".join(f"{package}: {licence(package)}" for package, _, _ in needs) or "",
        f"`{back_end.tested}`, on {back_end.on}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _need(package: str, why: str) -> str:
    extra = f" (`cuescope[{EXTRAS[package]}]`)" if package in EXTRAS else ""
    return f"{package}{extra}{f' {why}' if why else ''}"


def _options(seam: str, kind: str, back_end: BackEnd) -> Iterator[str]:
    """`name: default` of each option that the example doesn't give; of a fill none."""
    if seam == "fill":
        return
    chosen = given(back_end)
    for name, default in registry.check_options(seam, kind, chosen).items():
        if name not in chosen:
            shown = json.dumps(default, ensure_ascii=False)
            yield f"`{name}: {shown if len(shown) <= WIDEST else '...'}`"
