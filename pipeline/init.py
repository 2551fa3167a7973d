"""`cuescope init`: a commented configuration for a folder of images, or another data set that it recognises."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import yaml

from pipeline.errors import UserError, plain
from pipeline.models.registry import check_options, factory
from pipeline.sources.manifest import SUFFIXES as MANIFESTS
from pipeline.store import write_text

TEMPLATE = """\
# Cuescope: what to audit and how. Paths are relative to this file. `cuescope doctor {name}` checks it.

data:
{data}  # {summary}

# The model under test: here a zero-shot CLIP whose classes are the folders' names.
# Weights are downloaded once (ViT-B-32: 605 MB); "local-dir:PATH" uses a folder on this machine instead.
model:
  kind: open_clip
  name: ViT-B-32
  pretrained: laion2b_s34b_b79k

# Captions are where candidate cues come from. `caption: none` leaves only measured properties and unnamed regions.
caption:
  kind: transformers
  name: HuggingFaceTB/SmolVLM-256M-Instruct    # 513 MB

propose:
  kind: captions            # phrases that captions of a class use more than others; no language model needed
  # kind: openai            # a language model: any OpenAI-compatible endpoint; the key comes from OPENAI_API_KEY
  # model: gpt-4o-mini
  # budget: {{calls: 200}}

# Finds the proposed things. ultralytics is AGPL-3.0; `detect: none` does without it.
detect:
  kind: yolo_world
  name: yolov8s-worldv2.pt  # 26 MB; a .pt file is a pickle: download it from ultralytics and from nobody else
  text_model: ViT-B-32
  text_pretrained: openai
  trust_pickle: true

# Embeds regions, for cues that nobody has a word for.
embed:
  kind: open_clip
  name: ViT-B-32
  pretrained: laion2b_s34b_b79k
  regions: roi_align        # or crops: slower, sharper

ablate:
  mode: racing                   # edits go where the ranking is undecided; or exhaustive: every edit with every fill
  fills: [mean, blur, inpaint]   # more than one, because a fill is itself a cue
  budget: 20000                  # most edited images shown to the model
  images: 40                     # images an experiment

rank:
  q: 0.05                        # false-discovery rate of the confirmed findings
  smallest_effect: 0.05          # effects below this are of no interest

# of `cuescope audit` and `cuescope schedule`: what is kept, and who is told (docs/scheduled-audits.md)
# operate: {{keep: 26, notify: ["${{CUESCOPE_NOTIFY}}"]}}

seed: 0
"""


def recognise(data: Path) -> dict[str, str]:
    """The data section for what lies at a path: by suffix for a file, by its marks for a folder."""
    suffix = data.suffix.lower()
    if data.is_file() and suffix in MANIFESTS:
        return {"source": "manifest", "path": str(data)}
    if data.is_file() and suffix == ".json":
        return {"source": "coco", "path": str(data)}
    if data.is_file() and suffix == ".tar":
        return {"source": "webdataset", "path": str(data)}
    if data.is_dir() and next(data.glob("*.tar"), None):
        return {"source": "webdataset", "path": str(data / "*.tar")}
    marks = ("dataset_dict.json", "state.json", "metadata.jsonl", "metadata.csv", "*/metadata.jsonl", "*/metadata.csv")
    if data.is_dir() and any(next(data.glob(mark), None) for mark in marks):
        return {"source": "huggingface", "name": str(data)}
    return {"source": "folder", "path": str(data)}


def write_configuration(images: Path, out: Path, force: bool) -> None:
    """Write a configuration for the data at `images` (see `recognise`) to `out`.

    Raises:
        UserError: nothing there that can be read, one class alone, or `out` exists and `force` is off.
    """
    section = recognise(images)
    options = {key: value for key, value in section.items() if key != "source"}
    source = factory("source", section["source"])(**check_options("source", section["source"], options))
    labels = sorted({label for item in source for label in item.labels})
    if not labels:
        raise UserError(f"data: no image of {images} has a label.")
    if len(labels) < 2:
        raise UserError(
            f"data: {images} holds one class, '{labels[0]}'. A cue of a class shows against other classes: add images "
            "of another one."
        )
    if out.exists() and not force:
        raise UserError(f"{out} is there already. Give another name with --out, or replace it with --force.")
    for key in ("path", "name"):
        if key in section:
            section[key] = os.path.relpath(Path(section[key]).resolve(), out.resolve().parent)
    shown = ", ".join(label[:60] for label in labels[:4]) + (", ..." if len(labels) > 4 else "")
    text = TEMPLATE.format(
        name=out.name,
        data=textwrap.indent(yaml.safe_dump(section, sort_keys=False, allow_unicode=True, width=10_000), "  ").rstrip(),
        summary=plain(f"{len(labels)} classes: {shown}"),  # in a comment, which any line break would end
    )
    write_text(out, text)
